// SPDX-License-Identifier: Apache-2.0
// The files of one host as text: identity, libvirt, NATS, the two daemons of ours. Pure.
import { natsServerConfig } from '@busbar/controller/event/nats-server';
import { stringify } from 'yaml';
import {
  AGENT_METRICS_PORT,
  CONTROLLER_METRICS_PORT,
  CONTROLLER_PORT,
  EDGE_PORT,
  type HostPlan,
  type LabPlan,
} from './plan.ts';
import { CONTROLLER_USER, POOL } from './render-ceph.ts';

const PKI = '/etc/busbar/pki';
const SHARED_VOLUMES = '/var/lib/busbar/volumes';
export const ETCD_CLIENT_PORT = 2379;
export const ETCD_PEER_PORT = 2380;
export const NATS_PORT = 4222;
const NATS_ROUTE_PORT = 6222;

/** The member on the controller's own host comes first: it is the preferred one. */
export const etcdEndpoints = (plan: LabPlan, own: HostPlan): string[] =>
  plan.voters
    .toSorted((a, b) => Number(b.name === own.name) - Number(a.name === own.name))
    .map((host) => `https://${host.management}:${ETCD_CLIENT_PORT}`);

export const controllerEndpoints = (plan: LabPlan): { host: string; address: string }[] =>
  plan.voters.map((host) => ({ host: host.name, address: `${host.management}:${CONTROLLER_PORT}` }));

/** The one beside the controller first. */
const natsServers = (plan: LabPlan, own: HostPlan): string[] =>
  plan.hosts
    .toSorted((a, b) => Number(b.name === own.name) - Number(a.name === own.name))
    .map((host) => `tls://${host.management}:${NATS_PORT}`);

/** Management addresses: names are for people, libvirt and etcd, none of which belongs on the storage network. */
export function renderHosts(plan: LabPlan): string {
  return ['127.0.0.1 localhost', '::1 localhost', ...plan.hosts.map((host) => `${host.management} ${host.name}`)]
    .map((line) => `${line}\n`)
    .join('');
}

export function renderControllerYaml(plan: LabPlan, host: HostPlan): string {
  const etcd = { ca: `${PKI}/etcd-ca.crt`, certificate: `${PKI}/etcd-client.crt`, key: `${PKI}/etcd-client.key` };
  return stringify({
    cluster: plan.cluster,
    host: host.name,
    listen: `${host.management}:${CONTROLLER_PORT}`,
    edge: { listen: `${host.management}:${EDGE_PORT}` },
    tls: { ca: `${PKI}/ca.crt`, certificate: `${PKI}/controller.crt`, key: `${PKI}/controller.key` },
    etcd: {
      endpoints: etcdEndpoints(plan, host),
      tls: etcd,
      memberTls: { ca: `${PKI}/etcd-ca.crt`, certificate: `${PKI}/etcd.crt`, key: `${PKI}/etcd.key` },
      revocationsFile: `${PKI}/etcd-ca.crl`,
      ...(plan.spec.etcdQuotaMib === undefined ? {} : { quotaBytes: plan.spec.etcdQuotaMib * 1024 ** 2 }),
    },
    controllers: controllerEndpoints(plan),
    storage: plan.spec.ceph
      ? {
          driver: 'rbd',
          pool: POOL,
          cephConf: '/etc/ceph/ceph.conf',
          user: CONTROLLER_USER,
          keyring: `/etc/busbar/ceph/${CONTROLLER_USER}.keyring`,
          identities: 'vm',
        }
      : { driver: 'dir', path: SHARED_VOLUMES },
    sealKeyFile: `${PKI}/seal.key`,
    authoritiesFile: `${PKI}/authorities.sealed.json`,
    stateDir: '/var/lib/busbar/controller',
    metrics: { listen: `${host.management}:${CONTROLLER_METRICS_PORT}` },
    nats: { servers: natsServers(plan, host) },
  });
}

/** A witness runs no VMs: its agent knows neither libvirt nor storage, and refuses to be told of them. */
export function renderAgentYaml(plan: LabPlan, host: HostPlan): string {
  const storage = plan.spec.ceph
    ? {
        driver: 'rbd',
        pool: POOL,
        monitors: plan.voters.map((voter) => `${voter.storage}:3300`),
      }
    : { driver: 'dir', path: SHARED_VOLUMES };
  return stringify({
    cluster: plan.cluster,
    host: host.name,
    role: host.role,
    managementAddress: host.management,
    storageAddress: host.storage,
    controllers: controllerEndpoints(plan),
    tls: { ca: `${PKI}/ca.crt`, certificate: `${PKI}/agent.crt`, key: `${PKI}/agent.key` },
    ...(host.role === 'hypervisor' ? { libvirt: { uri: 'qemu:///system' }, storage } : {}),
    stateDir: '/var/lib/busbar/agent',
    metrics: { listen: `${host.management}:${AGENT_METRICS_PORT}` },
    runDir: '/run/busbar',
    logDir: '/var/log/busbar',
  });
}

export function renderNatsConf(plan: LabPlan, host: HostPlan): string {
  return natsServerConfig({
    cluster: plan.cluster,
    host: host.name,
    listen: `${host.management}:${NATS_PORT}`,
    tls: { ca: `${PKI}/ca.crt`, certificate: `${PKI}/nats.crt`, key: `${PKI}/nats.key` },
    controllers: plan.voters.map((voter) => voter.name),
    routes: {
      listen: `${host.management}:${NATS_ROUTE_PORT}`,
      peers: plan.hosts.filter((other) => other.name !== host.name).map((other) => `${other.name}:${NATS_ROUTE_PORT}`),
    },
  });
}

/** libvirtd: the local socket for the agent and nothing else. Whoever may speak to it is root on this host (ADR 0053). */
export function renderLibvirtdConf(hostUuid: string): string {
  return `unix_sock_group = "root"
unix_sock_rw_perms = "0700"
# Read-only is still every guest's name, disks and addresses; the default lets everybody on the host in.
unix_sock_ro_perms = "0700"
auth_unix_rw = "none"
listen_tls = 0
listen_tcp = 0
host_uuid = "${hostUuid}"
# An agent keeps several connections; a stuck one must not use up the pool.
max_clients = 200
max_workers = 30
min_workers = 5
`;
}

export function renderQemuConf(host: HostPlan): string {
  return `# A guest that breaks out of QEMU is a user who may read nothing but this VM's own files (libvirt hands them over one by
# one at each start) and use few system calls. No AppArmor or SELinux: the lab's kernel has neither.
user = "libvirt-qemu"
group = "kvm"
seccomp_sandbox = 1
clear_emulator_capabilities = 1
security_driver = "none"
# A private /dev for each QEMU would be a mount namespace in a mount namespace; the lab's kernel has no use for it.
namespaces = []
migration_address = "${host.management}"
`;
}
