// SPDX-License-Identifier: Apache-2.0
import { createHash } from 'node:crypto';
import { BusbarError } from '@busbar/core/errors';
import type { ImageId } from '@busbar/core/ids';
import { silentLogger } from '@busbar/core/log';
import {
  ImageFormat,
  ImagePhase,
  ImportImageRequest,
  type ImportImageResponse,
} from '@busbar/proto/gen/busbar/v1/image';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CleanUp } from '../leader/clean-up.ts';
import type { Leader } from '../leader/leader.ts';
import { importKey, ROOT, recordKey } from '../records/kinds.ts';
import { testCaller } from '../testing/callers.ts';
import { Rig } from '../testing/rig.ts';

const SIZE = 1024 ** 2;
const BYTES = Buffer.alloc(SIZE, 7);
const SHA = createHash('sha256').update(BYTES).digest('hex');

let rig: Rig;
beforeEach(async () => {
  rig = new Rig();
  await rig.start();
});
afterEach(() => rig.stop());

const header = (more: object = {}) =>
  ImportImageRequest.fromPartial({
    part: {
      $case: 'header',
      value: { name: 'debian', spec: { format: ImageFormat.RAW, fileSizeBytes: BigInt(SIZE), sha256: '' }, ...more },
    },
  });
const spec = (more: object) => ({
  spec: { format: ImageFormat.RAW, fileSizeBytes: BigInt(SIZE), sha256: '', ...more },
});
const chunk = (value: Buffer) => ImportImageRequest.fromPartial({ part: { $case: 'chunk', value } });
const parts = [chunk(BYTES.subarray(0, 1000)), chunk(BYTES.subarray(1000))];

type Message = ImportImageRequest | Promise<unknown>;
async function* sending(messages: readonly Message[]): AsyncIterable<ImportImageRequest> {
  for (const message of messages) {
    if (message instanceof Promise) await message;
    else yield message;
  }
}

function open(messages: readonly Message[], signal = new AbortController().signal): AsyncIterator<ImportImageResponse> {
  const bound = rig.services.find((each) => each.definition.name === 'ImageService');
  const rpc = bound?.definition.methods.importImage;
  const method = bound?.methods.importImage;
  if (bound === undefined || rpc === undefined || method === undefined) throw new Error('no ImportImage');
  const run = rig.gate().stream(bound.definition.fullName, rpc, method);
  const stream = run(sending(messages), testCaller(), signal);
  return stream[Symbol.asyncIterator]() as AsyncIterator<ImportImageResponse>;
}

async function drain(stream: AsyncIterator<ImportImageResponse>): Promise<ImportImageResponse | undefined> {
  let last: ImportImageResponse | undefined;
  for (;;) {
    const next = await stream.next();
    if (next.done) return last;
    last = next.value;
  }
}
const send = (messages: readonly Message[], signal?: AbortSignal) => rig.run(drain(open(messages, signal)), 200_000);
const whole = (more: object = {}) => send([header(more), ...parts]);

async function nothingLeft(): Promise<void> {
  await rig.clock.advance(20_000);
  const keys = (await rig.run(rig.api.store.list(ROOT))).value.map((kv) => kv.key);
  expect(keys.filter((key) => /image|import/.test(key))).toEqual([]);
  expect([...rig.pool.images.keys()]).toEqual([]);
}

const forever = () => new Promise<never>(() => {});
const lost = () => new BusbarError({ kind: 'timeout', reason: 'STORE_OUTCOME_UNKNOWN', message: 'lost' });

describe('an import', () => {
  it('makes an image, with its checksum, and nothing else', async () => {
    const last = await whole(spec({ sha256: SHA }));
    expect(last?.image).toMatchObject({
      meta: { name: 'debian' },
      status: { phase: ImagePhase.READY, virtualSizeBytes: BigInt(SIZE), sha256: SHA },
    });
    await rig.clock.advance(60_000);
    const keys = (await rig.run(rig.api.store.list(ROOT))).value.map((kv) => kv.key);
    const id = last?.image?.meta?.id ?? '';
    expect(keys.filter((key) => /image|import/.test(key))).toEqual([
      recordKey('image', id),
      `${ROOT}name/image/debian`,
    ]);
    expect([...rig.pool.images.keys()]).toEqual([id]);
  });

  it.each<[string, () => readonly Message[], object]>([
    ['no message', () => [], { kind: 'invalid', fields: [{ field: 'header' }] }],
    ['a chunk before the header', () => [...parts, header()], { kind: 'invalid', fields: [{ field: 'header' }] }],
    ['a bad name', () => [header({ name: 'a b' })], { kind: 'invalid', fields: [{ field: 'name' }] }],
    ['no spec', () => [header({ spec: undefined })], { kind: 'invalid', fields: [{ field: 'spec' }] }],
    [
      'no size',
      () => [header(spec({ fileSizeBytes: 0n }))],
      { kind: 'invalid', fields: [{ field: 'spec.fileSizeBytes' }] },
    ],
    ['a bad checksum', () => [header(spec({ sha256: 'XY' }))], { kind: 'invalid', fields: [{ field: 'spec.sha256' }] }],
    ['more than the pool holds', () => [header(spec({ fileSizeBytes: 1024n ** 4n + 512n }))], { reason: 'POOL_FULL' }],
    ['another checksum', () => [header(spec({ sha256: '0'.repeat(64) })), ...parts], { reason: 'IMAGE_CHECKSUM' }],
    ['a truncated stream', () => [header(), parts[0] as ImportImageRequest], { reason: 'IMAGE_INVALID' }],
    ['a stream that is too long', () => [header(), ...parts, ...parts], { reason: 'IMAGE_INVALID' }],
    ['the header twice', () => [header(), parts[0] as ImportImageRequest, header()], {}],
    ['no qcow2', () => [header(spec({ format: ImageFormat.QCOW2 })), ...parts], { reason: 'IMAGE_INVALID' }],
    [
      'a chunk of more than 1 MiB',
      () => [header(spec({ fileSizeBytes: 4n * BigInt(SIZE) })), chunk(Buffer.alloc(SIZE + 1))],
      {},
    ],
    ['a silent sender', () => [header(), forever()], {}],
    ['a sender that says nothing at all', () => [forever()], { kind: 'timeout' }],
    ['a sender that breaks', () => [header(), Promise.reject(new Error('reset'))], {}],
  ])('with %s leaves nothing, and the name is free again', async (_name, messages, refusal) => {
    const error: unknown = await send(messages()).then(
      () => null,
      (thrown: unknown) => thrown,
    );
    expect(error).not.toBeNull();
    const { fields, ...rest } = refusal as { fields?: { field: string }[] };
    expect(error).toMatchObject(rest);
    if (fields !== undefined) expect((error as BusbarError).fields[0]?.field).toBe(fields[0]?.field);
    await nothingLeft();
    expect((await whole())?.image?.status?.phase).toBe(ImagePhase.READY);
  });

  it.each(['hangs up', 'stops listening'])('whose caller %s midway leaves nothing', async (how) => {
    const hangUp = new AbortController();
    const stream = open([header(), parts[0] as ImportImageRequest, forever()], hangUp.signal);
    const first = await rig.run(stream.next());
    expect(first.value).toMatchObject({ phase: 'receive' });
    expect(rig.view.tables.image.find('debian')?.record.status?.phase).toBe(ImagePhase.IMPORTING);
    if (how === 'hangs up') {
      hangUp.abort();
      await expect(rig.run(drain(stream))).rejects.toMatchObject({ kind: 'cancelled' });
    } else await rig.run(Promise.resolve(stream.return?.()));
    await nothingLeft();
  });

  it('of a name that exists or is being imported is refused', async () => {
    const slow = open([
      header(),
      parts[0] as ImportImageRequest,
      new Promise((r) => rig.clock.timer(5_000, () => r(0))),
      parts[1] as ImportImageRequest,
    ]);
    await rig.run(slow.next());
    await expect(whole()).rejects.toMatchObject({ kind: 'already-exists', reason: 'IMAGE_NAME_TAKEN' });
    await rig.run(drain(slow));
    await expect(whole()).rejects.toMatchObject({ reason: 'IMAGE_NAME_TAKEN' });
    expect(rig.view.tables.image.size).toBe(1);
  });

  it('validated only checks name and room and writes nothing', async () => {
    expect(await send([header({ validateOnly: true })])).toMatchObject({ image: undefined });
    await expect(
      send([header({ validateOnly: true, ...spec({ fileSizeBytes: 1024n ** 4n + 512n }) })]),
    ).rejects.toMatchObject({ reason: 'POOL_FULL' });
    await nothingLeft();
  });

  it('repeated with its request id gives the same image; another header is refused', async () => {
    const first = await whole({ requestId: 'r1', labels: { a: '1', b: '2' } });
    const again = await send([header({ requestId: 'r1', labels: { b: '2', a: '1' } })]);
    expect(again?.image?.meta?.id).toBe(first?.image?.meta?.id);
    await expect(whole({ requestId: 'r1', name: 'other' })).rejects.toMatchObject({ reason: 'REQUEST_ID_REUSED' });
  });

  it('that lost its lease becomes visible to nobody', async () => {
    const slow = open([
      header(),
      parts[0] as ImportImageRequest,
      new Promise((r) => rig.clock.timer(3_000, () => r(0))),
      parts[1] as ImportImageRequest,
    ]);
    await rig.run(slow.next());
    for (let lease = 1; lease < 4; lease++) rig.truth.revokeLease(String(lease) as never);
    await expect(rig.run(drain(slow))).rejects.toMatchObject({ kind: 'unavailable', reason: 'IMPORT_LOST' });
    await nothingLeft();
  });

  it('lives on beyond its lease’s time while bytes arrive', async () => {
    const pauses = Array.from(
      { length: 6 },
      (_, i) => new Promise((r) => rig.clock.timer(9_000 * (i + 1), () => r(0))),
    );
    await send([header(), parts[0] as ImportImageRequest, ...pauses, parts[1] as ImportImageRequest]);
    expect(rig.view.tables.image.find('debian')?.record.status?.phase).toBe(ImagePhase.READY);
  });

  it.each([
    ['and was applied', true, true],
    ['and was not applied', false, true],
    ['and was applied, and the store stays away', true, false],
    ['and was not applied, and the store stays away', false, false],
  ])('whose last answer is lost %s: the record and the bytes agree', async (_name, applied, back) => {
    const { store } = rig.api;
    const [txn, get] = [store.txn.bind(store), store.get.bind(store)];
    let away = false;
    const bent = store as { txn: typeof txn; get: typeof get };
    bent.txn = async (transaction) => {
      if (away) throw lost();
      const seals = transaction.writes.some((write) => write.kind === 'delete' && write.key.startsWith(importKey('')));
      if (!seals || transaction.writes.length === 1) return txn(transaction);
      if (applied) await txn(transaction);
      away = !back;
      throw lost();
    };
    bent.get = async (key) => {
      if (away) throw new BusbarError({ kind: 'unavailable', reason: 'STORE_UNAVAILABLE', message: 'away' });
      return get(key);
    };
    const outcome = await whole().then(
      (last) => last?.image?.status?.phase ?? null,
      (error: BusbarError) => error.kind,
    );
    expect(outcome).toBe(applied && back ? ImagePhase.READY : 'timeout');
    [bent.txn, bent.get] = [txn, get];
    away = false;
    await rig.clock.advance(20_000);
    const leader: Leader = {
      term: 1n,
      signal: new AbortController().signal,
      txn: (transaction) => store.txn(transaction),
    };
    const { view, api, clock } = rig;
    const deps = {
      store,
      view,
      sessions: api.sessions,
      storage: api.storage,
      audit: api.audit,
      policy: api.policy,
      clock,
      logger: silentLogger,
    };
    const cleanUp = new CleanUp(deps, leader);
    for (let round = 0; round < 2; round++) await rig.run(cleanUp.round());
    const records = [...view.tables.image.ids()];
    expect(records.length).toBe(applied ? 1 : 0);
    expect([...rig.pool.images.keys()]).toEqual(records);
    expect((await rig.run(store.list(importKey('')))).value).toEqual([]);
  });
});

it('with a request id survives the loss of the lease that request ids live on', async () => {
  const { requestLeases } = rig.api;
  const gone = await rig.run(requestLeases.current());
  rig.truth.revokeLease(gone);
  const last = await whole({ requestId: '11111111-1111-4111-8111-111111111111' });
  expect(last?.image?.status?.phase).toBe(ImagePhase.READY);
  expect(await rig.run(requestLeases.current())).not.toBe(gone);
});

describe('the leader’s clean-up', () => {
  const storedImage = (id: string) =>
    rig.run(
      rig.api.storage.importImage({
        imageId: id as ImageId,
        format: 'raw',
        sizeBytes: BigInt(SIZE),
        sha256: null,
        source: (async function* () {
          yield BYTES;
        })(),
        signal: new AbortController().signal,
      }),
    );

  it('removes noted imports without a record in the second round, and nothing that nobody noted', async () => {
    const { store, storage } = rig.api;
    const told: object[] = [];
    const logger = { ...silentLogger, warn: (fields: object) => void told.push(fields) };
    const leader: Leader = {
      term: 1n,
      signal: new AbortController().signal,
      txn: (transaction) => store.txn(transaction),
    };
    const cleanUp = new CleanUp({ audit: rig.room, store, view: rig.view, storage, clock: rig.clock, logger }, leader);
    const [noted, unknown, unreadable] = [
      '11111111-1111-4111-8111-111111111111',
      '22222222-2222-4222-8222-222222222222',
      '33333333-3333-4333-8333-333333333333',
    ];
    for (const id of [noted, unknown, unreadable]) await storedImage(id);
    await rig.run(storage.createVolume({ volumeId: unknown as never, sizeBytes: BigInt(SIZE) }));
    await rig.run(
      store.txn({
        compare: [],
        writes: [
          { kind: 'put', key: importKey(noted), value: 'x' },
          { kind: 'put', key: importKey(unreadable), value: 'x' },
          { kind: 'put', key: recordKey('image', unreadable), value: 'of a newer version' },
        ],
      }),
    );
    await rig.run(cleanUp.round());
    expect(rig.pool.images.size).toBe(3);
    for (let round = 0; round < 3; round++) await rig.run(cleanUp.round());
    expect([...rig.pool.images.keys()].sort()).toEqual([unknown, unreadable]);
    expect(rig.pool.volumes.size).toBe(1);
    expect(told).toEqual([{ kind: 'image', id: unknown }, { kind: 'volume', id: unknown }, { imageId: noted }]);
    expect((await rig.run(store.list(importKey('')))).value.map((kv) => kv.key)).toEqual([importKey(unreadable)]);
  });

  it('goes on where one import does not let go of its bytes', async () => {
    const { store, storage, sessions, policy } = rig.api;
    const leader: Leader = {
      term: 1n,
      signal: new AbortController().signal,
      txn: (transaction) => store.txn(transaction),
    };
    const [stuck, other] = ['11111111-1111-4111-8111-111111111111', '22222222-2222-4222-8222-222222222222'];
    const stubborn = Object.assign(Object.create(storage) as typeof storage, {
      deleteImage: async (id: ImageId) => {
        if (id === stuck) throw new BusbarError({ kind: 'unavailable', reason: 'TEST_BUSY', message: 'has watchers' });
        return storage.deleteImage(id);
      },
    });
    const deps = {
      audit: rig.room,
      store,
      view: rig.view,
      sessions,
      storage: stubborn,
      policy,
      clock: rig.clock,
      logger: silentLogger,
    };
    const cleanUp = new CleanUp(deps, leader);
    for (const id of [stuck, other]) {
      await storedImage(id);
      await rig.run(store.txn({ compare: [], writes: [{ kind: 'put', key: importKey(id), value: 'x' }] }));
    }
    for (let round = 0; round < 2; round++) await rig.run(cleanUp.round());
    expect([...rig.pool.images.keys()]).toEqual([stuck]);
    expect((await rig.run(store.list(importKey('')))).value.map((kv) => kv.key)).toEqual([importKey(stuck)]);
  });

  it('forgets operations that ended a day ago, and the oldest beyond a thousand', async () => {
    const { store, storage, sessions, policy } = rig.api;
    const leader: Leader = {
      term: 1n,
      signal: new AbortController().signal,
      txn: (transaction) => store.txn(transaction),
    };
    const deps = {
      audit: rig.room,
      store,
      view: rig.view,
      sessions,
      storage,
      policy,
      clock: rig.clock,
      logger: silentLogger,
    };
    const ended = (id: string, minutesAgo: number, state = 'OPERATION_STATE_SUCCEEDED') => {
      const endTime = new Date(rig.clock.wallTime().getTime() - minutesAgo * 60_000).toISOString();
      return {
        kind: 'put' as const,
        key: recordKey('operation', id),
        value: JSON.stringify({ operation: { id, state, endTime } }),
      };
    };
    for (let i = 0; i < 1_100; i += 100)
      await rig.run(
        store.txn({ compare: [], writes: Array.from({ length: 100 }, (_, j) => ended(`op-${i + j}`, (i + j) / 10)) }),
      );
    await rig.run(
      store.txn({ compare: [], writes: [ended('old', 24 * 60 + 1), ended('live', 9_999, 'OPERATION_STATE_RUNNING')] }),
    );
    await rig.clock.advance(100);
    await rig.run(new CleanUp(deps, leader).round());
    await rig.clock.advance(100);
    const left = rig.view.tables.operation;
    expect(left.size).toBe(1_001);
    expect([
      left.get('old'),
      left.get('op-1050'),
      left.get('live') === undefined,
      left.get('op-999') === undefined,
    ]).toEqual([undefined, undefined, false, false]);
  });
});
