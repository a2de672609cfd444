// SPDX-License-Identifier: Apache-2.0
/** The configuration of a host's daemons, as far as the cluster's certificates determine it. Pure. */
import { join } from 'node:path';
import {
  AUTHORITIES_FILE,
  below,
  ETCD_REVOCATIONS_FILE,
  type NewFile,
  PKI_FILES,
  pkiFiles,
  SEAL_KEY_FILE,
} from '@busbar/pki/files';
import type { HostCredentials } from '@busbar/pki/found';
import { stringify } from 'yaml';

export interface HostSetup {
  readonly cluster: string;
  readonly host: string;
  readonly hypervisor: boolean;
  readonly voter: boolean;
  readonly managementAddress: string;
  readonly storageAddress: string;
  readonly controllers: readonly { readonly host: string; readonly address: string }[];
  /** Of members that exist already; this host's own comes first by itself. */
  readonly etcdEndpoints: readonly string[];
  /** The cluster begins here: the controller takes the authorities over. */
  readonly first: boolean;
}

export const API_PORT = 7800;
const EDGE_PORT = 7801;
const CONTROLLER_METRICS_PORT = 7802;
const AGENT_METRICS_PORT = 7803;
const ETCD_PORT = 2379;
const STORAGE_OF_AGENT = `
# What is missing: where the disks of VMs are. One of
# storage: {driver: rbd, pool: POOL, monitors: [ADDRESS]}
# storage: {driver: dir, path: /srv/busbar}
`;
const STORAGE_OF_CONTROLLER = `
# What is missing: where the disks of VMs are. One of
# storage: {driver: rbd, pool: POOL, cephConf: /etc/ceph/ceph.conf, user: USER, keyring: /etc/busbar/ceph/USER.keyring, identities: vm}
# storage: {driver: dir, path: /srv/busbar}
`;

/** Everything that belongs below `directory` (usually /etc/busbar). */
export function hostTree(directory: string, setup: HostSetup, credentials: HostCredentials): readonly NewFile[] {
  const file = (path: string, content: string): NewFile => ({ path, content, secret: false });
  return [
    ...below('pki', pkiFiles(credentials)),
    file('agent.yaml', agentYaml(directory, setup)),
    ...(setup.voter ? [file('controller.yaml', controllerYaml(directory, setup))] : []),
  ];
}

function agentYaml(directory: string, setup: HostSetup): string {
  const { cluster, host, managementAddress, storageAddress, controllers } = setup;
  const text = stringify({
    cluster,
    host,
    role: setup.hypervisor ? 'hypervisor' : 'witness',
    managementAddress,
    storageAddress,
    controllers,
    tls: tlsOf(directory, 'agent', 'ca.crt'),
    ...(setup.hypervisor ? { libvirt: { uri: 'qemu:///system' } } : {}),
    metrics: { listen: `${bracketed(managementAddress)}:${AGENT_METRICS_PORT}` },
    stateDir: '/var/lib/busbar/agent',
    runDir: '/run/busbar',
    logDir: '/var/log/busbar',
  });
  return setup.hypervisor ? text + STORAGE_OF_AGENT : text;
}

function controllerYaml(directory: string, setup: HostSetup): string {
  const { cluster, host, managementAddress, controllers } = setup;
  const pki = (name: string) => join(directory, 'pki', name);
  const own = `https://${bracketed(managementAddress)}:${ETCD_PORT}`;
  const text = stringify({
    cluster,
    host,
    listen: `${bracketed(managementAddress)}:${API_PORT}`,
    edge: { listen: `${bracketed(managementAddress)}:${EDGE_PORT}` },
    metrics: { listen: `${bracketed(managementAddress)}:${CONTROLLER_METRICS_PORT}` },
    tls: tlsOf(directory, 'controller', 'ca.crt'),
    etcd: {
      endpoints: [own, ...setup.etcdEndpoints.filter((endpoint) => endpoint !== own)],
      tls: tlsOf(directory, 'etcd-client', 'etcd-ca.crt'),
      memberTls: tlsOf(directory, 'etcd', 'etcd-ca.crt'),
      revocationsFile: pki(ETCD_REVOCATIONS_FILE),
    },
    controllers,
    sealKeyFile: pki(SEAL_KEY_FILE),
    ...(setup.first ? { authoritiesFile: pki(AUTHORITIES_FILE) } : {}),
    stateDir: '/var/lib/busbar/controller',
  });
  return text + STORAGE_OF_CONTROLLER;
}

function tlsOf(directory: string, purpose: keyof typeof PKI_FILES, ca: string) {
  const { certificate, key } = PKI_FILES[purpose];
  const pki = (name: string) => join(directory, 'pki', name);
  return { ca: pki(ca), certificate: pki(certificate), key: pki(key) };
}

/** The controllers with this one among them: a voter that is new is not in the cluster's list yet. */
export function withSelf(setup: Pick<HostSetup, 'controllers' | 'host' | 'voter' | 'managementAddress'>) {
  if (!setup.voter || setup.controllers.some((member) => member.host === setup.host)) return setup.controllers;
  return [...setup.controllers, { host: setup.host, address: `${bracketed(setup.managementAddress)}:${API_PORT}` }];
}

export function bracketed(address: string): string {
  return address.includes(':') ? `[${address}]` : address;
}
