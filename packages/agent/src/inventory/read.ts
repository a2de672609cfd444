// SPDX-License-Identifier: Apache-2.0
import type { BootId } from '@busbar/core/ids';
import type { HostInventory } from '@busbar/proto/gen/busbar/v1/host';
import type { HostCpus } from '../domain/facts.ts';
import {
  readInterfaces,
  readLinuxBridges,
  readOpenVswitchBridges,
  readPciDevices,
  systemAddresses,
} from './devices.ts';
import { Files } from './files.ts';
import { readKvm } from './kvm.ts';
import { readIsolatedCpus, readNumaNodes, readOnlineCpus } from './numa.ts';
import { parseCpuInfo, parseMemory, parseOsRelease } from './parse.ts';
import { type PretendTopology, pretended } from './pretend.ts';

/**
 * The host as the kernel shows it. Left empty for whoever knows: the host's addresses in the
 * cluster, the agent's version, and what only libvirt can tell.
 */
export async function readInventory(root: string, addresses = systemAddresses()): Promise<HostInventory> {
  const files = new Files(root);
  const { model, vendor, flags } = parseCpuInfo(await files.text('proc', 'cpuinfo'));
  const openVswitch = root === '/' ? await readOpenVswitchBridges() : [];
  return {
    managementAddress: '',
    storageAddress: '',
    numaNodes: await readNumaNodes(files),
    cpu: { model, vendor, libvirtModel: '', features: [...flags], onlineCpus: (await readOnlineCpus(files)).length },
    isolatedCpus: await readIsolatedCpus(files),
    memoryBytes: parseMemory(await files.text('proc', 'meminfo'), 'MemTotal'),
    pciDevices: await readPciDevices(files),
    interfaces: await readInterfaces(files, addresses),
    bridges: [...(await readLinuxBridges(files)), ...openVswitch],
    ...(await readKvm(root)),
    versions: {
      agent: '',
      kernel: await files.text('proc', 'sys', 'kernel', 'osrelease'),
      libvirt: '',
      qemu: '',
      os: parseOsRelease(await files.text('etc', 'os-release'), 'PRETTY_NAME'),
    },
    pretendedTopology: undefined,
  };
}

/** The inventory as placement shall see it. */
export async function readShownInventory(root: string, topology: PretendTopology | undefined): Promise<HostInventory> {
  const found = await readInventory(root);
  return topology === undefined ? found : pretended(found, topology, (await readCpus(root)).online);
}

/** CPUs that exist, ascending. */
export async function readCpus(root: string): Promise<Omit<HostCpus, 'pretended'>> {
  const files = new Files(root);
  const nodes = await readNumaNodes(files);
  return {
    online: await readOnlineCpus(files),
    isolated: await readIsolatedCpus(files),
    ofNode: new Map(nodes.map(({ id, cpus }) => [id, cpus])),
  };
}

/** A new one proves that everything of the former boot is gone. */
export async function readBootId(root = '/'): Promise<BootId> {
  const text = await new Files(root).text('proc', 'sys', 'kernel', 'random', 'boot_id');
  if (!/^[\da-f-]{36}$/.test(text)) throw new Error('the kernel tells no boot id');
  return text as BootId;
}
