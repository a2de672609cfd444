// SPDX-License-Identifier: Apache-2.0
import type { VmId } from '@busbar/core/ids';
import type { Topology } from '../capacity/topology.ts';
import type { GroupRule, GroupRuleKind, Vm } from '../model.ts';

/**
 * Who is in which group, and where. VMs whose rules name the same word and kind are in one group. Between two members the rule
 * is hard when either of them holds it hard: a member that insists is not broken by one that comes later and does not.
 */
export class Groups {
  readonly #topology: Topology;
  readonly #members = new Map<string, Map<VmId, Membership>>();
  /** Numbers for the words of each domain, by host: -1 for none. Hosts with the same number fail together. */
  readonly #powerFeed: Int32Array;
  readonly #ringSegment: Int32Array;

  constructor(topology: Topology) {
    this.#topology = topology;
    this.#powerFeed = numbered(topology.hosts.map(({ domains }) => domains.powerFeed));
    this.#ringSegment = numbered(topology.hosts.map(({ domains }) => domains.ringSegment));
  }

  add(vm: Vm, host: number): void {
    for (const rule of vm.rules) {
      const key = keyOf(rule);
      const members = this.#members.get(key) ?? new Map<VmId, Membership>();
      members.set(vm.id, { host, soft: rule.soft && members.get(vm.id)?.soft !== false });
      this.#members.set(key, members);
    }
  }

  remove(vm: Vm): void {
    for (const rule of vm.rules) {
      const members = this.#members.get(keyOf(rule));
      members?.delete(vm.id);
      if (members?.size === 0) this.#members.delete(keyOf(rule));
    }
  }

  /** The other members to which the rule binds hard, and their hosts. */
  others(vm: Vm, rule: GroupRule): readonly (readonly [VmId, number])[] {
    return [...(this.#members.get(keyOf(rule)) ?? [])].flatMap(([id, { host, soft }]) =>
      id === vm.id || (rule.soft && soft) ? [] : [[id, host] as const],
    );
  }

  /**
   * Hosts that the rule forbids, or for "together" the only ones that it allows; null when it says nothing. `soft`: as far as
   * it binds softly, else as far as it binds hard. `hostOf` may say that a member is elsewhere than it is now (after a failure),
   * or nowhere (-1).
   */
  ruling(vm: Vm, rule: GroupRule, soft: boolean, hostOf?: (id: VmId, host: number) => number): Ruling | null {
    const members = this.#members.get(keyOf(rule));
    if (members === undefined) return null;
    const hosts: number[] = [];
    for (const [id, { host: at, soft: softly }] of members) {
      if (id === vm.id || (rule.soft && softly) !== soft) continue;
      const host = hostOf === undefined ? at : hostOf(id, at);
      if (host >= 0) hosts.push(host);
    }
    return hosts.length === 0 ? null : { kind: rule.kind, hosts };
  }

  /** Whether a VM may be on the host, as far as one rule goes. */
  allows({ kind, hosts }: Ruling, host: number): boolean {
    if (kind === 'together') return hosts.includes(host);
    for (const other of hosts)
      if (other === host || (kind === 'pair' && this.sharedDomain(other, host) !== null)) return false;
    return true;
  }

  /** What two hosts have in common that a redundant pair must not. */
  sharedDomain(a: number, b: number): 'powerFeed' | 'ringSegment' | null {
    if ((this.#powerFeed[a] ?? -1) >= 0 && this.#powerFeed[a] === this.#powerFeed[b]) return 'powerFeed';
    if ((this.#ringSegment[a] ?? -1) >= 0 && this.#ringSegment[a] === this.#ringSegment[b]) return 'ringSegment';
    return null;
  }

  hostName(host: number): string {
    return this.#topology.hosts[host]?.id ?? '';
  }
}

interface Membership {
  readonly host: number;
  readonly soft: boolean;
}

export interface Ruling {
  readonly kind: GroupRuleKind;
  readonly hosts: readonly number[];
}

const keyOf = (rule: GroupRule) => `${rule.kind} ${rule.group}`;

function numbered(words: readonly string[]): Int32Array {
  const numbers = new Map<string, number>();
  return Int32Array.from(words, (word) => {
    if (word === '') return -1;
    const known = numbers.get(word) ?? numbers.size;
    numbers.set(word, known);
    return known;
  });
}
