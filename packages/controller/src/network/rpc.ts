// SPDX-License-Identifier: Apache-2.0

import { BusbarError } from '@busbar/core/errors';
import type { NetworkRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { ChangeKind } from '@busbar/proto/gen/busbar/v1/common';
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import type { WatchNetworksResponse } from '@busbar/proto/gen/busbar/v1/network';
import {
  CreateNetworkRequest,
  DeleteNetworkRequest,
  type Network,
  type NetworkServiceDefinition,
  UpdateNetworkRequest,
} from '@busbar/proto/gen/busbar/v1/network';
import { z } from 'zod';
import type { Api, Caller } from '../api/call.ts';
import { contentOf, mutate, type Plan } from '../api/mutate.ts';
import { page, pageFields } from '../api/pages.ts';
import { assertAdministers, assertRevision, find, nameTaken } from '../api/refusals.ts';
import type { Service } from '../api/service.ts';
import { sharedMessages } from '../api/shared-messages.ts';
import { labels, name, reference, requestId, revision } from '../api/validation.ts';
import { watchTable } from '../api/watch.ts';
import { list, word } from '../bounds/schema.ts';
import { deleteRecord, guardKey, nameKey, putRecord } from '../records/kinds.ts';
import type { KeyValue } from '../store/cluster-store.ts';
import { absent, unchanged } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';
import { presentMeta } from '../vm/present.ts';
import { hostsOnBridge } from './segments.ts';

const flags = { validateOnly: z.boolean(), requestId };

const VLAN_RULE = '1 to 4094';
/** More tags than a guest has interfaces for. */
const TRUNK_MAX = 64;
const TRUNK_RULE = `at most ${TRUNK_MAX} different VLANs`;
const vlan = z.number(VLAN_RULE).int(VLAN_RULE).min(1, VLAN_RULE).max(4094, VLAN_RULE);
const trunkVlans = list(vlan, 0, TRUNK_MAX, TRUNK_RULE).refine((all) => new Set(all).size === all.length, TRUNK_RULE);

const BRIDGE_RULE = "1 to 15 letters, digits, '-', '_', '.'";
const spec = z
  .object(
    {
      kind: z.enum([BridgeKind.LINUX, BridgeKind.OPEN_VSWITCH], 'BRIDGE_KIND_LINUX or BRIDGE_KIND_OPEN_VSWITCH'),
      // IFNAMSIZ - 1 in the kernel; the characters are those every tool takes without quoting.
      bridge: word(15, /^[A-Za-z0-9][-A-Za-z0-9_.]*$/, BRIDGE_RULE),
      vlanTag: z.number().int('0 to 4094').min(0, '0 to 4094').max(4094, '0 to 4094'),
      trunkVlans,
    },
    'the network: {kind: …, bridge: …}',
  )
  .refine((value) => value.vlanTag === 0 || value.kind === BridgeKind.OPEN_VSWITCH, {
    path: ['vlanTag'],
    message: '0 on a Linux bridge (a VLAN tag needs kind OPEN_VSWITCH)',
  })
  .refine((value) => value.trunkVlans.length === 0 || value.kind === BridgeKind.OPEN_VSWITCH, {
    path: ['trunkVlans'],
    message: 'nothing on a Linux bridge (a trunk needs kind OPEN_VSWITCH)',
  })
  .refine((value) => value.trunkVlans.length === 0 || value.vlanTag === 0, {
    path: ['vlanTag'],
    message: '0 beside trunkVlans: a NIC is an access port or a trunk',
  });

export function presentNetwork(id: string, view: ClusterView): Network | null {
  const entry = view.tables.network.get(id);
  if (entry === undefined) return null;
  return present(entry.record, entry.modRevision, view);
}

function present(record: NetworkRecord, modRevision: bigint, view: ClusterView): Network {
  const hosts = view.tables['host-status']
    .sorted()
    .filter((host) =>
      host.record.inventory?.bridges.some((b) => b.name === record.spec?.bridge && b.kind === record.spec?.kind),
    )
    .map((host) => host.id);
  return { meta: presentMeta(record.meta, modRevision), spec: record.spec, status: { hosts } };
}

export function networkService(api: Api): Service<typeof NetworkServiceDefinition> {
  const shared = sharedMessages<WatchNetworksResponse>();
  return {
    createNetwork: {
      access: 'write',
      schema: z.object({ name, labels, spec, ...flags }),
      handle: (request, call) =>
        mutate(api, call, {
          method: 'CreateNetwork',
          content: contentOf(CreateNetworkRequest, request),
          requestId: request.requestId,
          validateOnly: request.validateOnly,
          plan: () => planCreate(api, request, call.caller),
          preview: (plan) => ({ network: present(plan.extra, 0n, api.view) }),
          respond: (ids) => ({ network: presentNetwork(ids.resourceId, api.view) ?? undefined }),
        }),
    },
    getNetwork: {
      access: 'read',
      schema: z.object({ network: reference }),
      async handle(request) {
        await api.view.fresh();
        return { network: presentNetwork(find(api.view.tables.network, request.network).id, api.view) ?? undefined };
      },
    },
    listNetworks: {
      access: 'read',
      schema: z.object(pageFields),
      async handle(request) {
        const revisionNow = await api.view.fresh();
        const { items, nextPageToken } = page(
          api.view.tables.network.sorted(),
          (entry) => entry.record.meta?.name ?? '',
          request,
        );
        return {
          networks: items.flatMap((entry) => presentNetwork(entry.id, api.view) ?? []),
          nextPageToken,
          revision: revisionNow,
        };
      },
    },
    updateNetwork: {
      access: 'write',
      schema: z.object({ network: reference, labels, revision, ...flags }),
      handle: (request, call) =>
        mutate(api, call, {
          method: 'UpdateNetwork',
          content: contentOf(UpdateNetworkRequest, request),
          requestId: request.requestId,
          validateOnly: request.validateOnly,
          plan: () => planUpdate(api, request),
          preview: (plan) => ({ network: present(plan.extra, 0n, api.view) }),
          respond: (ids) => ({ network: presentNetwork(ids.resourceId, api.view) ?? undefined }),
        }),
    },
    deleteNetwork: {
      access: 'write',
      schema: z.object({ network: reference, revision, ...flags }),
      async handle(request, call) {
        await api.view.fresh();
        const known = api.view.tables.network.find(request.network);
        let guard: KeyValue | null = null;
        if (known !== undefined) {
          // A VM that takes the network after this read rewrites the guard; the view must show those that took it before.
          const read = await api.store.get(guardKey('network', known.id));
          guard = read.value;
          await api.view.waitFor(read.revision);
        }
        return mutate(api, call, {
          method: 'DeleteNetwork',
          content: contentOf(DeleteNetworkRequest, request),
          requestId: request.requestId,
          validateOnly: request.validateOnly,
          plan: () => planDelete(api, request, guard),
          preview: () => ({}),
          respond: () => ({}),
        });
      },
    },
    watchNetworks: {
      access: 'read',
      place: 'watch',
      schema: z.object({ revision }),
      handle: (request, call) =>
        watchTable<Network, WatchNetworksResponse>(api, call, request.revision, {
          kinds: ['network'],
          ids: () => api.view.tables.network.ids(),
          present: (id) => presentNetwork(id, api.view),
          put: (network) => ({ change: ChangeKind.PUT, network }),
          gone: (id, goneName) => ({
            change: ChangeKind.DELETE,
            network: {
              meta: { ...presentMeta(undefined, 0n), id, name: goneName },
              spec: undefined,
              status: undefined,
            },
          }),
          mark: (change, progress) => ({ change, network: undefined, progress }),
          shared,
        }),
    },
  };
}

function planCreate(api: Api, request: CreateNetworkRequest, caller: Caller): Plan<NetworkRecord> {
  const { bridge = '', trunkVlans: trunk = [] } = request.spec ?? {};
  const hosts = hostsOnBridge(api.view, bridge);
  const segment = `bridge "${bridge}", over which ${hosts.slice(0, 5).join(', ')} ${hosts.length === 1 ? 'is' : 'are'} reached`;
  const ofAdmin = [
    ...(hosts.length === 0 ? [] : [segment]),
    ...(trunk.length === 0 ? [] : [`a trunk of VLANs ${trunk.join(', ')}`]),
  ];
  assertAdministers(caller, 'CreateNetwork', ofAdmin);
  if (api.view.tables.network.find(request.name) !== undefined) throw nameTaken('network', request.name);
  const id = api.random.uuid();
  const now = api.clock.wallTime();
  const record: NetworkRecord = {
    meta: { id, name: request.name, labels: request.labels, createTime: now, updateTime: now, deleting: false },
    spec: request.spec,
  };
  return {
    compare: [absent(nameKey('network', request.name))],
    writes: [putRecord('network', id, record), { kind: 'put', key: nameKey('network', request.name), value: id }],
    ids: { operationId: '', resourceId: id },
    extra: record,
  };
}

function planUpdate(api: Api, request: UpdateNetworkRequest): Plan<NetworkRecord> {
  const entry = find(api.view.tables.network, request.network);
  const { meta } = entry.record;
  assertRevision('network', meta?.name ?? '', entry, request.revision);
  const next: NetworkRecord = {
    ...entry.record,
    meta: meta === undefined ? undefined : { ...meta, labels: request.labels, updateTime: api.clock.wallTime() },
  };
  return {
    compare: [unchanged('network', entry)],
    writes: [putRecord('network', entry.id, next)],
    ids: { operationId: '', resourceId: entry.id },
    extra: next,
  };
}

function planDelete(api: Api, request: DeleteNetworkRequest, guard: KeyValue | null): Plan<null> {
  const entry = find(api.view.tables.network, request.network);
  const networkName = entry.record.meta?.name ?? '';
  assertRevision('network', networkName, entry, request.revision);
  const users = api.view.tables.vm
    .sorted()
    .filter((vm) => vm.record.spec?.nics.some((nic) => nic.network === entry.id))
    .map((vm) => vm.record.meta?.name ?? vm.id);
  if (users.length > 0) {
    throw new BusbarError({
      kind: 'precondition',
      reason: 'NETWORK_IN_USE',
      message: `network "${networkName}" is used by ${users.slice(0, 5).join(', ')}${users.length > 5 ? ` and ${users.length - 5} more` : ''}`,
      hint: 'delete these VMs or plug them into another network first',
    });
  }
  const guarded = guardKey('network', entry.id);
  return {
    compare: [
      unchanged('network', entry),
      guard === null ? absent(guarded) : { target: 'mod', key: guarded, revision: guard.modRevision },
    ],
    writes: [
      deleteRecord('network', entry.id),
      { kind: 'delete', key: nameKey('network', networkName) },
      { kind: 'delete', key: guarded },
    ],
    ids: { operationId: '', resourceId: entry.id },
    extra: null,
  };
}
