// SPDX-License-Identifier: Apache-2.0
// What a lab is doing now, asked of the kernel, runit, etcd and Ceph.
import { readdir, readFile } from 'node:fs/promises';
import { request } from 'node:https';
import { connect } from 'node:net';
import { join } from 'node:path';
import { type CephHealth, cephHealth } from './ceph.ts';
import { processes } from './cgroup.ts';
import { cutNetworks, initPid, namespacePidsOf, type Power, power } from './host.ts';
import { hostDir, hostRoot, pkiDir } from './paths.ts';
import { CONTROLLER_PORT, type HostPlan, type LabPlan, type NetworkName, type Role } from './plan.ts';
import { ETCD_CLIENT_PORT } from './render-host.ts';

export interface ServiceStatus {
  readonly up: boolean;
  /** As the host numbers it: what `exec HOST -- kill` wants. */
  readonly pid: number | undefined;
  /** As the machine numbers it. */
  readonly rootPid: number | undefined;
}

export interface HostStatus {
  readonly name: string;
  readonly role: Role;
  readonly voter: boolean;
  readonly management: string;
  readonly storage: string;
  readonly power: Power;
  readonly bootId: string | undefined;
  readonly partitioned: readonly NetworkName[];
  readonly services: Readonly<Record<string, ServiceStatus>>;
}

export interface LabStatus {
  readonly name: string;
  readonly index: number;
  readonly hosts: readonly HostStatus[];
  readonly etcd: { readonly members: number; readonly healthy: readonly string[] };
  readonly ceph: CephHealth | undefined;
}

export async function labStatus(plan: LabPlan): Promise<LabStatus> {
  const lab = plan.spec.name;
  const [hosts, healthy, ceph] = await Promise.all([
    Promise.all(plan.hosts.map(async (host) => await hostStatus(plan, host))),
    healthyEtcdMembers(plan),
    plan.spec.ceph ? cephHealth(lab) : undefined,
  ]);
  return { name: lab, index: plan.spec.index, hosts, etcd: { members: plan.voters.length, healthy }, ceph };
}

export async function hostStatus(plan: LabPlan, host: HostPlan): Promise<HostStatus> {
  const lab = plan.spec.name;
  const state = await power(lab, host.name);
  return {
    name: host.name,
    role: host.role,
    voter: host.voter,
    management: host.management,
    storage: host.storage,
    power: state,
    bootId:
      state === 'off'
        ? undefined
        : (await readFile(hostRoot(lab, host.name, '/boot_id'), 'utf8').catch(() => '')).trim(),
    partitioned: await cutNetworks(lab, host.name),
    services: await serviceStatus(plan, host),
  };
}

/** Read from runsv's own files instead of by `sv`, so that a frozen host can be looked at too. */
async function serviceStatus(plan: LabPlan, host: HostPlan): Promise<Record<string, ServiceStatus>> {
  const lab = plan.spec.name;
  const names = (await readdir(join(hostDir(lab, host.name), 'services')).catch(() => [])).toSorted((a, b) =>
    a.localeCompare(b),
  );
  const init = await initPid(lab, host.name);
  const roots = new Map<number, number>();
  for (const rootPid of init === undefined ? [] : await processes(lab, host.name)) {
    const inner = (await namespacePidsOf(rootPid)).at(1);
    if (inner !== undefined) roots.set(inner, rootPid);
  }
  const read = async (name: string): Promise<ServiceStatus> => {
    const text =
      init === undefined
        ? ''
        : await readFile(`/proc/${init}/root/run/service/${name}/supervise/pid`, 'utf8').catch(() => '');
    const pid = text.trim() === '' ? undefined : Number(text);
    const rootPid = pid === undefined ? undefined : roots.get(pid);
    return rootPid === undefined ? { up: false, pid: undefined, rootPid } : { up: true, pid, rootPid };
  };
  return Object.fromEntries(await Promise.all(names.map(async (name) => [name, await read(name)] as const)));
}

export async function healthyEtcdMembers(plan: LabPlan): Promise<string[]> {
  const asked = await Promise.all(
    plan.voters.map(async (host) => ((await etcdHealthy(plan, host)) ? [host.name] : [])),
  );
  return asked.flat();
}

/** etcd's own answer, which includes a read through the quorum; by the certificate of that host's controller. */
async function etcdHealthy(plan: LabPlan, host: HostPlan): Promise<boolean> {
  const lab = plan.spec.name;
  const file = async (path: string): Promise<Buffer> => await readFile(path);
  const inHost = (name: string): string => hostRoot(lab, host.name, `/etc/busbar/pki/${name}`);
  const options = {
    host: host.management,
    port: ETCD_CLIENT_PORT,
    path: '/health',
    ca: await file(join(pkiDir(lab), 'etcd-ca.crt')),
    cert: await file(inHost('etcd-client.crt')),
    key: await file(inHost('etcd-client.key')),
    timeout: 2000,
    agent: false,
  };
  return await new Promise((resolve) => {
    const asking = request(options, (response) => {
      let body = '';
      response.on('data', (chunk) => (body += String(chunk)));
      response.on('error', () => resolve(false));
      response.on('end', () => resolve(response.statusCode === 200 && body.includes('"true"')));
    });
    const end = setTimeout(() => asking.destroy(), 3000);
    asking.on('timeout', () => asking.destroy());
    asking.on('error', () => resolve(false));
    asking.on('close', () => {
      clearTimeout(end);
      resolve(false);
    });
    asking.end();
  });
}

/** Hosts whose controller takes no connection. */
export async function silentControllers(plan: LabPlan): Promise<string[]> {
  const asked = plan.voters.map(
    async (host) =>
      await new Promise<string[]>((resolve) => {
        const socket = connect({ host: host.management, port: CONTROLLER_PORT, timeout: 1000 });
        const answer = (silent: boolean): void => {
          socket.destroy();
          resolve(silent ? [host.name] : []);
        };
        socket.on('connect', () => answer(false));
        socket.on('timeout', () => answer(true));
        socket.on('error', () => answer(true));
      }),
  );
  return (await Promise.all(asked)).flat();
}
