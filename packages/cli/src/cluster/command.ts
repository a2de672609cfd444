// SPDX-License-Identifier: Apache-2.0
import { Cluster, ClusterServiceDefinition } from '@busbar/proto/gen/busbar/v1/cluster';
import type { Command } from 'commander';
import { appendText, examples } from '../cli/options.ts';
import type { Session } from '../cli/session.ts';
import { present } from '../operation/resource.ts';
import { hasColours, print, tableStyle } from '../output/print.ts';
import { type Column, renderTable } from '../output/table.ts';
import type { AdoptOptions } from './adopt.ts';
import type { InitOptions } from './init.ts';
import { counts, renderStatus } from './status.ts';

const columns: readonly Column<Cluster>[] = [
  { header: 'NAME', value: (cluster) => cluster.name },
  {
    header: 'LEADER',
    value: (cluster) => cluster.leader || 'none',
    colour: (cluster) => (cluster.leader === '' ? 'red' : undefined),
  },
  { header: 'ANSWERED BY', value: (cluster) => cluster.answeredBy },
  { header: 'STORE', value: (cluster) => (cluster.store?.healthy === true ? 'healthy' : 'UNHEALTHY') },
  { header: 'STORAGE', value: (cluster) => (cluster.storage?.healthy === true ? 'healthy' : 'UNHEALTHY') },
  { header: 'HOSTS', value: (cluster) => counts(cluster.hostsByState), shrinks: true },
  { header: 'VMS', value: (cluster) => counts(cluster.vmsByPhase), shrinks: true },
];

export function define(noun: Command, session: Session): void {
  defineAdopt(noun, session);
  examples(noun, ['busbar cluster status', 'busbar cluster get -o json']);
  const init = noun
    .command('init')
    .description('Makes a new cluster on its first host: authorities, keys, configuration, an admin.')
    .requiredOption('--name <name>', 'name of the cluster')
    .requiredOption('--host <host>', 'name of this host')
    .requiredOption('--management-address <ip>', 'address of this host on the management network')
    .option('--storage-address <ip>', 'address on the storage network (default: the management address)')
    .requiredOption('--dir <directory>', 'where to write; must be new or empty');
  examples(init, [
    'busbar cluster init --name plant7 --host host1 --management-address 10.0.0.1 --dir /etc/busbar',
  ]).action(async (options: InitOptions) => (await import('./init.ts')).init(session, options));
  examples(noun.command('status').description('Health of leader, store, storage, hosts and VMs, on one screen.'), [
    'busbar cluster status',
  ]).action(async () => {
    const cluster = await get(session);
    const colours = hasColours(session.io, session.io.stdout);
    await print(session, { json: () => Cluster.toJSON(cluster), table: () => renderStatus(cluster, colours) });
  });
  examples(noun.command('get').description('The cluster in one line.'), [
    'busbar cluster get',
    'busbar cluster get -o json',
  ]).action(async () => {
    const cluster = await get(session);
    await print(session, {
      json: () => Cluster.toJSON(cluster),
      table: () => renderTable(columns, [cluster], tableStyle(session)),
    });
  });
}

/** Repeatable words, e.g. --without host3 --without host4. */
function defineAdopt(noun: Command, session: Session): void {
  const adopt = noun
    .command('adopt')
    .description('After etcd was restored (alarm STORE_BEHIND): records what really runs, and lets VMs start again.')
    .option('--plan', 'show what would be recorded; change nothing')
    .option('--run', 'do it')
    .option('--without <host>', 'this silent host is off, or never reaches the storage again (repeatable)', appendText)
    .option('--keep <vm=host>', 'where a VM stays that runs on two hosts; ended elsewhere (repeatable)', appendText)
    .option('--no-wait', 'do not wait for the end; print the id of the operation')
    .option('--request-id <id>', 'the same id twice within an hour is done once');
  examples(adopt, [
    'busbar cluster adopt --plan',
    'busbar cluster adopt --run',
    'busbar cluster adopt --run --without host3 --keep scada-1=host2',
  ]).action(async (options: AdoptOptions) => (await import('./adopt.ts')).adopt(session, options));
}

async function get(session: Session): Promise<Cluster> {
  session.doing = 'get the state of the cluster';
  const api = await session.api();
  const { cluster } = await api.call(ClusterServiceDefinition, (client, options) => client.getCluster({}, options));
  return present(cluster, 'the cluster');
}
