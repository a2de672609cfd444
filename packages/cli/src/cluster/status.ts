// SPDX-License-Identifier: Apache-2.0
/** The cluster on one screen. Pure. */
import type { Cluster } from '@busbar/proto/gen/busbar/v1/cluster';
import { formatBytes, oneLine } from '../output/format.ts';
import { paint } from '../output/table.ts';

export function renderStatus(cluster: Cluster, colours: boolean): string {
  const health = (healthy: boolean | undefined, message: string | undefined) => {
    const text = healthy === true ? 'healthy' : 'UNHEALTHY';
    const painted = paint(text, colours ? (healthy === true ? 'green' : 'red') : undefined);
    return message === undefined || message === '' ? painted : `${painted}: ${oneLine(message)}`;
  };
  const { store, storage } = cluster;
  const space =
    storage === undefined || storage.totalBytes === 0n
      ? ''
      : `, ${formatBytes(storage.availableBytes)} of ${formatBytes(storage.totalBytes)} free`;
  const lines: (readonly [string, string])[] = [
    ['cluster', cluster.name],
    [
      'leader',
      cluster.leader === ''
        ? paint('none', colours ? 'red' : undefined)
        : `${cluster.leader} (term ${cluster.leaderTerm})`,
    ],
    ['store', health(store?.healthy, store?.message)],
    ['storage', `${health(storage?.healthy, storage?.message)} (${storage?.driver ?? 'none'}${space})`],
    ['hosts', counts(cluster.hostsByState)],
    ['vms', counts(cluster.vmsByPhase)],
    ['controllers', cluster.controllers.map(({ host, address }) => `${host} ${address}`).join(', ')],
    ['answered by', `${cluster.answeredBy}, version ${cluster.version}`],
  ];
  return `${lines.map(([name, value]) => `${`${name}:`.padEnd(14)}${value}`).join('\n')}\n`;
}

export function counts(by: Readonly<Record<string, number>>): string {
  const text = Object.entries(by).map(([state, count]) => `${count} ${state}`);
  return text.length === 0 ? 'none' : text.join(', ');
}
