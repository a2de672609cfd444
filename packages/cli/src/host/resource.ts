// SPDX-License-Identifier: Apache-2.0
import {
  Host,
  HostRole,
  HostServiceDefinition,
  HostState,
  ListHostsRequest,
  WatchHostsResponse,
} from '@busbar/proto/gen/busbar/v1/host';
import { present } from '../operation/resource.ts';
import { formatBytes, formatEnum } from '../output/format.ts';
import type { Colour } from '../output/table.ts';
import { enumColumn, flagColumn, metaColumns, nameColumn, numberColumn, wordsOf } from '../resource/columns.ts';
import { PAGE_SIZE, type Resource } from '../resource/resource.ts';

const COLOURS: Partial<Record<HostState, Colour>> = {
  [HostState.READY]: 'green',
  [HostState.DEGRADED]: 'yellow',
  [HostState.UNKNOWN]: 'yellow',
  [HostState.UNREACHABLE]: 'red',
};

const STATES = wordsOf(HostState, 'HOST_STATE');

function states(host: Host): readonly string[] {
  const state = formatEnum(host.status?.state, 'HOST_STATE');
  return host.spec?.unschedulable === true ? [state, 'cordoned'] : [state];
}

/** Given to VMs / all there is. */
function memory(host: Host): string {
  return `${formatBytes(host.status?.allocatedMemoryBytes ?? 0n)}/${formatBytes(host.status?.inventory?.memoryBytes ?? 0n)}`;
}

export const hosts: Resource<Host> = {
  singular: 'host',
  plural: 'hosts',
  message: 'busbar.v1.Host',
  columns: [
    nameColumn(),
    {
      header: 'STATE',
      value: (host) => states(host).join(','),
      colour: (host) =>
        host.spec?.unschedulable === true ? 'yellow' : COLOURS[host.status?.state ?? HostState.UNSPECIFIED],
      measure: { kind: 'words', known: [...STATES, 'cordoned'], of: states },
    },
    enumColumn({ header: 'ROLE', generated: HostRole, prefix: 'HOST_ROLE', of: (host) => host.status?.role }),
    numberColumn('VMS', (host) => host.status?.runningVms ?? 0),
    {
      header: 'CPUS',
      value: (host) => `${host.status?.allocatedVcpus ?? 0}/${host.status?.inventory?.cpu?.onlineCpus ?? 0}`,
      right: true,
      measure: { kind: 'number', of: (host) => host.status?.allocatedVcpus ?? 0 },
    },
    {
      header: 'MEMORY',
      value: memory,
      right: true,
      measure: { kind: 'bytes', of: (host) => host.status?.allocatedMemoryBytes ?? 0n },
    },
    flagColumn('KVM', (host) => host.status?.inventory?.kvmUsable === true, true),
    numberColumn('NUMA', (host) => host.status?.inventory?.numaNodes.length ?? 0),
    { header: 'LIBVIRT', value: (host) => host.status?.inventory?.versions?.libvirt ?? '' },
    { header: 'QEMU', value: (host) => host.status?.inventory?.versions?.qemu ?? '' },
    { header: 'KERNEL', value: (host) => host.status?.inventory?.versions?.kernel ?? '', wide: true },
    { header: 'AGENT', value: (host) => host.status?.inventory?.versions?.agent ?? '' },
    { header: 'MESSAGE', value: (host) => host.status?.message ?? '', shrinks: true },
    ...metaColumns<Host>(),
  ],
  id: (item) => item.meta?.id ?? '',
  name: (item) => item.meta?.name ?? '',
  toJson: (item) => Host.toJSON(item),
  async list(api, pageToken) {
    const request = ListHostsRequest.create({ pageSize: PAGE_SIZE, pageToken });
    const page = await api.call(HostServiceDefinition, (client, options) => client.listHosts(request, options));
    return { items: page.hosts, nextPageToken: page.nextPageToken, revision: page.revision };
  },
  async get(api, name) {
    const response = await api.call(HostServiceDefinition, (client, options) =>
      client.getHost({ host: name }, options),
    );
    return present(response.host, `host ${name}`);
  },
  async watch(api, revision, options) {
    const { client, address, failed } = await api.open(HostServiceDefinition);
    return { address, failed, changes: changes(client.watchHosts({ revision }, options)) };
  },
};

async function* changes(stream: AsyncIterable<WatchHostsResponse>) {
  for await (const message of stream) {
    const { change, host, progress } = message;
    yield { change, item: host, progress: progress?.revision, json: WatchHostsResponse.toJSON(message) };
  }
}
