// SPDX-License-Identifier: Apache-2.0
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import {
  CreateNetworkRequest,
  CreateNetworkResponse,
  DeleteNetworkRequest,
  DeleteNetworkResponse,
  NetworkServiceDefinition,
} from '@busbar/proto/gen/busbar/v1/network';
import { type Command, Option } from 'commander';
import { changeOptions, examples, getOptions, labelOption, listOptions, parseLabels } from '../cli/options.ts';
import type { ChangeOptions, Session } from '../cli/session.ts';
import { intFlag, nameArgument } from '../cli/values.ts';
import { runChange } from '../operation/change.ts';
import { type ListOptions, runGet, runList } from '../resource/resource.ts';
import { networks } from './resource.ts';

interface CreateOptions extends ChangeOptions {
  readonly kind: 'linux' | 'ovs';
  readonly bridge: string;
  readonly vlan?: string;
  readonly trunk?: string;
  readonly label?: readonly string[];
}

export function define(noun: Command, session: Session): void {
  examples(noun, ['busbar network list', 'busbar network create plant --bridge br-vm']);
  examples(
    listOptions(noun.command('list').alias('ls').description('All networks and the hosts that have their bridge.')),
    ['busbar network list'],
  ).action((options: ListOptions) => runList(session, networks, {}, options));
  examples(getOptions(noun.command('get <network>').description('One network, by name or id.')), [
    'busbar network get plant -o yaml',
  ]).action((name: string, options: ListOptions) => runGet(session, networks, name, options));
  const create = noun
    .command('create <name>')
    .description('Makes a bridge that the hosts have known as a network. Nothing is changed on the hosts.')
    .requiredOption('--bridge <bridge>', 'name of the bridge on the hosts')
    .addOption(new Option('--kind <kind>', 'kind of the bridge').choices(['linux', 'ovs']).default('linux'))
    .addOption(new Option('--vlan <tag>', 'VLAN of the NICs, 1 to 4094; needs --kind ovs').conflicts('trunk'))
    .option('--trunk <tags>', 'the NICs are trunks of these VLANs, such as 10,20; needs --kind ovs and role admin');
  examples(changeOptions(labelOption(create), { waits: false }), [
    'busbar network create plant --bridge br-vm',
    'busbar network create control --bridge ovs0 --kind ovs --vlan 20',
    'busbar network create uplink --bridge ovs0 --kind ovs --trunk 10,20',
  ]).action((name: string, options: CreateOptions) => runCreate(session, name, options));
  const remove = noun.command('delete <network>').alias('rm').description('Deletes a network that no VM uses.');
  examples(changeOptions(remove, { revision: true, waits: false }), ['busbar network delete plant']).action(
    (name: string, options: ChangeOptions) => runDelete(session, name, options),
  );
}

function runCreate(session: Session, name: string, options: CreateOptions): Promise<void> {
  const request = CreateNetworkRequest.create({
    name: nameArgument(name),
    labels: parseLabels(options.label ?? []),
    spec: {
      kind: options.kind === 'ovs' ? BridgeKind.OPEN_VSWITCH : BridgeKind.LINUX,
      bridge: options.bridge,
      vlanTag: options.vlan === undefined ? 0 : intFlag('--vlan', options.vlan, 4094),
      trunkVlans:
        options.trunk === undefined ? [] : options.trunk.split(',').map((tag) => intFlag('--trunk', tag, 4094)),
    },
    validateOnly: options.dryRun === true,
    requestId: session.requestId(options),
  });
  return runChange(session, options, {
    doing: `create network ${name}`,
    target: `network/${name}`,
    done: 'created',
    message: CreateNetworkResponse,
    send: (api) =>
      api.call(NetworkServiceDefinition, (client, callOptions) => client.createNetwork(request, callOptions)),
  });
}

function runDelete(session: Session, network: string, options: ChangeOptions): Promise<void> {
  const request = DeleteNetworkRequest.create({
    network,
    revision: session.ifRevision(options),
    validateOnly: options.dryRun === true,
    requestId: session.requestId(options),
  });
  return runChange(session, options, {
    doing: `delete network ${network}`,
    target: `network/${network}`,
    done: 'deleted',
    message: DeleteNetworkResponse,
    send: (api) =>
      api.call(NetworkServiceDefinition, (client, callOptions) => client.deleteNetwork(request, callOptions)),
  });
}
