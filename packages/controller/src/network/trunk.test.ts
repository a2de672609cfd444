// SPDX-License-Identifier: Apache-2.0
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import { CreateNetworkRequest, type Network } from '@busbar/proto/gen/busbar/v1/network';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { testCaller } from '../testing/callers.ts';
import { Rig } from '../testing/rig.ts';

/** Goal: a guest chooses its VLAN only where an admin said which ones. */
let rig: Rig;
beforeEach(async () => {
  rig = new Rig();
  await rig.start();
});
afterEach(() => rig.stop());

const ADMIN = testCaller('admin', 'client/ada');
const OPERATOR = testCaller('operator', 'client/olga');
const create = (spec: object, caller = ADMIN) =>
  rig.call<{ network: Network }>(
    'NetworkService',
    'createNetwork',
    CreateNetworkRequest.fromPartial({ name: 'n', spec: { kind: BridgeKind.OPEN_VSWITCH, bridge: 'ovs0', ...spec } }),
    caller,
  );

describe('a trunk', () => {
  it('is made by admins only, who get it as they named it', async () => {
    await expect(create({ trunkVlans: [10, 20] }, OPERATOR)).rejects.toMatchObject({
      kind: 'forbidden',
      reason: 'ROLE_TOO_LOW',
      message: '"client/olga" has role operator, CreateNetwork needs admin for a trunk of VLANs 10, 20',
    });
    await create({ vlanTag: 10 }, OPERATOR);
    expect(rig.view.tables.network.sorted().map((entry) => entry.record.spec?.trunkVlans)).toEqual([[]]);
    const made = await rig.call<{ network: Network }>(
      'NetworkService',
      'createNetwork',
      CreateNetworkRequest.fromPartial({
        name: 'trunk',
        spec: { kind: BridgeKind.OPEN_VSWITCH, bridge: 'ovs0', trunkVlans: [10, 20] },
      }),
      ADMIN,
    );
    expect(made.network.spec).toMatchObject({ vlanTag: 0, trunkVlans: [10, 20] });
  });

  it.each<[string, object, string]>([
    ['VLAN 0', { trunkVlans: [0] }, 'spec.trunkVlans[0] is 0, expected 1 to 4094'],
    ['VLAN 4095', { trunkVlans: [1, 4095] }, 'spec.trunkVlans[1] is 4095, expected 1 to 4094'],
    ['a VLAN twice', { trunkVlans: [5, 5] }, 'expected at most 64 different VLANs'],
    ['65 VLANs', { trunkVlans: Array.from({ length: 65 }, (_, i) => i + 1) }, 'expected at most 64 different VLANs'],
    ['a tag beside it', { trunkVlans: [5], vlanTag: 6 }, 'expected 0 beside trunkVlans'],
    ['a Linux bridge', { trunkVlans: [5], kind: BridgeKind.LINUX }, 'a trunk needs kind OPEN_VSWITCH'],
  ])('with %s is refused', async (_name, spec, why) => {
    await expect(create(spec)).rejects.toMatchObject({
      kind: 'invalid',
      message: expect.stringContaining(why) as string,
    });
  });
});
