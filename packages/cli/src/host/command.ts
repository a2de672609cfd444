// SPDX-License-Identifier: Apache-2.0
import { HostServiceDefinition, UpdateHostRequest, UpdateHostResponse } from '@busbar/proto/gen/busbar/v1/host';
import type { Command } from 'commander';
import { usageError } from '../cli/exit.ts';
import { appendText, changeOptions, examples, getOptions, listOptions, parseLabels } from '../cli/options.ts';
import type { ChangeOptions, Session } from '../cli/session.ts';
import { runChange } from '../operation/change.ts';
import { type ListOptions, runGet, runList } from '../resource/resource.ts';
import type { JoinOptions } from './join.ts';
import type { RenewOptions } from './renew.ts';
import { hosts } from './resource.ts';
import type { SetOptions } from './set.ts';
import { defineToken } from './token.ts';

export function define(noun: Command, session: Session): void {
  examples(noun, ['busbar host list', 'busbar host cordon host2', 'busbar host label host2 rack=a3 old-']);
  examples(
    listOptions(noun.command('list').alias('ls').description('All hosts; CPUS and MEMORY are given to VMs / all.')),
    ['busbar host list', 'busbar host list -o json', 'busbar host list --watch'],
  ).action((options: ListOptions) => runList(session, hosts, {}, options));
  examples(getOptions(noun.command('get <host>').description('One host; -o yaml shows its hardware.')), [
    'busbar host get host1 -o yaml',
  ]).action((name: string, options: ListOptions) => runGet(session, hosts, name, options));
  examples(noun.command('numa <host>').description('Which CPU belongs to whom, drawn by NUMA node.'), [
    'busbar host numa host1',
    'busbar host numa host1 -o json',
  ]).action(async (name: string) => (await import('./numa.ts')).showNuma(session, name));
  const join = noun
    .command('join')
    .description('Makes this host one of a cluster: redeems a token for its certificates.')
    .requiredOption('--token-file <file>', 'file with the token; - is stdin')
    .option('--management-address <ip>', "address on the management network (default: the token's first)")
    .option('--storage-address <ip>', "address on the storage network (default: the token's second, if it has one)")
    .requiredOption('--dir <directory>', 'where to write; must be new or empty');
  examples(join, ['busbar host join --token-file - --dir /etc/busbar < host4.token']).action(
    async (options: JoinOptions) => (await import('./join.ts')).join(session, options),
  );
  const renew = noun
    .command('renew')
    .description('Renews certificates of this host of which less than a third is left.')
    .option('--dir <directory>', 'what init or join wrote', '/etc/busbar')
    .option('--now', 'all of them, however young');
  examples(renew, ['busbar host renew', 'busbar host renew --now --dir /etc/busbar']).action(
    async (options: RenewOptions) => (await import('./renew.ts')).renewHost(session, options),
  );
  defineToken(noun, session);
  const update = (name: string) => changeOptions(noun.command(name), { revision: true, waits: false });
  examples(update('label <host> <labels...>').description('Sets labels (key=value) and removes them (key-).'), [
    'busbar host label host2 rack=a3',
    'busbar host label host2 rack-',
  ]).action((host: string, labels: string[], options: ChangeOptions) => label(session, host, labels, options));
  const set = update('set <host>')
    .description('Sets what VMs never get, what fails together, and which devices VMs may get.')
    .option('--reserved-cpus <list>', 'CPUs that VMs never get, e.g. 0-1,8; none for none')
    .option('--reserved-memory <size>', "memory that VMs never get; none for the cluster's setting")
    .option('--rack <word>', 'rack or cabinet; none when not known')
    .option('--power-feed <word>', 'power feed or UPS; none when not known')
    .option('--ring-segment <word>', 'segment of the network ring; none when not known')
    .option('--device-class <name=devices>', 'addresses or vendor:product; none removes it (repeatable)', appendText);
  examples(set, [
    'busbar host set host2 --reserved-cpus 0-1 --reserved-memory 6GiB',
    'busbar host set host2 --rack a3 --power-feed ups-1',
    'busbar host set host2 --device-class process-bus-nic=0000:3b:00.1,8086:1521',
  ]).action(async (host: string, options: SetOptions) => (await import('./set.ts')).setHost(session, host, options));
  for (const verb of ['cordon', 'uncordon'] as const) {
    const text = verb === 'cordon' ? 'Keeps new VMs away; running ones stay.' : 'Lets new VMs in again.';
    examples(update(`${verb} <host>`).description(text), [`busbar host ${verb} host2`]).action(
      (host: string, options: ChangeOptions) => cordon(session, host, verb === 'cordon', options),
    );
  }
}

async function label(session: Session, host: string, words: readonly string[], options: ChangeOptions): Promise<void> {
  const removed = words.filter((word) => /^[^=]+-$/.test(word)).map((word) => word.slice(0, -1));
  const added = parseLabels(words.filter((word) => !/^[^=]+-$/.test(word)));
  const both = removed.filter((key) => Object.hasOwn(added, key));
  if (both.length > 0)
    throw usageError(`label ${both.join(', ')} is set and removed`, 'only one can be meant', 'leave one out');
  await runChange(session, options, {
    doing: `label host ${host}`,
    target: `host/${host}`,
    done: 'labelled',
    message: UpdateHostResponse,
    async send(api) {
      const before = await hosts.get(api, host);
      const labels = { ...before.meta?.labels, ...added };
      for (const key of removed) delete labels[key];
      const request = UpdateHostRequest.create({
        host,
        labels,
        updateMask: ['labels'],
        // The labels are replaced as a whole: without this, one set by somebody else meanwhile would vanish.
        revision: session.ifRevision(options) || (before.meta?.revision ?? 0n),
        validateOnly: options.dryRun === true,
        requestId: session.requestId(options),
      });
      return api.call(HostServiceDefinition, (client, callOptions) => client.updateHost(request, callOptions));
    },
  });
}

function cordon(session: Session, host: string, unschedulable: boolean, options: ChangeOptions): Promise<void> {
  const request = UpdateHostRequest.create({
    host,
    spec: { unschedulable },
    updateMask: ['spec.unschedulable'],
    revision: session.ifRevision(options),
    validateOnly: options.dryRun === true,
    requestId: session.requestId(options),
  });
  return runChange(session, options, {
    doing: `${unschedulable ? 'cordon' : 'uncordon'} host ${host}`,
    target: `host/${host}`,
    done: unschedulable ? 'cordoned' : 'uncordoned',
    message: UpdateHostResponse,
    send: (api) => api.call(HostServiceDefinition, (client, callOptions) => client.updateHost(request, callOptions)),
  });
}
