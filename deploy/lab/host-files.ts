// SPDX-License-Identifier: Apache-2.0
// Writes a host's files: once when it is installed, and at every boot what follows from configuration.
import { createHash } from 'node:crypto';
import { chmod, cp, mkdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ensureSwitchDatabase } from './open-vswitch.ts';
import { hostDir, hostRoot, PRIVATE_DIRECTORIES, PRIVATE_FILES, REPOSITORY, volumesDir } from './paths.ts';
import type { HostPlan, LabPlan } from './plan.ts';
import { renderCephConf } from './render-ceph.ts';
import {
  renderAgentYaml,
  renderControllerYaml,
  renderHosts,
  renderLibvirtdConf,
  renderNatsConf,
  renderQemuConf,
} from './render-host.ts';
import { type Daemons, LOG_CONFIG, renderLogRun, renderServices } from './render-services.ts';

/** Directories that a Debian package fills; a host gets a copy. The others start empty. */
const COPIED = ['/etc/libvirt', '/var/lib/libvirt'];

async function exists(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  );
}

/** Makes the private part of a host's file system. */
export async function installHost(plan: LabPlan, host: HostPlan): Promise<void> {
  const lab = plan.spec.name;
  for (const directory of PRIVATE_DIRECTORIES) {
    const target = hostRoot(lab, host.name, directory);
    await mkdir(join(target, '..'), { recursive: true });
    if (COPIED.includes(directory) && (await exists(directory)))
      await cp(directory, target, { recursive: true, verbatimSymlinks: true });
    else await mkdir(target, { recursive: true });
  }
  // The default NAT network of Debian's package would fight over one bridge name and address in every host.
  await rm(hostRoot(lab, host.name, '/etc/libvirt/qemu/networks'), { recursive: true, force: true });
  if (host.osd !== undefined)
    await mkdir(hostRoot(lab, host.name, `/var/lib/ceph/osd/ceph-${host.osd}`), { recursive: true });
  // As the packages make it: in there are the keys of the monitors, and on the OSD every disk of every VM.
  await chmod(hostRoot(lab, host.name, '/var/lib/ceph'), 0o700);
  for (const directory of [
    '/var/log/libvirt/qemu',
    '/var/lib/ceph/crash/posted',
    '/var/lib/busbar/controller',
    '/var/lib/busbar/agent',
    '/var/lib/busbar/volumes',
  ]) {
    await mkdir(hostRoot(lab, host.name, directory), { recursive: true });
  }
}

/** The same at every boot, different for each host and each lab. */
function machineId(plan: LabPlan, host: HostPlan): string {
  return createHash('sha256').update(`${plan.spec.fsid}/${host.name}`).digest('hex').slice(0, 32);
}

function asUuid(hex: string): string {
  return [hex.slice(0, 8), hex.slice(8, 12), `4${hex.slice(13, 16)}`, `8${hex.slice(17, 20)}`, hex.slice(20, 32)].join(
    '-',
  );
}

export async function findDaemons(): Promise<Daemons> {
  const present = async (name: string): Promise<boolean> =>
    await exists(join(REPOSITORY, 'packages', name, 'src/main.ts'));
  const here = Number(process.versions.node.split('.')[0]) >= 24;
  return {
    node: here ? process.execPath : join(REPOSITORY, 'node_modules/.bin/node'),
    repository: REPOSITORY,
    controller: await present('controller'),
    agent: await present('agent'),
  };
}

export async function writeHostFiles(
  plan: LabPlan,
  host: HostPlan,
  options: { readonly bootId: string },
): Promise<void> {
  const lab = plan.spec.name;
  const id = machineId(plan, host);
  const write = async (path: string, text: string, mode = 0o644): Promise<void> => {
    const file = hostRoot(lab, host.name, path);
    await mkdir(join(file, '..'), { recursive: true });
    await writeFile(file, text, { mode });
  };
  await write('/etc/hostname', `${host.name}\n`);
  await write('/etc/hosts', renderHosts(plan));
  await write('/etc/machine-id', `${id}\n`);
  await write('/boot_id', `${options.bootId}\n`);
  await write('/etc/busbar/nats.conf', renderNatsConf(plan, host));
  await write('/etc/busbar/agent.yaml', renderAgentYaml(plan, host));
  if (host.voter) await write('/etc/busbar/controller.yaml', renderControllerYaml(plan, host));
  if (plan.spec.ceph) await write('/etc/ceph/ceph.conf', renderCephConf(plan));
  if (host.role === 'hypervisor') {
    await write('/etc/libvirt/libvirtd.conf', renderLibvirtdConf(asUuid(id)));
    await write('/etc/libvirt/qemu.conf', renderQemuConf(host));
    await ensureSwitchDatabase(plan, host);
  }
  await writeServices(plan, host);
  const mounts = [
    ...[...PRIVATE_DIRECTORIES, ...PRIVATE_FILES].map((path) => [hostRoot(lab, host.name, path), path]),
    [hostRoot(lab, host.name, '/boot_id'), '/proc/sys/kernel/random/boot_id'],
    ...(plan.spec.ceph ? [] : [[volumesDir(lab), '/var/lib/busbar/volumes', 'nosymfollow,nodev,nosuid']]),
  ];
  await writeFile(join(hostDir(lab, host.name), 'mounts'), mounts.map((pair) => `${pair.join(' ')}\n`).join(''));
}

async function writeServices(plan: LabPlan, host: HostPlan): Promise<void> {
  const lab = plan.spec.name;
  const top = join(hostDir(lab, host.name), 'services');
  await rm(top, { recursive: true, force: true });
  for (const service of renderServices(plan, host, await findDaemons())) {
    const logs = hostRoot(lab, host.name, `/var/log/busbar/${service.name}`);
    await mkdir(logs, { recursive: true });
    await writeFile(join(logs, 'config'), LOG_CONFIG);
    await mkdir(join(top, service.name, 'log'), { recursive: true });
    for (const [file, text] of [
      ['run', service.run],
      ['log/run', renderLogRun(service.name)],
    ] as const) {
      await writeFile(join(top, service.name, file), text);
      await chmod(join(top, service.name, file), 0o755);
    }
  }
}
