// SPDX-License-Identifier: Apache-2.0
import type { ImageId } from '@busbar/core/ids';
import type { Logger } from '@busbar/core/log';
import { forgotten } from '../certificate/plan.ts';
import { expiredEvents } from '../event/retention.ts';
import { expired } from '../operation/create.ts';
import { importKey, recordKey } from '../records/kinds.ts';
import { absent } from '../view/table.ts';
import type { Leader } from './leader.ts';
import type { TermDeps } from './term.ts';

type CleanUpDeps = Pick<TermDeps, 'store' | 'view' | 'storage' | 'audit' | 'clock' | 'logger'>;

/** etcd's limit of operations per transaction is 128. */
const BATCH = 100;

/**
 * Removes ended operations, audit records, events and expired certificates that are no longer kept, and the bytes of
 * imports whose controller died.
 *
 * Bytes are removed only where a note in the store says that an import was writing them (importKey) and the store itself says,
 * a round ago and now, that no record names them. Whatever else is in the pool without a record is only
 * told: a store restored from an old backup, or a record that this version cannot read, must not cost anybody's data.
 */
export class CleanUp {
  readonly #deps: CleanUpDeps;
  readonly #leader: Leader;
  /** Imports without a record, a round ago. */
  #suspects: ReadonlySet<string> = new Set();
  /** Unknown things in the pool that were told already. */
  readonly #told = new Set<string>();

  constructor(deps: CleanUpDeps, leader: Leader) {
    this.#deps = deps;
    this.#leader = leader;
  }

  async round(): Promise<void> {
    const { clock, view } = this.#deps;
    const old = [
      ...expired(this.#deps),
      ...this.#deps.audit.expired(),
      ...expiredEvents(view, clock.wallTime()),
      ...forgotten(view, clock.wallTime()),
    ];
    for (let i = 0; i < old.length; i += BATCH)
      await this.#leader.txn({ compare: [], writes: old.slice(i, i + BATCH) });
    const notes = await this.#removeImports();
    await this.#tellUnknown(notes);
  }

  /** Returns the ids of all imports that are noted. */
  async #removeImports(): Promise<ReadonlySet<string>> {
    const { store, storage, logger } = this.#deps;
    const prefix = importKey('');
    const noted = (await store.list(prefix)).value.map((kv) => kv.key.slice(prefix.length));
    const suspects = new Set<string>();
    for (const id of noted) {
      const noRecord = absent(recordKey('image', id));
      // The store itself, not the view, and fenced: a leader of yesterday must not remove anything.
      if (!(await this.#leader.txn({ compare: [noRecord], writes: [] })).succeeded) continue;
      suspects.add(id);
      if (!this.#suspects.has(id) || this.#leader.signal.aborted) continue;
      logger.warn({ imageId: id }, 'removing what an interrupted import left in the pool');
      try {
        await storage.deleteImage(id as ImageId);
      } catch (error) {
        // One image that does not let go (a watcher, a snapshot) must not keep the others' bytes.
        logger.warn({ imageId: id, err: error }, 'cannot remove it; tried again in a minute');
        continue;
      }
      await this.#leader.txn({ compare: [noRecord], writes: [{ kind: 'delete', key: importKey(id) }] });
    }
    this.#suspects = suspects;
    return new Set(noted);
  }

  async #tellUnknown(noted: ReadonlySet<string>): Promise<void> {
    const { view, storage } = this.#deps;
    const images = (await storage.listImages()).map(({ imageId }) => imageId as string);
    const volumes = await storage.listVolumes();
    // Listed first, looked up afterwards: records are written before bytes, so what is being made now has a record.
    await view.fresh();
    const unknownImages = images.filter((id) => view.tables.image.get(id) === undefined && !noted.has(id));
    const unknownVolumes = volumes.filter((id) => view.tables.volume.get(id) === undefined);
    tell(this.#deps.logger, this.#told, 'image', unknownImages);
    tell(this.#deps.logger, this.#told, 'volume', unknownVolumes);
  }
}

function tell(logger: Logger, told: Set<string>, kind: string, ids: readonly string[]): void {
  for (const id of ids) {
    if (told.has(`${kind}/${id}`)) continue;
    told.add(`${kind}/${id}`);
    logger.warn({ kind, id }, 'the pool holds something without a record; it is left alone');
  }
}
