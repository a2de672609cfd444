// SPDX-License-Identifier: Apache-2.0
// What a lab consists of, computed from its specification: hosts, addresses, names of links, who votes. Pure.

export type Role = 'hypervisor' | 'witness';
export type NetworkName = 'management' | 'storage' | 'vm';
/** Guests have two: the plain segment of br-vm, and the trunk of the Open vSwitch br-ovs, which carries VLAN tags. */
export type Cable = NetworkName | 'trunk';

/** Everything that a lab is derived from. Stored in lab.json; nothing else about a lab has to be remembered. */
export interface LabSpec {
  readonly name: string;
  /** Picks the subnets and the prefix of every link name; unique among the labs of a machine. */
  readonly index: number;
  readonly hosts: number;
  readonly witnesses: number;
  readonly ceph: boolean;
  readonly fsid: string;
  /** etcd's quota in MiB, for tests that fill it; etcd's default when not given. */
  readonly etcdQuotaMib?: number | undefined;
}

export interface HostPlan {
  readonly name: string;
  readonly role: Role;
  readonly management: string;
  readonly storage: string;
  /** Root-side ends of the cables; pulling these is what the rest of the lab sees of a power cut. */
  readonly links: Readonly<Record<Cable, string>>;
  readonly macs: Readonly<Record<Cable, string>>;
  /** Runs an etcd member, a Ceph monitor and a controller. */
  readonly voter: boolean;
  readonly mgr: boolean;
  readonly osd: number | undefined;
}

export interface LabPlan {
  readonly spec: LabSpec;
  /** The cluster's name in configuration and certificate identities: the lab's, so that certificates of one lab are nobody in another. */
  readonly cluster: string;
  readonly hosts: readonly HostPlan[];
  readonly voters: readonly HostPlan[];
  readonly bridges: Readonly<
    Record<Cable, { readonly name: string; readonly address: string | undefined; readonly mac: string }>
  >;
  readonly storageSubnet: string;
  readonly managementSubnet: string;
}

export const CONTROLLER_PORT = 7800;
export const CONTROLLER_METRICS_PORT = 7802;
export const AGENT_METRICS_PORT = 7803;
/** The same API as JSON over HTTPS. */
export const EDGE_PORT = 7801;
/** Subnet pairs 10.77.(2k) and 10.77.(2k+1) run out after this one. */
export const MAX_INDEX = 126;
/** Host i has address .1i, witness i .2i. */
export const MAX_HOSTS = 9;
/** More than five voters cost latency and tolerate nothing that a plant would plan for. */
const MAX_VOTERS = 5;

/** Labs that tests make and take down, without asking whose they are. */
export const TEST_LAB_PREFIX = 'test-';

const LAB_NAME = /^[a-z][a-z0-9-]{0,15}$/;

export class SpecError extends Error {
  override readonly name = 'SpecError';
}

export function checkLabName(name: string): void {
  if (!LAB_NAME.test(name) || name.endsWith('-')) {
    throw new SpecError(
      `"${name}" cannot be a lab's name: want a letter, then up to 15 of a-z 0-9 and -, not ending in -`,
    );
  }
}

export function checkSize(hosts: number, witnesses: number): void {
  const inRange = (n: number, low: number): boolean => Number.isInteger(n) && n >= low && n <= MAX_HOSTS;
  if (!inRange(hosts, 1)) throw new SpecError(`hosts must be a whole number from 1 to ${MAX_HOSTS}, not ${hosts}`);
  if (!inRange(witnesses, 0))
    throw new SpecError(`witnesses must be a whole number from 0 to ${MAX_HOSTS}, not ${witnesses}`);
}

export function planLab(spec: LabSpec): LabPlan {
  checkLabName(spec.name);
  checkSize(spec.hosts, spec.witnesses);
  if (!Number.isInteger(spec.index) || spec.index < 0 || spec.index > MAX_INDEX)
    throw new SpecError(`no such lab index: ${spec.index}`);
  const names = [
    ...Array.from({ length: spec.hosts }, (_, i) => ({ role: 'hypervisor' as const, number: i + 1 })),
    ...Array.from({ length: spec.witnesses }, (_, i) => ({ role: 'witness' as const, number: i + 1 })),
  ];
  const voting = voterNames(spec.hosts, spec.witnesses);
  const hosts = names.map(({ role, number }) => planHost(spec, role, number, voting));
  const bridge = (network: Cable, letter: string, address: string | undefined) => ({
    name: `bb${spec.index}${letter}`,
    address,
    mac: mac(spec.index, 'bridge', 0, network),
  });
  return {
    spec,
    cluster: spec.name,
    hosts,
    voters: hosts.filter((host) => host.voter),
    bridges: {
      management: bridge('management', 'm', `10.77.${2 * spec.index}.1`),
      storage: bridge('storage', 's', `10.77.${2 * spec.index + 1}.1`),
      vm: bridge('vm', 'v', `10.78.${spec.index}.1`),
      // Nothing of the machine speaks on it: the tags are between the hosts.
      trunk: bridge('trunk', 't', undefined),
    },
    managementSubnet: `10.77.${2 * spec.index}.0/24`,
    storageSubnet: `10.77.${2 * spec.index + 1}.0/24`,
  };
}

/**
 * An odd number of voters: an even one needs a larger majority and survives no further loss. Witnesses come first,
 * voting is all they are for.
 */
export function voterNames(hosts: number, witnesses: number): ReadonlySet<string> {
  const total = Math.min(hosts + witnesses, MAX_VOTERS);
  const odd = total % 2 === 1 ? total : total - 1;
  const candidates = [
    ...Array.from({ length: witnesses }, (_, i) => `witness${i + 1}`),
    ...Array.from({ length: hosts }, (_, i) => `host${i + 1}`),
  ];
  return new Set(candidates.slice(0, odd));
}

function planHost(spec: LabSpec, role: Role, number: number, voting: ReadonlySet<string>): HostPlan {
  const hypervisor = role === 'hypervisor';
  const name = `${hypervisor ? 'host' : 'witness'}${number}`;
  const last = (hypervisor ? 10 : 20) + number;
  const link = (letter: string): string => `bb${spec.index}${hypervisor ? 'h' : 'w'}${number}${letter}`;
  return {
    name,
    role,
    management: `10.77.${2 * spec.index}.${last}`,
    storage: `10.77.${2 * spec.index + 1}.${last}`,
    links: { management: link('m'), storage: link('s'), vm: link('v'), trunk: link('t') },
    macs: {
      management: mac(spec.index, role, number, 'management'),
      storage: mac(spec.index, role, number, 'storage'),
      vm: mac(spec.index, role, number, 'vm'),
      trunk: mac(spec.index, role, number, 'trunk'),
    },
    voter: voting.has(name),
    // Two managers, so that a lab that loses one still has one. A manager's key may make any other key of Ceph: it is a voter's.
    mgr: spec.ceph && [...voting].slice(0, 2).includes(name),
    osd: spec.ceph && hypervisor ? number - 1 : undefined,
  };
}

/** Fixed addresses: with a random one the peers of a revived host would keep sending to the card of its former life until ARP gives up. */
function mac(index: number, kind: Role | 'bridge', number: number, network: Cable): string {
  const kinds = { bridge: 0, hypervisor: 1, witness: 2 };
  const networks = { management: 1, storage: 2, vm: 3, trunk: 4 };
  const hex = (n: number): string => n.toString(16).padStart(2, '0');
  return ['02', 'bb', hex(index), hex(kinds[kind]), hex(number), hex(networks[network])].join(':');
}

/** Pool size and the number of copies that must be reachable for a write. */
export function replicas(plan: LabPlan): { readonly size: number; readonly minSize: number } {
  const osds = plan.hosts.filter((host) => host.osd !== undefined).length;
  const size = Math.max(1, Math.min(3, osds));
  return { size, minSize: size === 1 ? 1 : 2 };
}

export function findHost(plan: LabPlan, name: string): HostPlan {
  const host = plan.hosts.find((candidate) => candidate.name === name);
  if (host === undefined) {
    throw new SpecError(
      `lab "${plan.spec.name}" has no host "${name}": it has ${plan.hosts.map((h) => h.name).join(', ')}`,
    );
  }
  return host;
}
