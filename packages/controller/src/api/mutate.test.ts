// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import { CreateNetworkRequest, type Network } from '@busbar/proto/gen/busbar/v1/network';
import { CreateVmRequest, RunPolicy, UpdateVmRequest, type Vm } from '@busbar/proto/gen/busbar/v1/vm';
import { CreateVolumeRequest } from '@busbar/proto/gen/busbar/v1/volume';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ROOT } from '../records/kinds.ts';
import type { ClusterStore } from '../store/cluster-store.ts';
import { Rig } from '../testing/rig.ts';

const MIB = 1024n ** 2n;
const flags = { validateOnly: false, requestId: '' };

let rig: Rig;
beforeEach(async () => {
  rig = new Rig();
  await rig.start();
});
afterEach(() => rig.stop());

type Made = { network: Network };
const network = (name: string, more: Parameters<typeof CreateNetworkRequest.fromPartial>[0] = {}) =>
  CreateNetworkRequest.fromPartial({ name, spec: { kind: BridgeKind.LINUX, bridge: 'br-vm' }, ...more });
const createNetwork = (request: CreateNetworkRequest) => rig.call<Made>('NetworkService', 'createNetwork', request);
const updateNetwork = (labels: Record<string, string>, more: object = {}) =>
  rig.call<Made>('NetworkService', 'updateNetwork', { network: 'plant', labels, revision: 0n, ...flags, ...more });
const vm = (more: object = {}) =>
  CreateVmRequest.fromPartial({
    name: 'relay',
    spec: { runPolicy: RunPolicy.STOPPED, cpu: { vcpus: 1 }, memoryBytes: 64n * MIB, ...more },
  });
const everything = async () => (await rig.run(rig.api.store.list(''))).value;
/** A dry run and a refusal leave an audit record, a moment later. */
const unaudited = async () => (await everything()).filter(({ key }) => !key.startsWith(`${ROOT}audit/`));

/** Replaces a method of the store until disposed. */
function bend<K extends keyof ClusterStore>(key: K, make: (original: ClusterStore[K]) => ClusterStore[K]): Disposable {
  const original = rig.api.store[key].bind(rig.api.store) as ClusterStore[K];
  (rig.api.store as { -readonly [P in keyof ClusterStore]: ClusterStore[P] })[key] = make(original);
  return {
    [Symbol.dispose]: () => {
      (rig.api.store as { -readonly [P in keyof ClusterStore]: ClusterStore[P] })[key] = original;
    },
  };
}

const lost = () => new BusbarError({ kind: 'timeout', reason: 'STORE_OUTCOME_UNKNOWN', message: 'lost' });

describe('request ids', () => {
  it('a repeat gets the first answer, also after the resource changed, and whatever order its maps have', async () => {
    const first = await createNetwork(network('plant', { requestId: 'r1', labels: { a: '1', b: '2' } }));
    await updateNetwork({ c: '3' });
    const again = await createNetwork(network('plant', { requestId: 'r1', labels: { b: '2', a: '1' } }));
    expect(again.network.meta?.id).toBe(first.network.meta?.id);
    expect(rig.view.tables.network.size).toBe(1);
  });

  it('another content is refused, and so is another method', async () => {
    await createNetwork(network('plant', { requestId: 'r1' }));
    const reused = { kind: 'already-exists', reason: 'REQUEST_ID_REUSED' };
    await expect(createNetwork(network('other', { requestId: 'r1' }))).rejects.toMatchObject(reused);
    await expect(updateNetwork({}, { requestId: 'r1' })).rejects.toMatchObject(reused);
    expect(rig.view.tables.network.size).toBe(1);
  });

  it('many repeats at once make one resource', async () => {
    const all = await Promise.all(
      Array.from({ length: 10 }, () => createNetwork(network('plant', { requestId: 'r1' }))),
    );
    expect(new Set(all.map((each) => each.network.meta?.id)).size).toBe(1);
    expect(rig.view.tables.network.size).toBe(1);
  });

  it.each(['applied', 'not applied'])(
    'an answer that was lost (%s) is a timeout, and a repeat makes exactly one',
    async (what) => {
      {
        using _ = bend('txn', (txn) => async (transaction) => {
          if (what === 'applied') await txn(transaction);
          throw lost();
        });
        await expect(createNetwork(network('plant', { requestId: 'r1' }))).rejects.toMatchObject({ kind: 'timeout' });
      }
      await createNetwork(network('plant', { requestId: 'r1' }));
      expect(rig.view.tables.network.size).toBe(1);
    },
  );

  it('outlive a lease that the store lost', async () => {
    await createNetwork(network('plant', { requestId: 'r1' }));
    rig.truth.revokeLease(await rig.api.requestLeases.current());
    await createNetwork(network('other', { requestId: 'r2' }));
    expect(rig.view.tables.network.size).toBe(2);
  });

  it('that cannot be noted change nothing and say so', async () => {
    using _ = bend('grantLease', () => async () => Promise.reject(lost()));
    await expect(createNetwork(network('plant', { requestId: 'r1' }))).rejects.toMatchObject({
      kind: 'unavailable',
      message: expect.stringContaining('nothing was changed'),
    });
    expect(rig.view.tables.network.size).toBe(0);
  });

  it('are forgotten after their time', async () => {
    await createNetwork(network('plant', { requestId: 'r1' }));
    expect((await everything()).some((kv) => kv.key.startsWith(`${ROOT}request/`))).toBe(true);
    await rig.clock.advance(2 * 3_600_000);
    expect((await everything()).some((kv) => kv.key.startsWith(`${ROOT}request/`))).toBe(false);
  });
});

describe('mutate', () => {
  it('plans again when it loses a race, and gives up after some', async () => {
    await createNetwork(network('plant'));
    let races = 3;
    {
      using _ = bend('txn', (txn) => async (transaction) => {
        if (races-- > 0) return { succeeded: false, revision: rig.view.revision };
        return txn(transaction);
      });
      await updateNetwork({ a: '1' });
    }
    expect(rig.view.tables.network.find('plant')?.record.meta?.labels).toEqual({ a: '1' });
    using _ = bend('txn', () => async () => ({ succeeded: false, revision: rig.view.revision }));
    await expect(updateNetwork({ a: '2' })).rejects.toMatchObject({ kind: 'conflict', reason: 'TOO_MANY_RACES' });
  });

  it('never tells a write that was done as one that was not', async () => {
    const waitFor = rig.view.waitFor.bind(rig.view);
    rig.view.waitFor = async (revision) => {
      if (revision > rig.view.revision)
        throw new BusbarError({ kind: 'unavailable', reason: 'VIEW_BEHIND', message: 'behind' });
    };
    await expect(createNetwork(network('plant'))).rejects.toMatchObject({
      kind: 'timeout',
      reason: 'DONE_BUT_NOT_SEEN',
      message: expect.stringContaining('was carried out'),
    });
    rig.view.waitFor = waitFor;
    await rig.clock.advance(100);
    expect(rig.view.tables.network.size).toBe(1);
  });

  it('refuses a stale revision and names the present one', async () => {
    const { network: made } = await createNetwork(network('plant'));
    const stale = made.meta?.revision ?? 0n;
    const { network: newer } = await updateNetwork({ a: '1' }, { revision: stale });
    const now = newer.meta?.revision ?? 0n;
    expect(now).toBeGreaterThan(stale);
    await expect(updateNetwork({ a: '2' }, { revision: stale })).rejects.toMatchObject({
      kind: 'conflict',
      reason: 'NETWORK_REVISION_STALE',
      message: `network "plant" is at revision ${now}, the request was made for ${stale}`,
    });
  });

  it('with validate_only writes nothing but an audit record, and refuses all the same', async () => {
    await createNetwork(network('plant'));
    await rig.call('VmService', 'createVm', vm());
    await rig.call(
      'VolumeService',
      'createVolume',
      CreateVolumeRequest.fromPartial({ name: 'v', spec: { sizeBytes: MIB } }),
    );
    await rig.finish();
    const before = await unaudited();
    const dry = { validateOnly: true, requestId: 'dry' };
    const calls: [string, string, object][] = [
      ['NetworkService', 'createNetwork', network('n2', dry)],
      ['NetworkService', 'updateNetwork', { network: 'plant', labels: { x: '1' }, revision: 0n, ...dry }],
      ['NetworkService', 'deleteNetwork', { network: 'plant', revision: 0n, ...dry }],
      ['VmService', 'createVm', { ...vm(), name: 'second', ...dry }],
      ['VmService', 'updateVm', UpdateVmRequest.fromPartial({ vm: 'relay', updateMask: ['labels'], ...dry })],
      ['VmService', 'startVm', { vm: 'relay', ...dry }],
      ['VmService', 'stopVm', { vm: 'relay', force: false, timeoutMs: 0, ...dry }],
      ['VmService', 'deleteVm', { vm: 'relay', force: false, revision: 0n, ...dry }],
      [
        'VolumeService',
        'createVolume',
        CreateVolumeRequest.fromPartial({ name: 'v2', spec: { sizeBytes: MIB }, ...dry }),
      ],
      ['VolumeService', 'resizeVolume', { volume: 'v', sizeBytes: 2n * MIB, revision: 0n, ...dry }],
      ['VolumeService', 'deleteVolume', { volume: 'v', revision: 0n, ...dry }],
      [
        'HostService',
        'updateHost',
        { host: 'host1', labels: {}, spec: undefined, updateMask: [], revision: 0n, ...dry },
      ],
    ];
    for (const [service, method, request] of calls) await rig.call(service, method, request);
    expect(await unaudited()).toEqual(before);
    await expect(createNetwork(network('plant', dry))).rejects.toMatchObject({ reason: 'NETWORK_NAME_TAKEN' });
    expect(await unaudited()).toEqual(before);
  });
});

describe('references and updates', () => {
  const update = (request: Parameters<typeof UpdateVmRequest.fromPartial>[0]) =>
    rig.call<{ vm: Vm }>('VmService', 'updateVm', UpdateVmRequest.fromPartial({ vm: 'relay', ...request }));

  it('two NICs in one network are fine, one volume for two disks is not', async () => {
    await createNetwork(network('plant'));
    const nics = ['a', 'b'].map((name) => ({ name, network: 'plant' }));
    await rig.call('VmService', 'createVm', vm({ nics }));
    await rig.call(
      'VolumeService',
      'createVolume',
      CreateVolumeRequest.fromPartial({ name: 'v', spec: { sizeBytes: MIB } }),
    );
    await rig.finish();
    const disks = ['a', 'b'].map((name) => ({ name, volume: 'v' }));
    await expect(rig.call('VmService', 'createVm', { ...vm({ disks }), name: 'other' })).rejects.toMatchObject({
      kind: 'invalid',
      fields: [
        {
          field: 'spec.disks[1].volume',
          problem: 'is "v", which is disk "a" already',
          expected: 'each volume used once',
        },
      ],
    });
  });

  it('a network and a volume in use name their user', async () => {
    await createNetwork(network('plant'));
    await rig.call(
      'VolumeService',
      'createVolume',
      CreateVolumeRequest.fromPartial({ name: 'v', spec: { sizeBytes: MIB } }),
    );
    await rig.finish();
    const spec = { nics: [{ name: 'a', network: 'plant' }], disks: [{ name: 'a', volume: 'v' }] };
    await rig.call('VmService', 'createVm', vm(spec));
    await rig.finish();
    const gone = (service: string, kind: string, id: string) =>
      rig.call(`${service}Service`, `delete${service}`, { [kind]: id, revision: 0n, ...flags });
    await expect(gone('Network', 'network', 'plant')).rejects.toMatchObject({
      reason: 'NETWORK_IN_USE',
      message: 'network "plant" is used by relay',
    });
    await expect(gone('Volume', 'volume', 'v')).rejects.toMatchObject({
      reason: 'VOLUME_IN_USE',
      message: 'volume "v" is a disk of VM "relay"',
    });
  });

  it('of a network deleted while a VM is plugged into it, one wins', async () => {
    await createNetwork(network('plant'));
    const outcomes = await Promise.allSettled([
      rig.call('NetworkService', 'deleteNetwork', { network: 'plant', revision: 0n, ...flags }),
      rig.call('VmService', 'createVm', vm({ nics: [{ name: 'a', network: 'plant' }] })),
    ]);
    expect(outcomes.filter((outcome) => outcome.status === 'fulfilled').length).toBe(1);
    await rig.finish();
    expect(rig.view.tables.network.size).toBe(rig.view.tables.vm.size);
  });

  it('masks: snake and camel, one field alone, unknown ones refused with the choice', async () => {
    await rig.call('VmService', 'createVm', vm());
    await rig.finish();
    for (const [path, bytes] of [
      ['spec.memory_bytes', 128n],
      ['spec.memoryBytes', 256n],
    ] as const) {
      const { vm: changed } = await update({ updateMask: [path], spec: { memoryBytes: bytes * MIB } });
      expect([changed.spec?.memoryBytes, changed.spec?.cpu?.vcpus]).toEqual([bytes * MIB, 1]);
    }
    const { vm: labelled } = await update({ updateMask: ['labels'], labels: { a: '1' } });
    expect([labelled.meta?.labels, labelled.spec?.memoryBytes]).toEqual([{ a: '1' }, 256n * MIB]);
    for (const path of ['memoryBytes', 'spec.nope', 'spec.toString', '', 'x'.repeat(1e6)]) {
      await expect(update({ updateMask: [path], spec: {} })).rejects.toMatchObject({
        kind: 'invalid',
        fields: [{ field: 'updateMask[0]', expected: expect.stringContaining('spec.memoryBytes') }],
      });
    }
    await expect(update({ updateMask: ['spec.cpu'], spec: { cpu: { vcpus: 0 } } })).rejects.toMatchObject({
      fields: [{ field: 'spec.cpu.vcpus', problem: 'is 0', expected: '1 to 512' }],
    });
  });

  it('a stop by update is gentle, however the last stop was done', async () => {
    await rig.call('VmService', 'createVm', vm({ runPolicy: RunPolicy.RUNNING }));
    await rig.finish();
    await rig.call('VmService', 'stopVm', { vm: 'relay', force: true, timeoutMs: 5, ...flags });
    await rig.finish();
    for (const runPolicy of [RunPolicy.RUNNING, RunPolicy.STOPPED])
      await update({ updateMask: ['spec.runPolicy'], spec: { runPolicy } });
    expect(rig.view.tables.vm.find('relay')?.record).toMatchObject({ stopByForce: false, stopTimeoutMs: 0 });
  });
});
