// SPDX-License-Identifier: Apache-2.0

import { createHash } from 'node:crypto';
import { sleep, withDeadline } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import type { ImageId, Revision } from '@busbar/core/ids';
import type { ImageRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import {
  ImageFormat,
  ImagePhase,
  ImportImageHeader,
  type ImportImageRequest,
  type ImportImageResponse,
} from '@busbar/proto/gen/busbar/v1/image';
import type { ImageStat } from '@busbar/storage/driver';
import type { Api, Call } from '../api/call.ts';
import { contentOf, withRequestLease } from '../api/mutate.ts';
import { nameTaken } from '../api/refusals.ts';
import { invalid, parse } from '../api/validation.ts';
import { auditWrite } from '../audit/change.ts';
import { assertNotBehind } from '../cluster/behind.ts';
import { eventsOf } from '../event/derive.ts';
import { putEvent } from '../event/outbox.ts';
import {
  decodeRequest,
  deleteRecord,
  encodeRecord,
  encodeRequest,
  importKey,
  nameKey,
  putRecord,
  recordKey,
  requestKey,
} from '../records/kinds.ts';
import { firstMessage } from '../session/first-message.ts';
import type { StoreLease, Transaction, Write } from '../store/cluster-store.ts';
import { absent } from '../view/table.ts';
import { presentImage, presentRecord } from './present.ts';
import { headerSchema } from './schema.ts';

/**
 * An import is worked on by the controller that holds the caller's stream; no other could go on without the bytes. So its
 * record lives under a store lease of this controller until the image is ready: when the controller dies, record and name vanish by
 * themselves, and the leader's clean-up removes the bytes from the pool (a note, importKey, says that there may be some). The last
 * transaction detaches the record from the lease.
 *
 * Races: two imports of one name – the second one's transaction fails on the name. Lease lost while importing (controller
 * frozen) – the last transaction compares the record's creation and fails; nothing becomes visible.
 */
const LEASE_MS = 15_000;
const RENEW_EVERY_MS = 4_000;
/** A sender that is silent for this long is gone. */
const CHUNK_DEADLINE_MS = 60_000;
/** Progress is told at most this often. */
const PROGRESS_EVERY_MS = 250;

export async function* importImage(
  api: Api,
  incoming: AsyncIterable<ImportImageRequest>,
  call: Call,
): AsyncIterable<ImportImageResponse> {
  const iterator = incoming[Symbol.asyncIterator]();
  const first = await firstMessage(api.clock, iterator, 'the header of the import');
  if (first.done || first.value.part?.$case !== 'header') {
    throw invalid([{ field: 'header', problem: 'is missing', expected: 'the header, in the first message' }]);
  }
  const header = parse(headerSchema, first.value.part.value) as ImportImageHeader;
  await api.view.fresh();
  const requestRecord = header.requestId === '' ? null : requestKey(call.caller.name, header.requestId);
  const digest = createHash('sha256')
    .update('ImportImage\0')
    .update(contentOf(ImportImageHeader, header))
    .digest('hex');
  if (requestRecord !== null) {
    const former = (await api.store.get(requestRecord)).value;
    if (former !== null) {
      await api.view.waitFor(former.modRevision);
      const record = decodeRequest(former.value);
      if (record.digest !== digest) {
        throw new BusbarError({
          kind: 'already-exists',
          reason: 'REQUEST_ID_REUSED',
          message: `request id "${header.requestId}" was used for another request within the last hour`,
          hint: 'use a new request id',
        });
      }
      // Its change has a record already.
      call.audit.settled = true;
      yield {
        phase: 'seal',
        doneBytes: header.spec?.fileSizeBytes ?? 0n,
        image: presentImage(record.resourceId, api.view) ?? undefined,
      };
      return;
    }
  }
  assertNotBehind(api.view);
  if (api.view.tables.image.find(header.name) !== undefined) throw nameTaken('image', header.name);
  if (header.validateOnly) {
    await assertRoom(api, header);
    yield { phase: 'receive', doneBytes: 0n, image: undefined };
    return;
  }
  const id = api.random.uuid();
  const lease = await api.store.grantLease(LEASE_MS);
  const abort = new AbortController();
  const onHangUp = () =>
    abort.abort(new BusbarError({ kind: 'cancelled', reason: 'CALLER_GONE', message: 'the caller ended the import' }));
  call.signal.addEventListener('abort', onHangUp, { once: true });
  try {
    await assertRoom(api, header);
    const record = newRecord(api, id, header);
    const claimed = await api.commit(call, {
      compare: [absent(nameKey('image', header.name))],
      writes: [
        { kind: 'put', key: recordKey('image', id), value: encodeRecord('image', record), lease: lease.id },
        { kind: 'put', key: nameKey('image', header.name), value: id, lease: lease.id },
        { kind: 'put', key: importKey(id), value: header.name },
      ],
    });
    if (!claimed.succeeded) throw nameTaken('image', header.name);
    const renewing = keepAlive(api, lease, abort);
    let stat: Promise<ImageStat> | null = null;
    let ended = false;
    try {
      const progress = new Progress(api);
      stat = progress.during(
        api.storage.importImage({
          imageId: id as ImageId,
          format: header.spec?.format === ImageFormat.QCOW2 ? 'qcow2' : 'raw',
          sizeBytes: header.spec?.fileSizeBytes ?? 0n,
          sha256: header.spec?.sha256 || null,
          source: chunks(api, iterator),
          signal: abort.signal,
          onProgress: (now) => progress.set(now.phase, now.doneBytes),
        }),
      );
      yield* progress.responses();
      const found = await stat;
      const ready: ImageRecord = {
        ...record,
        status: {
          phase: ImagePhase.READY,
          virtualSizeBytes: found.virtualSizeBytes,
          allocatedBytes: found.allocatedBytes,
          sha256: found.sha256,
        },
      };
      const writes: Write[] = [
        putRecord('image', id, ready),
        { kind: 'put', key: nameKey('image', header.name), value: id },
        { kind: 'delete', key: importKey(id) },
      ];
      const transaction: Transaction = {
        compare: [{ target: 'create', key: recordKey('image', id), revision: claimed.revision }],
        writes: [
          ...writes,
          auditWrite(api, call, {
            compare: [],
            writes,
            ids: { operationId: '', resourceId: id },
            requestId: header.requestId,
          }),
          ...eventsOf('image', id, record, ready, () => '').map((event) => putEvent(api, event)),
        ],
      };
      const answer = encodeRequest({ digest, operationId: '', resourceId: id });
      const sealed =
        requestRecord === null
          ? await seal(api, call, id, ready, transaction)
          : await withRequestLease(api, (leaseId) =>
              seal(api, call, id, ready, {
                ...transaction,
                writes: [...transaction.writes, { kind: 'put', key: requestRecord, value: answer, lease: leaseId }],
              }),
            );
      if (!sealed.succeeded)
        throw new BusbarError({
          kind: 'unavailable',
          reason: 'IMPORT_LOST',
          message: 'this controller lost its claim on the import',
          hint: 'import it again',
        });
      ended = true;
      call.audit.settled = true;
      // The image is there, whatever happens to this answer.
      await api.view.waitFor(sealed.revision).catch(() => {});
      const image = presentImage(id, api.view) ?? presentRecord(ready, sealed.revision);
      yield { phase: 'seal', doneBytes: header.spec?.fileSizeBytes ?? 0n, image };
    } finally {
      abort.abort();
      await renewing;
      // Also when the caller just stopped listening: then no error comes this way.
      if (!ended) {
        await stat?.catch(() => {});
        await forget(api, id, header.name);
      }
    }
  } finally {
    call.signal.removeEventListener('abort', onHangUp);
    await lease.revoke().catch(() => {});
  }
}

async function assertRoom(api: Api, header: ImportImageHeader): Promise<void> {
  const { availableBytes } = await api.storage.capacity();
  const need = header.spec?.fileSizeBytes ?? 0n;
  if (need <= availableBytes) return;
  throw new BusbarError({
    kind: 'exhausted',
    reason: 'POOL_FULL',
    message: `image "${header.name}" has ${need} bytes, the pool has room for ${availableBytes}`,
    hint: 'delete volumes or images, or add disks',
  });
}

function newRecord(api: Api, id: string, header: ImportImageHeader): ImageRecord {
  const now = api.clock.wallTime();
  return {
    meta: { id, name: header.name, labels: header.labels, createTime: now, updateTime: now, deleting: false },
    spec: header.spec,
    status: { phase: ImagePhase.IMPORTING, virtualSizeBytes: 0n, allocatedBytes: 0n, sha256: '' },
  };
}

/** The transaction that makes the image visible. When its answer is lost, the record itself tells whether it was applied. */
async function seal(
  api: Api,
  call: Call,
  id: string,
  ready: ImageRecord,
  transaction: Transaction,
): Promise<{ readonly succeeded: boolean; readonly revision: Revision }> {
  try {
    return await api.commit(call, transaction);
  } catch (error) {
    if (!(error instanceof BusbarError && error.kind === 'timeout')) throw error;
    const found = await api.store.get(recordKey('image', id)).catch(() => null);
    if (found?.value?.value !== encodeRecord('image', ready)) throw error;
    return { succeeded: true, revision: found.value.modRevision };
  }
}

/**
 * Removes what the import wrote: the records first, and the bytes only once the store has confirmed that no record names
 * them – the last transaction may still be applied after its answer was lost. The lease and the leader's clean-up do it when
 * this cannot.
 */
async function forget(api: Api, id: string, name: string): Promise<void> {
  try {
    const key = recordKey('image', id);
    const record = (await api.store.get(key)).value;
    if (record !== null) {
      const owner = (await api.store.get(nameKey('image', name))).value;
      const removed = await api.store.txn({
        compare: [{ target: 'mod', key, revision: record.modRevision }],
        writes: [
          deleteRecord('image', id),
          ...(owner?.value === id ? [{ kind: 'delete', key: owner.key } as const] : []),
        ],
      });
      // It was sealed just now after all: it stays.
      if (!removed.succeeded) return;
    }
    await api.storage.deleteImage(id as ImageId);
    await api.store.txn({ compare: [absent(key)], writes: [{ kind: 'delete', key: importKey(id) }] });
  } catch (error) {
    api.logger.warn({ imageId: id, err: error }, 'a failed import is left to the clean-up');
  }
}

async function keepAlive(api: Api, lease: StoreLease, abort: AbortController): Promise<void> {
  while (!abort.signal.aborted) {
    await sleep(api.clock, RENEW_EVERY_MS, abort.signal).catch(() => {});
    if (abort.signal.aborted) return;
    await lease.renew().catch((error: unknown) => {
      if (api.clock.nowMs() < lease.validUntilMs()) return;
      abort.abort(
        new BusbarError({
          kind: 'unavailable',
          reason: 'IMPORT_LOST',
          message: 'the cluster store does not answer',
          cause: error,
          hint: 'import it again',
        }),
      );
    });
  }
}

async function* chunks(api: Api, iterator: AsyncIterator<ImportImageRequest>): AsyncIterable<Uint8Array> {
  for (;;) {
    const next = await withDeadline(api.clock, CHUNK_DEADLINE_MS, 'waiting for the next part of the file', () =>
      iterator.next(),
    );
    if (next.done) return;
    if (next.value.part?.$case !== 'chunk')
      throw invalid([{ field: 'header', problem: 'came twice', expected: 'only chunks after the header' }]);
    yield next.value.part.value;
  }
}

/** Progress as a paced stream: the newest figures, not every chunk. */
class Progress {
  readonly #api: Api;
  #phase = 'receive';
  #doneBytes = 0n;
  #ended = false;
  #wake = () => {};

  constructor(api: Api) {
    this.#api = api;
  }

  set(phase: string, doneBytes: bigint): void {
    this.#phase = phase;
    this.#doneBytes = doneBytes;
  }

  during<T>(work: Promise<T>): Promise<T> {
    const end = () => {
      this.#ended = true;
      this.#wake();
    };
    work.then(end, end);
    return work;
  }

  async *responses(): AsyncIterable<ImportImageResponse> {
    while (!this.#ended) {
      await new Promise<void>((resolve) => {
        const timer = this.#api.clock.timer(PROGRESS_EVERY_MS, resolve);
        this.#wake = () => {
          timer[Symbol.dispose]();
          resolve();
        };
      });
      if (!this.#ended) yield { phase: this.#phase, doneBytes: this.#doneBytes, image: undefined };
    }
  }
}
