// SPDX-License-Identifier: Apache-2.0
import { busbarOk } from '@busbar/deploy/demo/busbar';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { busbar, eventually, inside, json, LAB, untilReady } from './lab.ts';

/**
 * Goal: a guest cannot choose its VLAN by writing a tag.
 * Method: three VMs on one switch: on a network without a tag, on VLAN 20, on a trunk that an admin made. The switch is
 * asked what it would do with a frame of each that says VLAN 20.
 */
const HOST = 'host1';
const VMS = { untagged: 'plain-ovs', control: 'vlan-20', trunk: 'trunk-20-30' } as const;
type Name = keyof typeof VMS;
const names = Object.keys(VMS) as Name[];
const ports = {} as Record<Name, { readonly name: string; readonly number: string }>;

const vmYaml = (name: Name) => `apiVersion: busbar.v1
kind: Vm
name: ${name}
spec:
  runPolicy: running
  cpu: {vcpus: 1}
  memoryBytes: 128MiB
  disks: [{name: boot, image: busbar-guest}]
  nics: [{name: lan, network: ${VMS[name]}}]
  placement: {pinnedHost: ${HOST}}
`;

beforeAll(async () => {
  const ovs = ['--kind', 'ovs', '--bridge', 'br-ovs'];
  await busbarOk(LAB, ['network', 'create', VMS.untagged, ...ovs]);
  await busbarOk(LAB, ['network', 'create', VMS.control, ...ovs, '--vlan', '20']);
  await busbarOk(LAB, ['network', 'create', VMS.trunk, ...ovs, '--trunk', '20,30']);
  await busbarOk(LAB, ['apply', '-f', '-'], { input: names.map(vmYaml).join('---\n') });
  for (const name of names) {
    await eventually(`${name} runs`, 60_000, async () => {
      const { status } = await json<{ status: { phase: string } }>(['vm', 'get', name]);
      return status.phase === 'VM_PHASE_RUNNING' ? true : null;
    });
    const xml = (await inside(HOST, 'virsh', 'dumpxml', name)).stdout;
    const port = /target dev='([^']+)'/.exec(xml.split('<interface')[1] ?? '')?.[1] ?? '?';
    const number = (await inside(HOST, 'ovs-vsctl', 'get', 'interface', port, 'ofport')).stdout.trim();
    ports[name] = { name: port, number };
  }
}, 120_000);

afterAll(async () => {
  for (const name of names) await busbar(['vm', 'delete', name, '--force']);
  for (const network of Object.values(VMS)) await busbar(['network', 'delete', network]);
  await untilReady();
});

/** What the switch does with a broadcast frame of a guest, without and with a tag. */
async function trace(from: Name, tag: number): Promise<string> {
  const frame = `in_port=${ports[from].number},dl_src=52:54:00:00:00:01,dl_dst=ff:ff:ff:ff:ff:ff`;
  const flow = tag === 0 ? frame : `${frame},dl_vlan=${tag}`;
  const { stdout } = await inside(HOST, 'ovs-appctl', 'ofproto/trace', 'br-ovs', flow);
  return stdout.split('Datapath actions:')[1]?.trim() ?? stdout;
}

/** How the datapath calls a port; it has numbers of its own. */
async function datapathPort(of: Name): Promise<string> {
  const { stdout } = await inside(HOST, 'ovs-appctl', 'dpif/show');
  return new RegExp(`${ports[of].name} \\d+/(\\d+):`).exec(stdout)?.[1] ?? '?';
}

describe('a port of Open vSwitch', () => {
  it('says which VLANs it has, in every case', async () => {
    const seen = await Promise.all(
      names.map(async (name) => {
        const { stdout } = await inside(HOST, 'ovs-vsctl', '--columns=tag,trunks', 'list', 'port', ports[name].name);
        return [name, stdout.replace(/\s+/g, ' ').trim()];
      }),
    );
    expect(Object.fromEntries(seen)).toEqual({
      untagged: 'tag : 0 trunks : []',
      control: 'tag : 20 trunks : []',
      trunk: 'tag : [] trunks : [20, 30]',
    });
  });

  it('drops the tagged frames of a guest that has no trunk', async () => {
    for (const from of ['untagged', 'control'] as const)
      for (const tag of [20, 30]) expect(await trace(from, tag), `${from} says VLAN ${tag}`).toBe('drop');
  });

  it('lets a trunk speak on its VLANs, and on no other', async () => {
    const control = await datapathPort('control');
    expect(await trace('trunk', 20)).toMatch(new RegExp(`pop_vlan,${control}\\b`));
    for (const tag of [0, 10]) expect(await trace('trunk', tag), `VLAN ${tag}`).toBe('drop');
    // What is not dropped elsewhere reaches somebody: the switch works.
    expect(await trace('untagged', 0)).toMatch(/\d/);
  });
});
