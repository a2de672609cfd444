// SPDX-License-Identifier: Apache-2.0
// Open vSwitch of a host: a database and a switch of its own, with the userspace datapath, since the lab asks for no
// kernel module. One bridge for guests, whose uplink is a trunk: what is tagged here arrives tagged at the other hosts.
import { mkdir, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { hostRoot } from './paths.ts';
import type { HostPlan, LabPlan } from './plan.ts';
import { run } from './run.ts';

export const OVS_BRIDGE = 'br-ovs';
export const OVS_UPLINK = 'ovs-uplink';
const DATABASE = '/etc/openvswitch/conf.db';
/** Where libvirt, the agent and ovs-vsctl look by themselves (/var/run is /run). */
const RUN_DIRECTORY = '/run/openvswitch';
const SCHEMA = '/usr/share/openvswitch/vswitch.ovsschema';
const LOG = ['-vconsole:info', '-vsyslog:off', '-vfile:off'];

/** Before the daemons first run, so that nobody ever sees a switch without the bridge. Pure. */
export function renderSwitchTransaction(host: HostPlan): string {
  const named = (id: string): readonly string[] => ['named-uuid', id];
  const insert = (id: string, table: string, row: Readonly<Record<string, unknown>>): unknown => ({
    op: 'insert',
    'uuid-name': id,
    table,
    row,
  });
  return JSON.stringify([
    'Open_vSwitch',
    insert('local_interface', 'Interface', { name: OVS_BRIDGE, type: 'internal' }),
    insert('uplink_interface', 'Interface', { name: OVS_UPLINK }),
    insert('local', 'Port', { name: OVS_BRIDGE, interfaces: named('local_interface') }),
    insert('uplink', 'Port', { name: OVS_UPLINK, interfaces: named('uplink_interface') }),
    insert('bridge', 'Bridge', {
      name: OVS_BRIDGE,
      datapath_type: 'netdev',
      ports: ['set', [named('local'), named('uplink')]],
      other_config: ['map', [['hwaddr', host.macs.trunk]]],
    }),
    insert('switch', 'Open_vSwitch', {
      bridges: named('bridge'),
      other_config: [
        'map',
        [
          // One of each per processor otherwise, in every host, and the processors are all the same two.
          ['n-handler-threads', '1'],
          ['n-revalidator-threads', '1'],
          // Guests leave checksums to the network card. Without this the switch passes them on unfinished: ping works,
          // and every TCP connection times out.
          ['userspace-tso-enable', 'true'],
        ],
      ],
    }),
  ]);
}

/** Survives power cuts, as on a real host; made when it is missing. */
export async function ensureSwitchDatabase(plan: LabPlan, host: HostPlan): Promise<void> {
  const file = hostRoot(plan.spec.name, host.name, DATABASE);
  if (
    await stat(file).then(
      () => true,
      () => false,
    )
  )
    return;
  // Whole or not at all: a lab command may be killed at any moment.
  const next = `${file}.new`;
  await mkdir(dirname(file), { recursive: true });
  await rm(next, { force: true });
  await run(['ovsdb-tool', 'create', next, SCHEMA]);
  await run(['ovsdb-tool', 'transact', next, renderSwitchTransaction(host)]);
  await rename(next, file);
}

/**
 * The switch takes its copy of a frame ahead of this. The original must not reach the host's own network stack, which
 * would answer, too: for ARP, and for addresses that somebody gives to br-ovs. Pure.
 */
export function renderSwitchFilter(): string {
  return `table netdev busbar_lab_switch {
  chain trunk {
    type filter hook ingress device "${OVS_UPLINK}" priority -500; policy drop;
  }
}
`;
}

/** Command lines of the two daemons, and what goes before them. Pure. */
export function switchServices(): readonly { name: string; argv: readonly string[]; before: readonly string[] }[] {
  const socket = `unix:${RUN_DIRECTORY}/db.sock`;
  const before = [`mkdir -p ${RUN_DIRECTORY}`];
  const options = ['--pidfile', ...LOG]; // by which ovs-appctl finds them
  return [
    { name: 'ovsdb-server', argv: ['ovsdb-server', DATABASE, `--remote=p${socket}`, ...options], before },
    { name: 'ovs-vswitchd', argv: ['ovs-vswitchd', socket, ...options], before },
  ];
}
