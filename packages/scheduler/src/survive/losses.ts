// SPDX-License-Identifier: Apache-2.0
import { DOMAIN_KEYS, type Host, type SurvivePolicy } from '../model.ts';

/** Hosts that may fail together. */
export interface Loss {
  /** For people: "host1", or "powerFeed A (host1, host2)". */
  readonly name: string;
  /** Numbers of hosts, ascending. */
  readonly hosts: readonly number[];
}

/** What the policy says must be survived. A domain that holds every host is no loss to survive: nothing would be left. */
export function lossesOf(hosts: readonly Host[], survive: SurvivePolicy): readonly Loss[] {
  if (survive === 'off') return [];
  const losses = new Map<string, Loss>();
  const add = (loss: Loss) => {
    const key = loss.hosts.join(' ');
    if (loss.hosts.length < hosts.length && !losses.has(key)) losses.set(key, loss);
  };
  for (const [h, { id }] of hosts.entries()) add({ name: id, hosts: [h] });
  if (survive === 'any-one-failure-domain') {
    for (const key of DOMAIN_KEYS) {
      const members = Map.groupBy(hosts.keys(), (h) => hosts[h]?.domains[key] ?? '');
      for (const [word, numbers] of members) {
        if (word === '') continue;
        const names = numbers.map((h) => hosts[h]?.id ?? '');
        add({ name: `${key} ${word} (${names.join(', ')})`, hosts: numbers });
      }
    }
  }
  return [...losses.values()];
}
