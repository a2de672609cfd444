// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import { AuditFilter, type AuditRecord } from '@busbar/proto/gen/busbar/v1/audit';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { decodeRecord, ROOT } from '../records/kinds.ts';
import type { ClusterStore, KeyValue } from '../store/cluster-store.ts';
import { type FoundedRig, foundedRig } from '../testing/founded-rig.ts';
import type { Rig } from '../testing/rig.ts';
import { flags, importing, mutations, network, stream, vm } from './mutations.fixture.ts';

/** Goal: no change without its record in the same transaction, none with two, and no mutating call that is forgotten. */
const _MIB = 1024n ** 2n;
let rig: Rig;
const at = { founded: undefined as unknown as FoundedRig };
const CASES = mutations(at);
beforeEach(async () => {
  at.founded = await foundedRig();
  rig = at.founded.rig;
});
afterEach(() => rig.stop());

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
      caller: expect.stringMatching(each.caller ?? /^client\/test$/),
      role: each.role ?? 'admin',
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
    await stream(rig, 'ImageService', 'importImage', importing('debian', { requestId: 'r2' }));
    await stream(rig, 'ImageService', 'importImage', importing('debian', { requestId: 'r2' }));
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
      () => stream(rig, 'ImageService', 'importImage', importing('debian').slice(0, 1)),
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

  it('a console is recorded while it is open, and when it ends', async () => {
    await CASES['VmService/StopVm']?.before?.();
    const before = (await records()).length;
    let release = () => {};
    const closed = new Promise<void>((resolve) => {
      release = resolve;
    });
    const { sessions } = rig.api;
    sessions.attach = async () =>
      (async function* () {
        yield Buffer.from('login:');
        await closed;
      })();
    const ended = stream(rig, 'VmService', 'openConsole', [{ vm: 'relay', input: Buffer.from('hunter2') }], 7_200_000);
    const made = async () => (await records()).slice(before);
    expect((await made()).map(({ record }) => record)).toMatchObject([
      {
        method: 'busbar.v1.VmService/OpenConsole',
        target: { kind: 'vm', name: 'relay' },
        changed: false,
        reason: '',
        caller: 'client/test',
      },
    ]);
    const [begin] = await made();
    await rig.clock.advance(3_600_000);
    expect(begin?.record).toMatchObject({ streamBeginTime: expect.any(Date), streamEndTime: undefined });
    release();
    await ended;
    const [, end, ...more] = await made();
    expect(more).toEqual([]);
    expect(end?.record).toMatchObject({
      method: 'busbar.v1.VmService/OpenConsole',
      target: { kind: 'vm', name: 'relay' },
      changed: false,
      reason: '',
      certificateSerial: '4a',
      streamBeginId: begin?.record.id,
      streamBeginTime: begin?.record.streamBeginTime,
    });
    const open = (end?.record.streamEndTime?.getTime() ?? 0) - (end?.record.streamBeginTime?.getTime() ?? 0);
    expect(open).toBeGreaterThanOrEqual(3_600_000);
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
    expect(await names({ certificateSerial: '00:4A' })).toHaveLength(4);
    expect(await names({ certificateSerial: '4b' })).toEqual([]);
    expect(await names({ address: '10.0.0.1' })).toEqual([]);
    for (const wrong of [{ certificateSerial: 'xyz' }, { address: '10.0.0' }])
      await expect(list(wrong)).rejects.toMatchObject({ kind: 'invalid' });
    const first = await page({ pageSize: 3, pageToken: '', filter: undefined });
    // What comes between two pages shifts nothing.
    await rig.call('NetworkService', 'createNetwork', network('d'));
    expect(first.auditRecords.map(({ target }) => target?.name)).toEqual(['b', 'c', 'b']);
    const second = await page({ pageSize: 3, pageToken: first.nextPageToken, filter: undefined });
    expect(second.nextPageToken).toBe('');
    expect(second.auditRecords.map(({ target }) => target?.name)).toEqual(['a']);
  });
});

type Listed = { readonly auditRecords: readonly AuditRecord[]; readonly nextPageToken: string };
const page = (request: object) => rig.call<Listed>('AuditService', 'listAuditRecords', request);
async function list(filter: object): Promise<readonly AuditRecord[]> {
  const all = AuditFilter.fromPartial(filter);
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
