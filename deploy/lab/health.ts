// SPDX-License-Identifier: Apache-2.0
// Waiting for the parts of a lab, each with a deadline and a line when it is there.
import { waitForReady } from './busbar.ts';
import { createOsdsAndPool, waitForHealth } from './ceph.ts';
import { cephDaemonsWaiting } from './ceph-socket.ts';
import { cutNetworks, execInside, power } from './host.ts';
import { findDaemons } from './host-files.ts';
import { OVS_BRIDGE } from './open-vswitch.ts';
import { findHost, type HostPlan, type LabPlan } from './plan.ts';
import { DeadlineError, until } from './run.ts';
import { healthyEtcdMembers, hostStatus, silentControllers } from './status.ts';

export type Progress = (line: string) => void;

/** A host's libvirtd and etcd need seconds; the bound is for a machine that does other things as well. */
const SERVICES_TIMEOUT_MS = 90_000;
export const HEALTH_TIMEOUT_MS = 180_000;
const READY_TIMEOUT_MS = 60_000;

const OWN_DAEMONS: readonly string[] = ['controller', 'agent'];
/** A source tree under work may have a controller that does not start: the lab is of use nevertheless. */
const CONTROLLERS_TIMEOUT_MS = 20_000;

export async function waitForCeph(plan: LabPlan, progress: Progress): Promise<void> {
  if (!plan.spec.ceph) return;
  await createOsdsAndPool(plan, progress);
  await waitForHealth(plan.spec.name, HEALTH_TIMEOUT_MS);
  progress('Ceph is HEALTH_OK');
}

export async function waitForServices(plan: LabPlan, progress: Progress): Promise<void> {
  await until(
    'etcd members becoming healthy',
    async () => {
      const healthy = await healthyEtcdMembers(plan);
      return healthy.length === plan.voters.length
        ? { value: undefined }
        : { waiting: `healthy: ${healthy.join(', ') || 'none'} of ${plan.voters.map((host) => host.name).join(', ')}` };
    },
    { timeoutMs: SERVICES_TIMEOUT_MS },
  );
  progress(`etcd has ${plan.voters.length} healthy members`);
  for (const host of plan.hosts) await waitForHypervisor(plan, host);
  progress('libvirt and Open vSwitch answer on every hypervisor');
}

async function waitForHypervisor(plan: LabPlan, host: HostPlan): Promise<void> {
  if (host.role !== 'hypervisor') return;
  for (const argv of [
    ['virsh', '--connect', 'qemu:///system', 'version'],
    ['test', '-e', `/sys/class/net/${OVS_BRIDGE}`], // appears when the switch has read its database
  ]) {
    await until(
      `"${argv.join(' ')}" on ${host.name}`,
      async () => {
        const answer = await execInside(plan, host, argv, { mayFail: true, timeoutMs: 20_000 });
        return answer.code === 0 ? { value: undefined } : { waiting: answer.stderr.trim() || `exit ${answer.code}` };
      },
      { timeoutMs: SERVICES_TIMEOUT_MS },
    );
  }
}

/** Controllers, then agents. What does not come is told, not thrown: people debug exactly that in a lab. */
export async function waitForDaemons(plan: LabPlan, progress: Progress): Promise<void> {
  if (!(await findDaemons()).controller) return;
  try {
    await until(
      'controllers accepting connections',
      async () => {
        const silent = await silentControllers(plan);
        return silent.length === 0 ? { value: undefined } : { waiting: `silent: ${silent.join(', ')}` };
      },
      { timeoutMs: CONTROLLERS_TIMEOUT_MS },
    );
    progress(`${plan.voters.length} controllers accept connections`);
    if (await waitForReady(plan, plan.hosts, CONTROLLERS_TIMEOUT_MS)) progress('Busbar calls every host ready');
  } catch (error) {
    if (!(error instanceof DeadlineError)) throw error;
    progress(`warning: ${error.message}; their logs are in /var/log/busbar/controller and /var/log/busbar/agent`);
  }
}

/** What Busbar stands on, in a host that was just booted. */
export async function waitForHostServices(plan: LabPlan, name: string): Promise<void> {
  const host = findHost(plan, name);
  await until(
    `services of ${name}`,
    async () => {
      const { services } = await hostStatus(plan, host);
      const down = Object.entries(services).flatMap(([service, { up }]) =>
        up || OWN_DAEMONS.includes(service) ? [] : [service],
      );
      return down.length === 0 ? { value: undefined } : { waiting: `down: ${down.join(', ')}` };
    },
    { timeoutMs: SERVICES_TIMEOUT_MS },
  );
}

/** etcd has all its members, every Ceph daemon of a running host takes part again, and Ceph is HEALTH_OK. */
export async function waitForWhole(plan: LabPlan, timeoutMs: number, progress: Progress): Promise<void> {
  await waitForServices(plan, progress);
  if (!plan.spec.ceph) return;
  await until(
    'Ceph daemons coming back',
    async () => {
      const waiting = (await Promise.all(plan.hosts.map(async (host) => await cephDaemonsWaiting(plan, host)))).flat();
      return waiting.length === 0 ? { value: undefined } : { waiting: waiting.join(', ') };
    },
    { timeoutMs },
  );
  progress('every Ceph daemon takes part again');
  await waitForHealth(plan.spec.name, timeoutMs);
  progress('Ceph is HEALTH_OK');
}

/** Hosts whose part nobody may wait for, and why. */
export async function absentHosts(plan: LabPlan): Promise<string[]> {
  const lab = plan.spec.name;
  const asked = plan.hosts.map(async ({ name }) => {
    const state = await power(lab, name);
    if (state !== 'on') return [`${name} is ${state}`];
    const cut = await cutNetworks(lab, name);
    return cut.length === 0 ? [] : [`${name} is cut off (${cut.join(', ')})`];
  });
  return (await Promise.all(asked)).flat();
}

/** Busbar has seen this life of the host and would give it work. */
export async function waitForHostReady(plan: LabPlan, name: string, progress: Progress): Promise<void> {
  if (await waitForReady(plan, [findHost(plan, name)], READY_TIMEOUT_MS)) progress(`Busbar calls ${name} ready`);
}
