// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import type { AuditRecord } from '@busbar/proto/gen/busbar/v1/audit';
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import { ImageFormat, ImportImageRequest } from '@busbar/proto/gen/busbar/v1/image';
import { CreateNetworkRequest } from '@busbar/proto/gen/busbar/v1/network';
import { CreateVmRequest, RunPolicy, UpdateVmRequest } from '@busbar/proto/gen/busbar/v1/vm';
import { CreateVolumeRequest } from '@busbar/proto/gen/busbar/v1/volume';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { decodeRecord, ROOT } from '../records/kinds.ts';
import type { ClusterStore, KeyValue } from '../store/cluster-store.ts';
import { testCaller } from '../testing/callers.ts';
import { Rig } from '../testing/rig.ts';

/** Goal: no change without its record in the same transaction, none with two, and no mutating call that is forgotten. */
const MIB = 1024n ** 2n;
let rig: Rig;
beforeEach(async () => {
  rig = new Rig();
  await rig.start();
});
afterEach(() => rig.stop());

const flags = { validateOnly: false, requestId: '', revision: 0n };
const network = (name: string, more: object = {}) =>
  CreateNetworkRequest.fromPartial({ name, spec: { kind: BridgeKind.LINUX, bridge: 'br-vm' }, ...more });
const volume = (name: string) => CreateVolumeRequest.fromPartial({ name, spec: { sizeBytes: MIB } });
const vm = (name: string, runPolicy: RunPolicy = RunPolicy.STOPPED) =>
  CreateVmRequest.fromPartial({ name, spec: { runPolicy, cpu: { vcpus: 1 }, memoryBytes: 64n * MIB } });

interface Kept {
  readonly kv: KeyValue;
  readonly record: AuditRecord;
}

async function records(): Promise<readonly Kept[]> {
  // Also what is written a moment later.
  await rig.clock.advance(5_000);
  const { value } = await rig.run(rig.api.store.list(`${ROOT}audit/`));
  return value
    .map((kv) => ({ kv, record: decodeRecord('audit', kv.value) }))
    .sort((a, b) => (a.kv.modRevision < b.kv.modRevision ? -1 : 1));
}

async function stream(service: string, method: string, requests: readonly unknown[]): Promise<void> {
  const bound = rig.services.find((each) => each.definition.name === service);
  const [rpc, handler] = [bound?.definition.methods[method], bound?.methods[method]];
  if (bound === undefined || rpc === undefined || handler === undefined) throw new Error(`no ${method}`);
  async function* sending() {
    yield* requests;
  }
  const run = rig.gate().stream(bound.definition.fullName, rpc, handler);
  const answers = run(sending(), testCaller(), new AbortController().signal);
  const drain = async () => {
    for await (const _ of answers);
  };
  await rig.run(drain(), 200_000);
}

const importing = (name: string, more: object = {}) => [
  ImportImageRequest.fromPartial({
    part: { $case: 'header', value: { name, spec: { format: ImageFormat.RAW, fileSizeBytes: 512n }, ...more } },
  }),
  ImportImageRequest.fromPartial({ part: { $case: 'chunk', value: Buffer.alloc(512, 1) } }),
];

interface Case {
  readonly before?: () => Promise<unknown>;
  readonly call: () => Promise<unknown>;
  readonly target: object;
}
const running = async () => {
  await rig.call('VmService', 'createVm', vm('relay', RunPolicy.RUNNING));
  await rig.finish();
};
const stopped = async () => {
  await rig.call('VmService', 'createVm', vm('relay'));
  await rig.finish();
};
const oneVolume = async () => {
  await rig.call('VolumeService', 'createVolume', volume('data'));
  await rig.finish();
};
const onVm =
  (method: string, more: object = {}) =>
  () =>
    rig.call('VmService', method, { vm: 'relay', force: false, timeoutMs: 0, ...flags, ...more });
const relay = { kind: 'vm', name: 'relay' };

const CASES: Readonly<Record<string, Case>> = {
  'HostService/UpdateHost': {
    call: () =>
      rig.call('HostService', 'updateHost', {
        host: 'host1',
        labels: {},
        spec: { unschedulable: true },
        updateMask: [],
        ...flags,
      }),
    target: { kind: 'host', id: 'host1' },
  },
  'VmService/CreateVm': { call: () => rig.call('VmService', 'createVm', vm('relay')), target: relay },
  'VmService/UpdateVm': {
    before: stopped,
    call: () => rig.call('VmService', 'updateVm', UpdateVmRequest.fromPartial({ vm: 'relay', updateMask: ['labels'] })),
    target: relay,
  },
  'VmService/DeleteVm': { before: stopped, call: onVm('deleteVm'), target: relay },
  'VmService/StartVm': { before: stopped, call: onVm('startVm'), target: relay },
  'VmService/StopVm': { before: running, call: onVm('stopVm'), target: relay },
  'VmService/RestartVm': { before: running, call: onVm('restartVm'), target: relay },
  'ImageService/ImportImage': {
    call: () => stream('ImageService', 'importImage', importing('debian')),
    target: { kind: 'image', name: 'debian' },
  },
  'ImageService/DeleteImage': {
    before: () => stream('ImageService', 'importImage', importing('debian')),
    call: () => rig.call('ImageService', 'deleteImage', { image: 'debian', ...flags }),
    target: { kind: 'image', name: 'debian' },
  },
  'VolumeService/CreateVolume': {
    call: () => rig.call('VolumeService', 'createVolume', volume('data')),
    target: { kind: 'volume', name: 'data' },
  },
  'VolumeService/ResizeVolume': {
    before: oneVolume,
    call: () => rig.call('VolumeService', 'resizeVolume', { volume: 'data', sizeBytes: 2n * MIB, ...flags }),
    target: { kind: 'volume', name: 'data' },
  },
  'VolumeService/DeleteVolume': {
    before: oneVolume,
    call: () => rig.call('VolumeService', 'deleteVolume', { volume: 'data', ...flags }),
    target: { kind: 'volume', name: 'data' },
  },
  'NetworkService/CreateNetwork': {
    call: () => rig.call('NetworkService', 'createNetwork', network('plant')),
    target: { kind: 'network', name: 'plant' },
  },
  'NetworkService/UpdateNetwork': {
    before: () => rig.call('NetworkService', 'createNetwork', network('plant')),
    call: () => rig.call('NetworkService', 'updateNetwork', { network: 'plant', labels: { a: '1' }, ...flags }),
    target: { kind: 'network', name: 'plant' },
  },
  'NetworkService/DeleteNetwork': {
    before: () => rig.call('NetworkService', 'createNetwork', network('plant')),
    call: () => rig.call('NetworkService', 'deleteNetwork', { network: 'plant', ...flags }),
    target: { kind: 'network', name: 'plant' },
  },
  'OperationService/CancelOperation': {
    before: () => rig.call('VolumeService', 'createVolume', volume('data')),
    call: () => {
      const [entry] = rig.view.tables.operation.sorted();
      return rig.call('OperationService', 'cancelOperation', { operation: entry?.id });
    },
    target: { kind: 'operation' },
  },
};

/** Changes nothing; see below. */
const ELSEWHERE = ['VmService/OpenConsole'];

describe('a change', () => {
  it('is tried here for every mutating RPC that there is', () => {
    const mutating = rig.services.flatMap(({ definition, methods }) =>
      Object.entries(definition.methods)
        .filter(([key]) => methods[key]?.access !== 'read')
        .map(([, rpc]) => `${definition.name}/${rpc.name}`),
    );
    expect([...Object.keys(CASES), ...ELSEWHERE].sort()).toEqual(mutating.sort());
  });

  it.each(Object.entries(CASES))('%s: has one record, written in its transaction', async (method, each) => {
    await each.before?.();
    const before = (await records()).length;
    const txns: string[][] = [];
    {
      using _ = spy('txn', (txn) => (transaction) => {
        txns.push(transaction.writes.map(({ key }) => key));
        return txn(transaction);
      });
      await each.call();
    }
    const made = (await records()).slice(before);
    expect(made).toHaveLength(1);
    expect(made[0]?.record).toMatchObject({
      method: `busbar.v1.${method}`,
      caller: 'client/test',
      role: 'admin',
      target: each.target,
      controller: 'host1',
      reason: '',
      changed: true,
    });
    const [together] = txns.filter((keys) => keys.some((key) => key === made[0]?.kv.key));
    expect(together?.filter((key) => !/\/(audit|event|request)\//.test(key)).length).toBeGreaterThan(0);
  });

  it('tells the revisions before and after', async () => {
    await rig.call('NetworkService', 'createNetwork', network('plant'));
    const first = rig.view.tables.network.find('plant')?.modRevision;
    await rig.call('NetworkService', 'updateNetwork', { network: 'plant', labels: { a: '1' }, ...flags });
    const second = rig.view.tables.network.find('plant')?.modRevision;
    const [update, create] = await list({});
    expect(create).toMatchObject({ revisionBefore: 0n, revisionAfter: first });
    expect(update).toMatchObject({ revisionBefore: first, revisionAfter: second });
  });

  it('that loses races has one record; a repeat of a request id has none', async () => {
    let races = 3;
    {
      using _ = spy('txn', (txn) => async (transaction) => {
        if (races-- > 0) return { succeeded: false, revision: rig.view.revision };
        return txn(transaction);
      });
      await rig.call('NetworkService', 'createNetwork', network('plant', { requestId: 'r1' }));
    }
    await rig.call('NetworkService', 'createNetwork', network('plant', { requestId: 'r1' }));
    await stream('ImageService', 'importImage', importing('debian', { requestId: 'r2' }));
    await stream('ImageService', 'importImage', importing('debian', { requestId: 'r2' }));
    expect((await records()).map(({ record }) => record.requestId)).toEqual(['r1', 'r2']);
  });

  it.each(['applied', 'applied later', 'not applied'])('whose outcome is unknown (%s) has one record', async (what) => {
    const lost = new BusbarError({ kind: 'timeout', reason: 'STORE_OUTCOME_UNKNOWN', message: 'lost' });
    let thaw = async (): Promise<unknown> => undefined;
    let first = true;
    {
      using _ = spy('txn', (txn) => async (transaction) => {
        if (!first) return txn(transaction);
        first = false;
        if (what === 'applied') await txn(transaction);
        thaw = () => txn(transaction);
        throw lost;
      });
      await expect(rig.call('NetworkService', 'createNetwork', network('plant'))).rejects.toBe(lost);
      await rig.clock.advance(5_000);
    }
    if (what === 'applied later') await rig.run(thaw());
    const [only, ...more] = await records();
    expect(more).toEqual([]);
    expect(only?.record).toMatchObject(
      what === 'not applied' ? { changed: false, reason: 'STORE_OUTCOME_UNKNOWN' } : { changed: true, reason: '' },
    );
  });
});

describe('a call that changes nothing', () => {
  it.each<[string, () => Promise<unknown>, object]>([
    [
      'a name that is taken',
      () => rig.call('NetworkService', 'createNetwork', network('plant')),
      { reason: 'NETWORK_NAME_TAKEN', message: expect.stringContaining('"plant"') },
    ],
    [
      'what does not exist',
      () => rig.call('VmService', 'startVm', { vm: 'nobody', ...flags }),
      { reason: 'VM_NOT_FOUND', target: { kind: 'vm', id: '', name: 'nobody' } },
    ],
    [
      'a stale revision',
      () => rig.call('NetworkService', 'updateNetwork', { network: 'plant', labels: {}, ...flags, revision: 1n }),
      { reason: 'NETWORK_REVISION_STALE', target: { kind: 'network', id: expect.stringMatching(/-/), name: 'plant' } },
    ],
    [
      'a wrong request',
      () =>
        rig.call('VmService', 'createVm', {
          ...vm('relay'),
          spec: { ...vm('relay').spec, memoryBytes: 7n, cloudInit: { userData: 'hunter2'.repeat(99_999) } },
          labels: { 'hunter2 ': 'hunter2' },
        }),
      { reason: 'INVALID_REQUEST', message: expect.stringContaining('spec.memoryBytes') },
    ],
    [
      'an import that is broken off',
      () => stream('ImageService', 'importImage', importing('debian').slice(0, 1)),
      { method: 'busbar.v1.ImageService/ImportImage', target: { kind: 'image', id: '', name: 'debian' } },
    ],
  ])('%s is recorded a moment later, without content', async (_what, call, expected) => {
    await rig.call('NetworkService', 'createNetwork', network('plant'));
    await expect(call()).rejects.toThrow();
    const all = await records();
    expect(all).toHaveLength(2);
    expect(all[1]?.record).toMatchObject({ changed: false, revisionBefore: 0n, caller: 'client/test', ...expected });
    expect(JSON.stringify(all.map(({ kv }) => kv.value))).not.toContain('hunter2');
  });

  it('a console that was opened is recorded while it is open, once', async () => {
    await running();
    const before = (await records()).length;
    let release = () => {};
    const open = new Promise<void>((resolve) => {
      release = resolve;
    });
    const { sessions } = rig.api;
    sessions.attach = async () =>
      (async function* () {
        yield Buffer.from('login:');
        await open;
      })();
    const ended = stream('VmService', 'openConsole', [{ vm: 'relay', input: Buffer.from('hunter2') }]);
    const made = async () => (await records()).slice(before);
    expect((await made()).map(({ record }) => record)).toMatchObject([
      { method: 'busbar.v1.VmService/OpenConsole', target: relay, changed: false, reason: '', caller: 'client/test' },
    ]);
    release();
    await ended;
    expect(await made()).toHaveLength(1);
    expect(JSON.stringify(await made(), (_, v: unknown) => (typeof v === 'bigint' ? '' : v))).not.toContain('hunter2');
  });

  it('a dry run is recorded as one', async () => {
    await rig.call('NetworkService', 'createNetwork', network('plant', { validateOnly: true, requestId: 'r1' }));
    const [only] = await records();
    expect(only?.record).toMatchObject({ validateOnly: true, changed: false, reason: '', requestId: 'r1' });
    // Reading leaves no trace.
    await expect(rig.call('VmService', 'getVm', { vm: 'nobody' })).rejects.toThrow();
    expect(await records()).toHaveLength(1);
  });
});

describe('the list', () => {
  it('is newest first, in pages, filtered', async () => {
    for (const name of ['a', 'b', 'c']) await rig.call('NetworkService', 'createNetwork', network(name));
    await rig.clock.advance(60_000);
    const since = rig.clock.wallTime();
    await rig.call('NetworkService', 'updateNetwork', { network: 'b', labels: { x: '1' }, ...flags });
    const names = async (filter: object) =>
      (await list(filter)).map(({ target, method }) => `${method.slice(-13)} ${target?.name}`);
    expect(await names({})).toEqual(['UpdateNetwork b', 'CreateNetwork c', 'CreateNetwork b', 'CreateNetwork a']);
    expect(await names({ target: 'b' })).toEqual(['UpdateNetwork b', 'CreateNetwork b']);
    expect(await names({ target: rig.view.tables.network.find('b')?.id ?? '' })).toHaveLength(2);
    expect(await names({ methodPrefix: 'Update' })).toEqual(['UpdateNetwork b']);
    expect(await names({ methodPrefix: 'busbar.v1.NetworkService/Create' })).toHaveLength(3);
    expect(await names({ since })).toEqual(['UpdateNetwork b']);
    expect(await names({ caller: 'client/other' })).toEqual([]);
    const first = await page({ pageSize: 3, pageToken: '', filter: undefined });
    // What comes between two pages shifts nothing.
    await rig.call('NetworkService', 'createNetwork', network('d'));
    const second = await page({ pageSize: 3, pageToken: first.nextPageToken, filter: undefined });
    expect(second.auditRecords.map(({ target }) => target?.name)).toEqual(['a']);
  });
});

type Listed = { readonly auditRecords: readonly AuditRecord[]; readonly nextPageToken: string };
const page = (request: object) => rig.call<Listed>('AuditService', 'listAuditRecords', request);
async function list(filter: object): Promise<readonly AuditRecord[]> {
  const all = { caller: '', target: '', methodPrefix: '', since: undefined, ...filter };
  return (await page({ pageSize: 0, pageToken: '', filter: all })).auditRecords;
}

function spy<K extends keyof ClusterStore>(key: K, make: (original: ClusterStore[K]) => ClusterStore[K]): Disposable {
  const store = rig.api.store as { -readonly [P in keyof ClusterStore]: ClusterStore[P] };
  const original = store[key].bind(store) as ClusterStore[K];
  store[key] = make(original);
  return {
    [Symbol.dispose]: () => {
      store[key] = original;
    },
  };
}
