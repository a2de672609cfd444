// SPDX-License-Identifier: Apache-2.0
import { execFile } from 'node:child_process';
import { networkInterfaces } from 'node:os';
import { promisify } from 'node:util';
import { type Bridge, BridgeKind, type NetworkInterface, type PciDevice } from '@busbar/proto/gen/busbar/v1/host';
import type { Files } from './files.ts';

const run = promisify(execFile);

const PCI = ['sys', 'bus', 'pci', 'devices'] as const;
const NET = ['sys', 'class', 'net'] as const;
/** PCI class of bridges: part of the machine, of no use to a guest. */
const BRIDGE_CLASS = '0x06';
const OVS_DEADLINE_MS = 3000;
/**
 * Tries again while the database does not answer: it may be starting, as the agent is, or be restarted by its supervisor.
 * A bridge that is missed is missed until the next inventory, and no VM is placed there meanwhile.
 */
const OVS_PATIENCE = ['--retry', '--timeout=2'];

export async function readPciDevices(files: Files): Promise<PciDevice[]> {
  const devices: PciDevice[] = [];
  for (const address of await files.list(...PCI)) {
    const device = [...PCI, address];
    const classCode = await files.text(...device, 'class');
    if (classCode.startsWith(BRIDGE_CLASS)) continue;
    const id = async (name: string) => (await files.text(...device, name)).replace(/^0x/, '');
    const group = await files.linkName(...device, 'iommu_group');
    devices.push({
      address,
      vendorProduct: `${await id('vendor')}:${await id('device')}`,
      classCode,
      driver: await files.linkName(...device, 'driver'),
      numaNode: await files.number([...device, 'numa_node'], -1),
      iommuGroup: /^\d+$/.test(group) ? Number(group) : -1,
    });
  }
  return devices;
}

/** Addresses by interface, with prefix length. */
export function systemAddresses(): ReadonlyMap<string, readonly string[]> {
  const found = new Map<string, readonly string[]>();
  for (const [name, entries] of Object.entries(networkInterfaces())) {
    found.set(
      name,
      (entries ?? []).flatMap(({ cidr }) => cidr ?? []),
    );
  }
  return found;
}

/** Without the loopback and without the guests' own taps, which come and go with VMs. */
export async function readInterfaces(
  files: Files,
  addresses: ReadonlyMap<string, readonly string[]>,
): Promise<NetworkInterface[]> {
  const interfaces: NetworkInterface[] = [];
  for (const name of await files.list(...NET)) {
    const link = [...NET, name];
    const isTap = (await files.text(...link, 'tun_flags')) !== '';
    const macAddress = await files.text(...link, 'address');
    if (name === 'lo' || isTap || macAddress === '') continue;
    const pciAddress = await files.linkName(...link, 'device');
    interfaces.push({
      name,
      macAddress: macAddress.toLowerCase(),
      linkUp: (await files.number([...link, 'carrier'], 0)) === 1,
      speedMbps: Math.max(0, await files.number([...link, 'speed'], 0)),
      mtu: await files.number([...link, 'mtu'], 0),
      addresses: [...(addresses.get(name) ?? [])],
      pciAddress: /^[\da-f]{4}:[\da-f]{2}:[\da-f]{2}\.\d$/.test(pciAddress) ? pciAddress : '',
    });
  }
  return interfaces;
}

export async function readLinuxBridges(files: Files): Promise<Bridge[]> {
  const bridges: Bridge[] = [];
  for (const name of await files.list(...NET)) {
    if ((await files.text(...NET, name, 'bridge', 'bridge_id')) !== '') bridges.push({ name, kind: BridgeKind.LINUX });
  }
  return bridges;
}

/** None when Open vSwitch is not installed or does not run. */
export async function readOpenVswitchBridges(): Promise<Bridge[]> {
  try {
    const { stdout } = await run('ovs-vsctl', [...OVS_PATIENCE, 'list-br'], { timeout: OVS_DEADLINE_MS });
    return parseOpenVswitchBridges(stdout);
  } catch {
    return [];
  }
}

export function parseOpenVswitchBridges(listBr: string): Bridge[] {
  return listBr
    .split('\n')
    .map((name) => name.trim())
    .filter((name) => name !== '')
    .map((name) => ({ name, kind: BridgeKind.OPEN_VSWITCH }));
}
