// SPDX-License-Identifier: Apache-2.0
// Bridges in the root namespace, cables to the hosts, and cutting them.
import { OVS_UPLINK, renderSwitchFilter } from './open-vswitch.ts';
import type { Cable, HostPlan, LabPlan, NetworkName } from './plan.ts';
import { run } from './run.ts';

/** What a host sees at its end of the cables. The third is a port of br-vm, the fourth of br-ovs; they carry guests only. */
const INSIDE: Readonly<Record<Cable, string>> = {
  management: 'mgmt',
  storage: 'storage',
  vm: 'uplink',
  trunk: OVS_UPLINK,
};
export const VM_BRIDGE = 'br-vm';

async function ipBatch(lines: readonly string[], inside?: number): Promise<void> {
  const enter = inside === undefined ? [] : ['nsenter', '--target', String(inside), '--net'];
  await run([...enter, 'ip', '-batch', '-'], { input: `${lines.join('\n')}\n` });
}

export async function linkNames(filter: readonly string[] = []): Promise<string[]> {
  const { stdout } = await run(['ip', '-json', 'link', 'show', ...filter]);
  // With a filter, ip prints an empty object for each link that it leaves out.
  return (JSON.parse(stdout) as { ifname?: string }[]).flatMap((link) => link.ifname ?? []);
}

/** Link names that only the lab of this index can have made. */
export function ownLinks(index: number, names: readonly string[]): string[] {
  const own = new RegExp(`^bb${index}([msvt]|[hw]\\d[msvt])$`);
  return names.filter((name) => own.test(name));
}

/** Makes the bridges that are missing. Cables of running hosts that hung on a lost one are plugged in again. */
export async function createBridges(plan: LabPlan): Promise<void> {
  const present = new Set(await linkNames());
  for (const [network, bridge] of Object.entries(plan.bridges) as [Cable, LabPlan['bridges'][Cable]][]) {
    const missing = !present.has(bridge.name);
    if (missing) {
      // With an address of its own: otherwise a bridge takes the lowest of its ports', and changes it as hosts come and go.
      await ipBatch([
        `link add ${bridge.name} address ${bridge.mac} type bridge stp_state 0 forward_delay 0 mcast_snooping 0`,
      ]);
    }
    await ipBatch([
      ...(bridge.address === undefined ? [] : [`address replace ${bridge.address}/24 dev ${bridge.name}`]),
      `link set ${bridge.name} up`,
    ]);
    const cables = plan.hosts.map(({ links }) => links[network]).filter((link) => present.has(link));
    if (missing && cables.length > 0) await plugAgain(cables, bridge.name);
  }
}

/** A cable may vanish meanwhile, with the host that is dying at its other end; what counts is that those left are plugged in. */
async function plugAgain(cables: readonly string[], bridge: string): Promise<void> {
  const lines = cables.map((cable) => `link set ${cable} master ${bridge} up\n`).join('');
  const { stderr } = await run(['ip', '-force', '-batch', '-'], { input: lines, mayFail: true });
  const plugged = new Set(await linkNames(['master', bridge]));
  const left = new Set(await linkNames());
  const loose = cables.filter((cable) => left.has(cable) && !plugged.has(cable));
  if (loose.length > 0) throw new Error(`could not plug ${loose.join(', ')} into ${bridge}: ${stderr.trim()}`);
}

/** Removes whatever carries this index: bridges and root-side ends of cables. */
export async function removeLinks(index: number): Promise<void> {
  for (const name of ownLinks(index, await linkNames())) {
    await run(['ip', 'link', 'delete', name], { mayFail: true }); // deleting one end of a cable deletes the other, which may be in the list
  }
}

/** Plugs the cables of a booting host and configures its side of them. */
export async function plug(plan: LabPlan, host: HostPlan, init: number): Promise<void> {
  const networks: readonly Cable[] =
    host.role === 'witness' ? ['management', 'storage'] : ['management', 'storage', 'vm', 'trunk'];
  await ipBatch(
    networks.flatMap((network) => [
      `link add ${host.links[network]} type veth peer name ${INSIDE[network]} address ${host.macs[network]} netns ${init}`,
      `link set ${host.links[network]} master ${plan.bridges[network].name} up`,
    ]),
  );
  await ipBatch(
    [
      'link set lo up',
      `address add ${host.management}/24 dev ${INSIDE.management}`,
      `address add ${host.storage}/24 dev ${INSIDE.storage}`,
      `link set ${INSIDE.management} up`,
      `link set ${INSIDE.storage} up`,
      ...(networks.includes('vm')
        ? [
            `link add ${VM_BRIDGE} address ${host.macs.vm} type bridge stp_state 0 forward_delay 0 mcast_snooping 0`,
            `link set ${INSIDE.vm} master ${VM_BRIDGE} up`,
            `link set ${VM_BRIDGE} up`,
            `link set ${INSIDE.trunk} up`,
          ]
        : []),
    ],
    init,
  );
  if (networks.includes('trunk')) await runNft(init, renderSwitchFilter());
}

async function runNft(init: number, rules: string): Promise<void> {
  await run(['nsenter', '--target', String(init), '--net', 'nft', '-f', '-'], { input: rules });
}

/** From this moment on nothing that happens in the host is seen outside, not even the goodbye of its dying sockets. */
export async function pull(host: HostPlan): Promise<void> {
  await eachLink(host, 'set', 'down');
}

/** Sockets of the dead may keep their network namespace for minutes; the cables must not stay plugged in it. */
export async function unplug(host: HostPlan): Promise<void> {
  await eachLink(host, 'delete');
}

/** A link may vanish between looking and doing, with the namespace at its other end; what counts is what is there afterwards. */
async function eachLink(host: HostPlan, verb: 'set' | 'delete', change = ''): Promise<void> {
  const mine = async (): Promise<string[]> => {
    const present = new Set(await linkNames(verb === 'set' ? ['up'] : []));
    return Object.values(host.links).filter((link) => present.has(link));
  };
  const links = await mine();
  if (links.length === 0) return;
  const lines = links.map((link) => `link ${verb} ${link} ${change}\n`).join('');
  const { stderr } = await run(['ip', '-force', '-batch', '-'], { input: lines, mayFail: true });
  const left = await mine();
  if (left.length > 0) throw new Error(`could not ${verb} ${left.join(', ')} ${change}: ${stderr.trim()}`);
}

/**
 * Drops everything on the given networks, in both directions and below IP: with ARP still answered, connecting would
 * time out as behind a firewall instead of failing as it does on a cut cable.
 */
export function renderPartition(cut: readonly NetworkName[]): string {
  const chains = cut.flatMap((network) =>
    ['ingress', 'egress'].map(
      (hook) =>
        `  chain ${INSIDE[network]}_${hook} {\n    type filter hook ${hook} device "${INSIDE[network]}" priority -500; policy drop;\n  }\n`,
    ),
  );
  // Deleting what may not exist is an error, so it is declared first; all of it is one transaction.
  return `table netdev busbar_lab\ndelete table netdev busbar_lab\n${chains.length === 0 ? '' : `table netdev busbar_lab {\n${chains.join('')}}\n`}`;
}

export async function applyPartition(host: HostPlan, init: number, cut: readonly NetworkName[]): Promise<void> {
  await runNft(init, renderPartition(cut));
  // A userspace switch reads its ports ahead of every filter, so the trunk is cut at the far end: 0 is a disabled port
  // of the lab's bridge, 3 a forwarding one. (`ip link … type bridge_slave state 0` does nothing.)
  if (host.role === 'hypervisor')
    await run(['bridge', 'link', 'set', 'dev', host.links.trunk, 'state', cut.includes('vm') ? '0' : '3']);
}
