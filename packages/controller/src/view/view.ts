// SPDX-License-Identifier: Apache-2.0
import { type Clock, sleep, withDeadline } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import type { Revision } from '@busbar/core/ids';
import type { Logger } from '@busbar/core/log';
import { KINDS, type Kind, parseRecordKey, ROOT, recordKey } from '../records/kinds.ts';
import type { ClusterStore, KeyValue } from '../store/cluster-store.ts';
import { Bells } from './bells.ts';
import { ChangeLog } from './change-log.ts';
import { Table } from './table.ts';

/** A read of the store takes milliseconds; within this time all callers share one. */
const FRESH_JOIN_MS = 250;
/**
 * The store's revision also rises by keys that are not ours, and etcd tells a watcher of those every ten minutes only. A
 * view that has not caught up after this time, which is long for a watch, writes this key and learns of it.
 */
const PULSE_AFTER_MS = 200;
export const PULSE_KEY = `${ROOT}pulse`;
/** A listing takes milliseconds; the store has just answered. */
const RELIST_DEADLINE_MS = 2_000;
/** Shorter than an etcd election, so that a quorum lost before this is noticed by a read and not by a write. */
const FOLLOWS_MS = 1_000;

/**
 * The whole store in memory, kept current by list-then-watch. A controller never decides on a
 * single event: it looks at this view, at one revision, and every write it derives from it compares the mod
 * revisions it saw, so that a view that lags costs a failed transaction and never a wrong write.
 *
 * Reads for users first learn the store's current revision (`fresh`), then wait until the view has it:
 * linearizable, for one small read of the store shared by all callers that ask meanwhile.
 */
export class ClusterView {
  readonly tables: { readonly [K in Kind]: Table<K> };
  readonly changes = new ChangeLog();
  /** For watchers: who may be many, and can wait for their turn. */
  readonly bells: Bells;
  readonly #store: ClusterStore;
  readonly #clock: Clock;
  readonly #log: Logger;
  #revision = 0n as Revision;
  #filled = false;
  #relists = 0;
  readonly #waiters = new Set<{ readonly revision: Revision; readonly resolve: () => void }>();
  #pulsing = false;
  /** Ends the present watch, so that the store is listed again. */
  #relistNow = new AbortController();
  readonly #relisted = new Set<() => void>();
  /** When the store last showed that it has a quorum: a commit that we were told of, or a linearizable read. */
  #quorumMs = Number.NEGATIVE_INFINITY;
  #fresh: { readonly promise: Promise<Revision>; started: boolean } | null = null;

  constructor(deps: { readonly store: ClusterStore; readonly clock: Clock; readonly logger: Logger }) {
    this.#store = deps.store;
    this.#clock = deps.clock;
    this.#log = deps.logger;
    this.bells = new Bells(deps.clock);
    this.changes.onFlush(() => this.bells.ring());
    const table = <K extends Kind>(kind: K): Table<K> =>
      new Table(kind, (id, error) =>
        this.#log.error({ key: recordKey(kind, id), err: error }, 'unreadable record in the cluster store'),
      );
    this.tables = {
      vm: table('vm'),
      'vm-status': table('vm-status'),
      volume: table('volume'),
      image: table('image'),
      network: table('network'),
      host: table('host'),
      'host-status': table('host-status'),
      operation: table('operation'),
      audit: table('audit'),
      event: table('event'),
      authority: table('authority'),
      certificate: table('certificate'),
      'join-token': table('join-token'),
      alarm: table('alarm'),
      store: table('store'),
    };
  }

  get revision(): Revision {
    return this.#revision;
  }

  /** Whether the store was ever read whole: before, nothing is known, also not what is forbidden. */
  get filled(): boolean {
    return this.#filled;
  }

  /** How often the whole store was listed. */
  get relists(): number {
    return this.#relists;
  }

  /** Lists and watches until the signal aborts; survives every outage of the store. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        this.#relistNow = new AbortController();
        await this.#relist();
        await this.#follow(AbortSignal.any([signal, this.#relistNow.signal]));
      } catch (error) {
        if (signal.aborted) return;
        this.#log.warn({ err: error }, 'cluster view lost the store; listing again');
        // A store without quorum answers within seconds; half a second keeps the retry from being a load.
        await sleep(this.#clock, 500, signal).catch(() => {});
      }
    }
  }

  /**
   * True when the store worked a moment ago. A write may then be tried on the view as it is; otherwise ask `fresh` first: without
   * a quorum a read is refused plainly, while the outcome of a write would be unknown.
   */
  followsStore(): boolean {
    return this.#clock.nowMs() - this.#quorumMs < FOLLOWS_MS;
  }

  /** Waits until the view holds everything up to `revision`. */
  async waitFor(revision: Revision, deadlineMs = 2_000): Promise<void> {
    if (this.#revision >= revision) return;
    // Every change of every caller comes by here: as little as can be, not withDeadline.
    await new Promise<void>((resolve, reject) => {
      const waiter = {
        revision,
        resolve: () => {
          timer[Symbol.dispose]();
          resolve();
        },
      };
      this.#waiters.add(waiter);
      const timer = this.#clock.timer(deadlineMs, () => {
        this.#waiters.delete(waiter);
        reject(
          new BusbarError({
            kind: 'unavailable',
            reason: 'VIEW_BEHIND',
            message: `this controller is behind the cluster store: revision ${revision} did not come within ${deadlineMs} ms`,
            hint: 'ask again, or ask another controller',
          }),
        );
      });
    });
  }

  /** Brings the view to at least the store's revision at the time of the call. */
  async fresh(): Promise<Revision> {
    // A read that is already under way may have been answered before this call began: only join one that has not started.
    const joined = this.#fresh !== null && !this.#fresh.started ? this.#fresh : this.#startFresh(this.#fresh);
    const revision = await joined.promise;
    if (this.#revision >= revision) return revision;
    using _ = this.#clock.timer(PULSE_AFTER_MS, () => void this.#pulse());
    await this.waitFor(revision);
    return revision;
  }

  /** One at a time, however many wait. A failure needs no telling: who waits is told that the view is behind. */
  async #pulse(): Promise<void> {
    if (this.#pulsing) return;
    this.#pulsing = true;
    const writes = [{ kind: 'put' as const, key: PULSE_KEY, value: '' }];
    await this.#store.txn({ compare: [], writes }).catch(() => {});
    this.#pulsing = false;
  }

  #startFresh(running: { readonly promise: Promise<Revision> } | null) {
    const mine: { promise: Promise<Revision>; started: boolean } = {
      promise: Promise.resolve(0n as Revision),
      started: false,
    };
    mine.promise = (async () => {
      // Join what comes within this time, but do not wait out a store that hangs: the deadlines would add up.
      const before = running?.promise;
      if (before === undefined) await Promise.resolve();
      else await withDeadline(this.#clock, FRESH_JOIN_MS, 'the read before', () => before).catch(() => {});
      mine.started = true;
      try {
        const known = this.#revision;
        const { revision } = await this.#store.get(`${ROOT}leader`);
        this.#quorumMs = this.#clock.nowMs();
        if (revision < known) await this.#goBack(revision);
        return revision;
      } finally {
        if (this.#fresh === mine) this.#fresh = null;
      }
    })();
    this.#fresh = mine;
    return mine;
  }

  async #relist(): Promise<void> {
    const { value: items, revision } = await this.#store.list(ROOT);
    this.#relists++;
    if (revision < this.#revision) {
      const [from, to] = [String(this.#revision), String(revision)];
      this.#log.error({ from, to }, 'the cluster store went back in time: was it restored from a backup?');
      this.#revision = revision;
      this.changes.restart();
    }
    const seen = new Map<Kind, Set<string>>(KINDS.map((kind) => [kind, new Set<string>()]));
    // In the order in which they were written, as a watch would have told them: the change log relies on it.
    for (const kv of items.toSorted((a, b) => (a.modRevision < b.modRevision ? -1 : 1))) {
      const parsed = parseRecordKey(kv.key);
      if (parsed === null) continue;
      seen.get(parsed.kind)?.add(parsed.id);
      if (this.tables[parsed.kind].revisionOf(parsed.id) !== kv.modRevision) this.#put(kv);
    }
    for (const kind of KINDS) {
      for (const id of [...this.tables[kind].ids()]) {
        if (!seen.get(kind)?.has(id)) this.#remove(kind, id, revision);
      }
    }
    this.#filled = true;
    this.#advance(revision);
    for (const resolve of this.#relisted) resolve();
    this.#relisted.clear();
  }

  /**
   * A linearizable read that is older than what was known before it began: the store was restored beneath this controller. A
   * watch from a revision that the store has yet to reach says nothing about that.
   */
  async #goBack(revision: Revision): Promise<void> {
    this.#log.error({ known: String(this.#revision), read: String(revision) }, 'the cluster store is older than known');
    const listed = new Promise<void>((resolve) => this.#relisted.add(resolve));
    this.#relistNow.abort();
    await withDeadline(this.#clock, RELIST_DEADLINE_MS, 'listing the restored store', () => listed);
  }

  async #follow(signal: AbortSignal): Promise<void> {
    for await (const batch of this.#store.watch(ROOT, this.#revision, signal)) {
      if (batch.kind === 'compacted') return;
      if (batch.kind === 'events') {
        this.#quorumMs = this.#clock.nowMs();
        for (const event of batch.events) {
          if (event.kind === 'put') this.#put(event.kv);
          else {
            const parsed = parseRecordKey(event.key);
            if (parsed !== null) this.#remove(parsed.kind, parsed.id, event.modRevision);
          }
        }
      }
      this.#advance(batch.revision);
    }
  }

  #put(kv: KeyValue): void {
    const parsed = parseRecordKey(kv.key);
    if (parsed === null) return;
    const { kind, id } = parsed;
    if (this.tables[kind].take(id, kv)) this.changes.add({ kind, id, revision: kv.modRevision, gone: null });
  }

  #remove(kind: Kind, id: string, revision: Revision): void {
    const name = this.tables[kind].delete(id);
    if (name === undefined) return;
    this.changes.add({ kind, id, revision, gone: { name } });
  }

  #advance(revision: Revision): void {
    if (revision > this.#revision) this.#revision = revision;
    for (const waiter of this.#waiters) {
      if (waiter.revision > this.#revision) continue;
      this.#waiters.delete(waiter);
      waiter.resolve();
    }
    this.changes.flush(this.#revision);
  }
}
