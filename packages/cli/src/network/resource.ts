// SPDX-License-Identifier: Apache-2.0
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import {
  ListNetworksRequest,
  Network,
  NetworkServiceDefinition,
  WatchNetworksResponse,
} from '@busbar/proto/gen/busbar/v1/network';
import { present } from '../operation/resource.ts';
import { ageColumn, enumColumn, metaColumns, nameColumn } from '../resource/columns.ts';
import { PAGE_SIZE, type Resource } from '../resource/resource.ts';

/** "20", or "trunk 10,20"; empty for the VLAN without a tag. */
function vlansOf({ spec }: Network): string {
  if (spec === undefined) return '';
  if (spec.trunkVlans.length > 0) return `trunk ${spec.trunkVlans.join(',')}`;
  return spec.vlanTag === 0 ? '' : String(spec.vlanTag);
}

export const networks: Resource<Network> = {
  singular: 'network',
  plural: 'networks',
  message: 'busbar.v1.Network',
  columns: [
    nameColumn(),
    enumColumn({ header: 'KIND', generated: BridgeKind, prefix: 'BRIDGE_KIND', of: (network) => network.spec?.kind }),
    { header: 'BRIDGE', value: (network) => network.spec?.bridge ?? '' },
    {
      header: 'VLAN',
      value: (network) => vlansOf(network),
      right: true,
      measure: { kind: 'number', of: (network) => network.spec?.vlanTag ?? 0 },
    },
    ageColumn((network) => network.meta?.createTime),
    { header: 'HOSTS', value: (network) => network.status?.hosts.join(',') ?? '', shrinks: true },
    ...metaColumns<Network>(),
  ],
  id: (item) => item.meta?.id ?? '',
  name: (item) => item.meta?.name ?? '',
  toJson: (item) => Network.toJSON(item),
  async list(api, pageToken) {
    const request = ListNetworksRequest.create({ pageSize: PAGE_SIZE, pageToken });
    const page = await api.call(NetworkServiceDefinition, (client, options) => client.listNetworks(request, options));
    return { items: page.networks, nextPageToken: page.nextPageToken, revision: page.revision };
  },
  async get(api, name) {
    const response = await api.call(NetworkServiceDefinition, (client, options) =>
      client.getNetwork({ network: name }, options),
    );
    return present(response.network, `network ${name}`);
  },
  async watch(api, revision, options) {
    const { client, address, failed } = await api.open(NetworkServiceDefinition);
    return { address, failed, changes: changes(client.watchNetworks({ revision }, options)) };
  },
};

async function* changes(stream: AsyncIterable<WatchNetworksResponse>) {
  for await (const message of stream) {
    const { change, network, progress } = message;
    yield { change, item: network, progress: progress?.revision, json: WatchNetworksResponse.toJSON(message) };
  }
}
