// SPDX-License-Identifier: Apache-2.0
import {
  ListVmsRequest,
  RunPolicy,
  Vm,
  VmPhase,
  VmServiceDefinition,
  WatchVmsResponse,
} from '@busbar/proto/gen/busbar/v1/vm';
import { present } from '../operation/resource.ts';
import type { Colour } from '../output/table.ts';
import {
  ageColumn,
  enumColumn,
  flagColumn,
  metaColumns,
  nameColumn,
  numberColumn,
  sizeColumn,
} from '../resource/columns.ts';
import { PAGE_SIZE, type Resource } from '../resource/resource.ts';

export interface VmFilter {
  readonly host?: string;
}

const COLOURS: Partial<Record<VmPhase, Colour>> = {
  [VmPhase.RUNNING]: 'green',
  [VmPhase.STOPPED]: 'dim',
  [VmPhase.PENDING]: 'red',
  [VmPhase.PAUSED]: 'red',
  [VmPhase.UNKNOWN]: 'red',
  [VmPhase.CREATING]: 'yellow',
  [VmPhase.STARTING]: 'yellow',
  [VmPhase.STOPPING]: 'yellow',
  [VmPhase.DELETING]: 'yellow',
};

function message({ status }: Vm): string {
  const drift = status?.placementDrift ?? '';
  if (drift !== '') return `not placed as decided: ${drift}`;
  return status?.message || (status?.restartNeeded === true ? 'changed: restart needed' : '');
}

export const vms: Resource<Vm, VmFilter> = {
  singular: 'vm',
  plural: 'vms',
  message: 'busbar.v1.Vm',
  columns: [
    nameColumn(),
    enumColumn({
      header: 'PHASE',
      generated: VmPhase,
      prefix: 'VM_PHASE',
      of: (vm) => vm.status?.phase,
      colour: (vm) => COLOURS[vm.status?.phase ?? VmPhase.UNSPECIFIED],
    }),
    { header: 'HOST', value: (vm) => vm.status?.host ?? '' },
    numberColumn('VCPUS', (vm) => vm.spec?.cpu?.vcpus ?? 0),
    sizeColumn('MEMORY', (vm) => vm.spec?.memoryBytes ?? 0n),
    ageColumn((vm) => vm.meta?.createTime),
    enumColumn({
      header: 'WANTED',
      generated: RunPolicy,
      prefix: 'RUN_POLICY',
      of: (vm) => vm.spec?.runPolicy,
      wide: true,
    }),
    flagColumn('HA', (vm) => vm.spec?.ha?.enabled === true, true),
    numberColumn('DISKS', (vm) => vm.spec?.disks.length ?? 0, true),
    numberColumn('NICS', (vm) => vm.spec?.nics.length ?? 0, true),
    numberColumn('EPOCH', (vm) => vm.status?.epoch ?? 0n, true),
    {
      header: 'MESSAGE',
      value: message,
      shrinks: true,
    },
    ...metaColumns<Vm>(),
  ],
  id: (item) => item.meta?.id ?? '',
  name: (item) => item.meta?.name ?? '',
  toJson: (item) => Vm.toJSON(item),
  async list(api, pageToken, filter) {
    const request = ListVmsRequest.create({ pageSize: PAGE_SIZE, pageToken, host: filter.host ?? '' });
    const page = await api.call(VmServiceDefinition, (client, options) => client.listVms(request, options));
    return { items: page.vms, nextPageToken: page.nextPageToken, revision: page.revision };
  },
  async get(api, name) {
    const response = await api.call(VmServiceDefinition, (client, options) => client.getVm({ vm: name }, options));
    return present(response.vm, `vm ${name}`);
  },
  async watch(api, revision, options) {
    const { client, address, failed } = await api.open(VmServiceDefinition);
    return { address, failed, changes: changes(client.watchVms({ revision }, options)) };
  },
  matches: (vm, filter) => filter.host === undefined || vm.status?.host === filter.host,
};

async function* changes(stream: AsyncIterable<WatchVmsResponse>) {
  for await (const message of stream) {
    const { change, vm, progress } = message;
    yield { change, item: vm, progress: progress?.revision, json: WatchVmsResponse.toJSON(message) };
  }
}
