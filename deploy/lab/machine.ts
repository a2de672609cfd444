// SPDX-License-Identifier: Apache-2.0
// What a lab asks of the machine, checked before anything is made: what is missing, why it is needed, what to do.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

export const CGROUP_ROOT = '/sys/fs/cgroup';
/** What libvirt manages of a guest, plus freezer, by which a host's processes are found. */
const WANTED = ['cpu', 'cpuacct', 'cpuset', 'memory', 'devices', 'freezer', 'blkio', 'pids'];
/** Freezing hosts and finding their processes, and weighing guests against daemons. Without the others libvirt does with less. */
const NEEDED = ['cpu', 'freezer'];
/** Bit numbers from linux/capability.h. Root in a container has lost some of them. */
const CAPABILITIES = { net_admin: 12, sys_admin: 21 };

export class MachineError extends Error {
  override readonly name = 'MachineError';
}

/** The wanted cgroup controllers that are mounted the version 1 way. Pure. */
export function mountedControllers(mounts: string): string[] {
  const mounted = new Set(
    mounts.split('\n').flatMap((line) => (line.split(' ')[2] === 'cgroup' ? [line.split(' ')[1] ?? ''] : [])),
  );
  return WANTED.filter((name) => mounted.has(join(CGROUP_ROOT, name)));
}

/** Why no lab can run here; undefined when it can. Pure. */
export function unfit(machine: {
  readonly uid: number | undefined;
  /** /proc/self/status */
  readonly status: string;
  /** /proc/mounts */
  readonly mounts: string;
}): string | undefined {
  if (machine.uid !== 0)
    return 'the lab needs root: it makes namespaces, bridges and cgroups\nRun the command again with sudo, or as root.';
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(machine.status)?.[1] ?? 'ffffffffffffffff'}`);
  const lost = Object.entries(CAPABILITIES).flatMap(([name, bit]) =>
    ((effective >> BigInt(bit)) & 1n) === 0n ? [`CAP_${name.toUpperCase()}`] : [],
  );
  if (lost.length > 0)
    return `the lab needs ${lost.join(' and ')}, which root has not got here: it makes namespaces, mounts and bridges\nIn a container, start it with --privileged.`;
  const found = mountedControllers(machine.mounts);
  const missing = NEEDED.filter((name) => !found.includes(name));
  if (missing.length === 0) return undefined;
  const need = `the lab needs cgroup version 1: it freezes hosts and weighs guests by it, and ${missing.join(' and ')} ${missing.length === 1 ? 'is' : 'are'} not mounted below ${CGROUP_ROOT}`;
  const unified = machine.mounts
    .split('\n')
    .some((line) => line.startsWith('cgroup2 ') && line.split(' ')[1] === CGROUP_ROOT);
  return unified
    ? `${need}\nThis machine has version 2 alone. With systemd, start its kernel with systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1.`
    : `${need}\nFor each of them: mkdir -p ${CGROUP_ROOT}/NAME && mount -t cgroup -o NAME cgroup ${CGROUP_ROOT}/NAME`;
}

export async function requireMachine(): Promise<void> {
  const reason = unfit({
    uid: process.getuid?.(),
    status: await readFile('/proc/self/status', 'utf8'),
    mounts: await readFile('/proc/mounts', 'utf8'),
  });
  if (reason !== undefined) throw new MachineError(reason);
}
