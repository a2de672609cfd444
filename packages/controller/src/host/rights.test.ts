// SPDX-License-Identifier: Apache-2.0
import { HostStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import type { HostInventory } from '@busbar/proto/gen/busbar/v1/host';
import { BridgeKind, UpdateHostRequest } from '@busbar/proto/gen/busbar/v1/host';
import { CreateNetworkRequest } from '@busbar/proto/gen/busbar/v1/network';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { encodeRecord, recordKey } from '../records/kinds.ts';
import { testCaller } from '../testing/callers.ts';
import { Rig } from '../testing/rig.ts';

/** Goal: an operator changes what runs, and gets no hold of the hosts that it runs on. */
let rig: Rig;
beforeEach(async () => {
  rig = new Rig();
  await rig.start();
});
afterEach(() => rig.stop());

const OPERATOR = testCaller('operator', 'client/olga');
const update = (request: Parameters<typeof UpdateHostRequest.fromPartial>[0], caller = OPERATOR) =>
  rig.call(
    'HostService',
    'updateHost',
    UpdateHostRequest.fromPartial({ host: 'host1', updateMask: ['spec'], ...request }),
    caller,
  );
const spec = () => rig.view.tables.host.get('host1')?.record.spec;
const onBridge = (name: string, bridge: string, caller = OPERATOR) =>
  rig.call(
    'NetworkService',
    'createNetwork',
    CreateNetworkRequest.fromPartial({ name, spec: { kind: BridgeKind.LINUX, bridge } }),
    caller,
  );

describe('an operator', () => {
  it.each<[string, object]>([
    ['deviceClasses', { deviceClasses: [{ name: 'disk', devices: ['0000:00:1f.2'] }] }],
    ['reservedCpus', { reservedCpus: [] }],
    ['reservedMemoryBytes', { reservedMemoryBytes: 0n }],
    ['failureDomains', { failureDomains: { rack: 'b' } }],
  ])('does not change %s of a host, and is told who may', async (field, change) => {
    const kept = {
      reservedCpus: [0],
      reservedMemoryBytes: 1024n ** 3n,
      failureDomains: { rack: 'a' },
      deviceClasses: [{ name: 'gps', devices: ['0000:3b:00.1'] }],
    };
    await update({ spec: kept }, testCaller());
    const before = spec();
    for (const more of [{}, { updateMask: [`spec.${field}`] }, { updateMask: [] }, { validateOnly: true }])
      await expect(update({ spec: { ...kept, ...change }, ...more })).rejects.toMatchObject({
        kind: 'forbidden',
        reason: 'ROLE_TOO_LOW',
        message: `"client/olga" has role operator, UpdateHost needs admin for spec.${field}`,
      });
    expect(spec()).toEqual(before);
  });

  it('changes labels, and keeps new VMs away, with the rest as it is', async () => {
    const reserved = { reservedCpus: [0, 1], deviceClasses: [{ name: 'gps', devices: ['0000:3b:00.1'] }] };
    await update({ spec: reserved }, testCaller());
    await update({ spec: { unschedulable: true }, updateMask: ['spec.unschedulable'] });
    await update({ spec: { unschedulable: true, ...reserved }, labels: { zone: 'a' }, updateMask: [] });
    expect(spec()).toMatchObject({ unschedulable: true, ...reserved });
    expect(rig.view.tables.host.get('host1')?.record.meta?.labels).toEqual({ zone: 'a' });
  });

  it.each([
    ['br0', 'br0', '10.0.0.1/24'],
    ['br0', 'br0.20', '10.0.0.1/24'],
    ['br-storage', 'br-storage', '10.0.1.1/24'],
  ])('puts no guest on the hosts’ own segment: %s, where %s has %s', async (bridge, name, address) => {
    await hostHas([{ name, addresses: ['fe80::1/64', address] }]);
    await expect(onBridge('plant', bridge)).rejects.toMatchObject({
      reason: 'ROLE_TOO_LOW',
      message: expect.stringContaining(`admin for bridge "${bridge}", over which host1 is reached`),
    });
    await onBridge('other', 'br-vm');
    await onBridge('plant', bridge, testCaller());
  });
});

async function hostHas(interfaces: readonly { readonly name: string; readonly addresses: string[] }[]): Promise<void> {
  const entry = rig.view.tables['host-status'].get('host1');
  const whole = interfaces.map((each) => ({
    macAddress: '',
    linkUp: true,
    speedMbps: 0,
    mtu: 1500,
    pciAddress: '',
    ...each,
  }));
  const inventory = { ...(entry?.record.inventory as HostInventory), interfaces: whole };
  const value = { ...entry?.record, inventory };
  const text = encodeRecord('host-status', HostStatusRecord.fromPartial(value as never));
  const { revision } = await rig.run(
    rig.api.store.txn({ compare: [], writes: [{ kind: 'put', key: recordKey('host-status', 'host1'), value: text }] }),
  );
  await rig.run(rig.view.waitFor(revision));
}
