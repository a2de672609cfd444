// SPDX-License-Identifier: Apache-2.0
import { setTimeout as pause } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { busbar, busbarOk, eventually, getVm, inside, json } from './lab.ts';

/**
 * Goal: a network with a VLAN tag is a segment of its own across hosts, on real switches, and everything that cannot work
 * is refused before anybody waits for it. The machine is not on these segments, so the guests themselves are asked.
 */
const NETWORKS = { control: 20, metering: 30 } as const;
interface Guest {
  readonly network: keyof typeof NETWORKS;
  readonly host: string;
  readonly address: string;
}
const GUESTS = {
  'vlan-a': { network: 'control', host: 'host1', address: '10.99.0.1' },
  'vlan-b': { network: 'control', host: 'host2', address: '10.99.0.2' },
  'vlan-c': { network: 'metering', host: 'host3', address: '10.99.0.3' },
} as const satisfies Record<string, Guest>;
type Name = keyof typeof GUESTS;
const names = Object.keys(GUESTS) as Name[];

const vmYaml = (name: string, network: string, more: string) => `apiVersion: busbar.v1
kind: Vm
name: ${name}
spec:
  cpu: {vcpus: 1}
  memoryBytes: 128MiB
  nics: [{name: lan, network: ${network}}]
${more.replace(/^/gm, '  ')}
`;
const guestYaml = (name: Name) =>
  vmYaml(
    name,
    GUESTS[name].network,
    `runPolicy: running
disks:
  - {name: boot, image: busbar-guest}
  - {name: data, sizeBytes: 16MiB}
placement: {pinnedHost: ${GUESTS[name].host}}
cloudInit:
  userData: |
    #cloud-config
    hostname: ${name}
  networkConfig: |
    version: 2
    ethernets:
      eth0:
        addresses: [${GUESTS[name].address}/24]`,
  );

/** What a command prints in the guest's shell; the end mark is computed there, so that the echoed input does not hold it. */
async function inGuest(name: Name, command: string): Promise<string> {
  const input = `\n${command}; echo end-$((40+2))\n`;
  return eventually(`an answer of ${name} to "${command}"`, 20_000, async () => {
    const { stdout } = await busbar(['vm', 'console', name], { input, timeoutMs: 30_000 });
    return stdout.includes('end-42') ? stdout : null;
  });
}

/** The guest's own HTTP client would need a resolver; one line suffices. The deadlines are shorter than the console's patience. */
const askCounter = (of: Name) => `{ echo GET /counter HTTP/1.0; echo; } | nc -w 1 ${GUESTS[of].address} 80`;
const ping = (name: Name) => `ping -c 2 -i 0.3 -W 1 ${GUESTS[name].address}`;

beforeAll(async () => {
  for (const [name, tag] of Object.entries(NETWORKS))
    await busbarOk(['network', 'create', name, '--kind', 'ovs', '--bridge', 'br-ovs', '--vlan', String(tag)]);
  await busbarOk(['network', 'create', 'nowhere', '--bridge', 'br-absent']);
  await busbarOk(['apply', '-f', '-'], { input: names.map(guestYaml).join('---\n') });
  // Each look costs as much processor time as a guest needs to get on: the three boot faster when nobody watches closely.
  for (const name of names)
    await eventually(`${name} to boot`, 90_000, async () => {
      const [log] = await Promise.all([busbar(['vm', 'log', name]), pause(1_000)]);
      return log.stdout.includes('busbar-guest: ready') ? true : null;
    });
});

afterAll(async () => {
  await Promise.all(names.map((name) => busbar(['vm', 'delete', name, '--force'])));
  for (const network of [...Object.keys(NETWORKS), 'nowhere']) await busbar(['network', 'delete', network]);
});

describe('a network with a VLAN tag', () => {
  it('is there on every host, and its VMs are plugged into Open vSwitch with the tag', async () => {
    const { status } = await json<{ status: { hosts: string[] } }>(['network', 'get', 'control']);
    expect(status.hosts).toEqual(['host1', 'host2', 'host3']);
    for (const name of names) {
      const { host, network } = GUESTS[name];
      expect((await getVm(name)).status.host).toBe(host);
      const port = /target dev='([^']+)'/.exec(
        (await inside(host, 'virsh', 'dumpxml', name)).split('<interface')[1] ?? '',
      )?.[1];
      expect(await inside(host, 'ovs-vsctl', 'port-to-br', port ?? '?')).toBe('br-ovs');
      expect(await inside(host, 'ovs-vsctl', 'get', 'port', port ?? '?', 'tag')).toBe(String(NETWORKS[network]));
    }
  });

  it('joins VMs on two hosts', async () => {
    const [a, b] = await Promise.all([
      inGuest('vlan-a', `${ping('vlan-b')}; ${askCounter('vlan-b')}`),
      inGuest('vlan-b', askCounter('vlan-a')),
    ]);
    expect(a).toMatch(/ 0% packet loss/);
    expect(a).toMatch(/"name":"vlan-b","counter":\d+/);
    expect(b).toMatch(/"name":"vlan-a","counter":\d+/);
  });

  it('keeps out a VM with another tag, which is reached under its own', async () => {
    const [c, a] = await Promise.all([
      inGuest('vlan-c', `${ping('vlan-a')}; ${askCounter('vlan-b')}`),
      inGuest('vlan-a', `${ping('vlan-c')}; ${askCounter('vlan-c')}`),
    ]);
    for (const said of [c, a]) {
      expect(said).toMatch(/100% packet loss/);
      expect(said).not.toContain('"counter":');
    }
    // Not because it is dead: a card with tag 30 on another host does reach it.
    const vsctl = (...words: string[]) => inside('host1', 'ovs-vsctl', '--timeout=5', ...words);
    await vsctl('add-port', 'br-ovs', 'probe', 'tag=30', '--', 'set', 'interface', 'probe', 'type=internal');
    try {
      await inside('host1', 'ip', 'address', 'add', '10.99.0.9/24', 'dev', 'probe');
      await inside('host1', 'ip', 'link', 'set', 'probe', 'up');
      const reach = (name: Name) => inside('host1', 'ping', '-c', '2', '-i', '0.3', '-W', '1', GUESTS[name].address);
      const [own, other] = await Promise.all([reach('vlan-c'), reach('vlan-b')]);
      expect(own).toMatch(/ 0% packet loss/);
      expect(other).toMatch(/ 100% packet loss/);
    } finally {
      await vsctl('del-port', 'br-ovs', 'probe');
    }
  });

  it('survives the death of the switch', async () => {
    const before = await inside('host1', 'pgrep', '-x', 'ovs-vswitchd');
    await inside('host1', 'pkill', '-9', '-x', 'ovs-vswitchd');
    await eventually('the next ovs-vswitchd', 20_000, async () => {
      const now = await inside('host1', 'pgrep', '-x', 'ovs-vswitchd');
      return now !== '' && now !== before ? true : null;
    });
    await eventually('the VMs to reach each other again', 30_000, async () =>
      (await inGuest('vlan-b', askCounter('vlan-a'))).includes('"name":"vlan-a"') ? true : null,
    );
  });

  it('cannot be deleted while VMs use it: the error names them', async () => {
    const refused = await busbar(['network', 'delete', 'control']);
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toMatch(/network "control" is used by vlan-a, vlan-b/);
    expect((await json<{ spec: { vlanTag: number } }>(['network', 'get', 'control'])).spec.vlanTag).toBe(20);
  });
});

describe('what cannot work', () => {
  it('a VM on a network that no host has is refused, with the reason for each host', async () => {
    const refused = await busbar(['apply', '-f', '-'], { input: vmYaml('lost-1', 'nowhere', 'runPolicy: running') });
    expect(refused.code).toBe(1);
    for (const host of ['host1', 'host2', 'host3'])
      expect(refused.stderr).toMatch(new RegExp(`${host}.*no bridge for nowhere`));
    expect((await busbar(['vm', 'get', 'lost-1'])).code).toBe(3);
  });

  it('a VLAN tag on a Linux bridge is refused, with what to do instead', async () => {
    const refused = await busbar([
      'network',
      'create',
      'tagged',
      '--kind',
      'linux',
      '--bridge',
      'br-vm',
      '--vlan',
      '20',
    ]);
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toMatch(/vlanTag.*Linux bridge.*OPEN_VSWITCH/s);
    expect((await busbar(['network', 'get', 'tagged'])).code).toBe(3);
  });

  it('an Open vSwitch bridge named as a Linux bridge is a network that no host has', async () => {
    await busbarOk(['network', 'create', 'nowhere-2', '--kind', 'linux', '--bridge', 'br-ovs']);
    const { status } = await json<{ status?: { hosts?: string[] } }>(['network', 'get', 'nowhere-2']);
    expect(status?.hosts ?? []).toEqual([]);
    await busbarOk(['network', 'delete', 'nowhere-2']);
  });
});

describe('a VM that is deleted', () => {
  it('leaves no port behind, and then its network can go', async () => {
    await busbarOk(['vm', 'delete', 'vlan-c', '--force']);
    expect(await inside('host3', 'ovs-vsctl', 'list-ports', 'br-ovs')).toBe('ovs-uplink');
    await busbarOk(['network', 'delete', 'metering']);
  });
});
