// SPDX-License-Identifier: Apache-2.0
// The services of one host as runit run scripts. runsv restarts what dies after a second, as systemd units with
// Restart=always do in production. Pure.
import { switchServices } from './open-vswitch.ts';
import type { HostPlan, LabPlan } from './plan.ts';
import { ETCD_CLIENT_PORT, ETCD_PEER_PORT } from './render-host.ts';

export interface Service {
  readonly name: string;
  readonly run: string;
}

export interface Daemons {
  /** Node 24. */
  readonly node: string;
  readonly repository: string;
  /** Whether there is anything to start: the bundle or the source. */
  readonly controller: boolean;
  readonly agent: boolean;
}

/** Raised priority, as a production slice would have: a boot storm of guests must not cost leaderships, nor hosts their lease. */
const RAISED = ['nice', '-n', '-10'];
const PKI = '/etc/busbar/pki';

/** For /bin/sh: in single quotes nothing is special but the single quote. */
export function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

function script(argv: readonly string[], before: readonly string[] = []): string {
  return ['#!/bin/sh', 'exec 2>&1', ...before, `exec ${argv.map(quote).join(' ')}`, ''].join('\n');
}

export function renderServices(plan: LabPlan, host: HostPlan, daemons: Daemons): readonly Service[] {
  const services: Service[] = [];
  const add = (name: string, argv: readonly string[], before?: readonly string[]): void =>
    void services.push({ name, run: script(argv, before) });

  add('nats', ['nats-server', '--config', '/etc/busbar/nats.conf']);
  if (host.voter) {
    add('etcd', [...RAISED, ...etcd(plan, host)]);
    if (plan.spec.ceph) add('ceph-mon', [...RAISED, 'ceph-mon', '-f', '-i', host.name]);
  }
  if (host.mgr) add('ceph-mgr', ['ceph-mgr', '-f', '-i', host.name]);
  if (host.osd !== undefined) add('ceph-osd', ['ceph-osd', '-f', '-i', String(host.osd)]);
  if (host.role === 'hypervisor') {
    for (const service of switchServices()) add(service.name, service.argv, service.before);
    add('virtlogd', ['virtlogd']);
    add('libvirtd', ['libvirtd']);
  }
  if (host.voter && daemons.controller) services.push({ name: 'controller', run: daemon('controller', daemons) });
  if (daemons.agent) services.push({ name: 'agent', run: daemon('agent', daemons) });
  return services;
}

/** Always the sources, never a bundle that may be older than they are: `sv restart agent` is all it takes to try a change. */
function daemon(name: 'controller' | 'agent', daemons: Daemons): string {
  const entry = `${daemons.repository}/packages/${name}/src/main.ts`;
  return [
    '#!/bin/sh',
    'exec 2>&1',
    // Four blocking native calls would freeze file access and DNS with libuv's default of four threads.
    'export UV_THREADPOOL_SIZE=32',
    `exec ${[...RAISED, daemons.node, entry].map(quote).join(' ')} --config /etc/busbar/${name}.yaml`,
    '',
  ].join('\n');
}

function etcd(plan: LabPlan, host: HostPlan): string[] {
  const client = `https://${host.management}:${ETCD_CLIENT_PORT}`;
  const peer = (voter: HostPlan): string => `https://${voter.management}:${ETCD_PEER_PORT}`;
  const pairs: [string, string][] = [
    ['name', host.name],
    ['data-dir', '/var/lib/busbar/etcd'],
    ['listen-client-urls', `${client},https://127.0.0.1:${ETCD_CLIENT_PORT}`],
    ['advertise-client-urls', client],
    ['listen-peer-urls', peer(host)],
    ['initial-advertise-peer-urls', peer(host)],
    ['initial-cluster', plan.voters.map((voter) => `${voter.name}=${peer(voter)}`).join(',')],
    ['initial-cluster-token', `busbar-${plan.spec.fsid}`],
    ['initial-cluster-state', 'new'],
    // Three members, three OSDs and the guests share one disk here: a slow flush must not look like a dead leader.
    ['heartbeat-interval', '200'],
    ['election-timeout', '2000'],
    // Off by default in etcd 3.4: a member that was cut off comes back with a higher term and deposes a leader that works.
    ['pre-vote', 'true'],
    // The leading controller compacts long before; this is for a cluster that nobody leads.
    ['auto-compaction-mode', 'periodic'],
    ['auto-compaction-retention', '1h'],
    ...(plan.spec.etcdQuotaMib === undefined
      ? []
      : [['quota-backend-bytes', String(plan.spec.etcdQuotaMib * 1024 ** 2)] as [string, string]]),
    ['client-cert-auth', 'true'],
    ['trusted-ca-file', `${PKI}/etcd-ca.crt`],
    ['cert-file', `${PKI}/etcd.crt`],
    ['key-file', `${PKI}/etcd.key`],
    ['peer-client-cert-auth', 'true'],
    ['peer-trusted-ca-file', `${PKI}/etcd-ca.crt`],
    ['peer-cert-file', `${PKI}/etcd.crt`],
    ['peer-key-file', `${PKI}/etcd.key`],
    ['client-crl-file', `${PKI}/etcd-ca.crl`],
    ['peer-crl-file', `${PKI}/etcd-ca.crl`],
    ['logger', 'zap'],
    ['log-outputs', 'stderr'],
  ];
  return ['etcd', ...pairs.map(([key, value]) => `--${key}=${value}`)];
}

/** The log's own script and configuration: five files of 2 MB, so that a crash loop cannot fill a disk. */
export function renderLogRun(service: string): string {
  return script(['svlogd', '-tt', `/var/log/busbar/${service}`]);
}
export const LOG_CONFIG = 's2000000\nn5\n';
