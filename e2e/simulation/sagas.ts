// SPDX-License-Identifier: Apache-2.0

import { nameKey, putRecord, ROOT } from '@busbar/controller/records/kinds';
import type { ImageId } from '@busbar/core/ids';
import { seededRandom } from '@busbar/core/random';
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import { ImageFormat, ImagePhase } from '@busbar/proto/gen/busbar/v1/image';
import { CreateNetworkRequest } from '@busbar/proto/gen/busbar/v1/network';
import { CreateVmRequest, RunPolicy, VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import { CreateVolumeRequest } from '@busbar/proto/gen/busbar/v1/volume';
import type { StorageReason } from '@busbar/storage/errors';
import { type SimCall, simDriver } from '@busbar/storage/sim/driver';
import type { World } from './world.ts';

/** Every saga of the leader as a story for the simulated cluster: what is there before, and the call that starts it. */
export interface Story {
  readonly prepare: (world: World) => Promise<void>;
  readonly call: (world: World) => Promise<unknown>;
  /** What makes it turn around at its last step that can: the steps before are then undone. Absent: nothing is ever undone. */
  readonly spoiler?: 'cancel' | { readonly call: SimCall; readonly what: StorageReason };
}

const MIB = 1024n ** 2n;
const IMAGE = '6695eb01-f6a4-4304-89aa-97f2502e193f';
const flags = { validateOnly: false, requestId: '' };
const vm = { vm: 'relay-1', ...flags };

/** Through a controller that does not lead: the leader is about to die. */
export function ask<Response>(world: World, service: string, method: string, request: unknown): Promise<Response> {
  const through = world.liveControllers().find((name) => name !== world.leaderName()) ?? '';
  return world.settled(world.call<Response>(through, service, method, request), 20_000, method);
}

const operationsEnded = (world: World): boolean =>
  world.truth
    .list(`${ROOT}operation/`, Number.POSITIVE_INFINITY, undefined)
    .value.every(({ value }) => /"OPERATION_STATE_(SUCCEEDED|FAILED|CANCELLED)"/.test(value));

export const ended = (world: World, limitMs = 300_000): Promise<void> =>
  world.until(() => operationsEnded(world), limitMs, 'every operation to end');

async function withImage(world: World): Promise<void> {
  const driver = simDriver(world.pool, { clock: world.clock, random: seededRandom(1) });
  async function* source() {
    yield new Uint8Array(Number(MIB));
  }
  const signal = new AbortController().signal;
  const request = { imageId: IMAGE as ImageId, format: 'raw', sizeBytes: MIB, sha256: null } as const;
  await world.settled(driver.importImage({ ...request, source: source(), signal }), 20_000, 'the image');
  world.truth.txn({
    compare: [],
    writes: [
      putRecord('image', IMAGE, {
        meta: { id: IMAGE, name: 'debian', labels: {}, createTime: undefined, updateTime: undefined, deleting: false },
        spec: { format: ImageFormat.RAW, fileSizeBytes: MIB, sha256: '' },
        status: { phase: ImagePhase.READY, virtualSizeBytes: MIB, allocatedBytes: MIB, sha256: '' },
      }),
      { kind: 'put', key: nameKey('image', 'debian'), value: IMAGE },
    ],
  });
}

const vmRequest = (runPolicy: RunPolicy) =>
  CreateVmRequest.fromPartial({
    name: 'relay-1',
    spec: {
      runPolicy,
      cpu: { vcpus: 1 },
      memoryBytes: 256n * MIB,
      disks: [
        { name: 'boot', image: 'debian' },
        { name: 'data', sizeBytes: 64n * MIB },
      ],
      nics: [{ name: 'lan', network: 'plant' }],
    },
  });

async function withNetwork(world: World): Promise<void> {
  await withImage(world);
  const spec = { kind: BridgeKind.LINUX, bridge: 'br-vm' };
  await ask(world, 'NetworkService', 'createNetwork', CreateNetworkRequest.fromPartial({ name: 'plant', spec }));
}

async function withVm(world: World, runPolicy: RunPolicy = RunPolicy.RUNNING): Promise<void> {
  await withNetwork(world);
  await ask(world, 'VmService', 'createVm', vmRequest(runPolicy));
  await ended(world);
}

const volumeRequest = CreateVolumeRequest.fromPartial({ name: 'history', spec: { sizeBytes: 64n * MIB } });

async function withVolume(world: World): Promise<void> {
  await ask(world, 'VolumeService', 'createVolume', volumeRequest);
  await ended(world);
}

export const STORIES: Readonly<Record<string, Story>> = {
  'create-vm': {
    prepare: withNetwork,
    call: (world) => ask(world, 'VmService', 'createVm', vmRequest(RunPolicy.RUNNING)),
    spoiler: { call: 'createVolume', what: 'poolFull' },
  },
  'delete-vm': {
    prepare: withVm,
    call: (world) => ask(world, 'VmService', 'deleteVm', { ...vm, force: false, revision: 0n }),
    spoiler: 'cancel',
  },
  'start-vm': {
    prepare: (world) => withVm(world, RunPolicy.STOPPED),
    call: (world) => ask(world, 'VmService', 'startVm', vm),
  },
  'stop-vm': {
    prepare: withVm,
    call: (world) => ask(world, 'VmService', 'stopVm', { ...vm, force: false, timeoutMs: 0 }),
  },
  'restart-vm': { prepare: withVm, call: (world) => ask(world, 'VmService', 'restartVm', { ...vm, force: false }) },
  'create-volume': {
    prepare: async () => {},
    call: (world) => ask(world, 'VolumeService', 'createVolume', volumeRequest),
    spoiler: { call: 'createVolume', what: 'poolFull' },
  },
  'resize-volume': {
    prepare: withVolume,
    call: (world) =>
      ask(world, 'VolumeService', 'resizeVolume', {
        volume: 'history',
        sizeBytes: 128n * MIB,
        revision: 0n,
        ...flags,
      }),
    spoiler: { call: 'resizeVolume', what: 'storageFailed' },
  },
  'delete-volume': {
    prepare: withVolume,
    call: (world) => ask(world, 'VolumeService', 'deleteVolume', { volume: 'history', revision: 0n, ...flags }),
    spoiler: { call: 'deleteVolume', what: 'storageFailed' },
  },
  'delete-image': {
    prepare: withImage,
    call: (world) => ask(world, 'ImageService', 'deleteImage', { image: 'debian', revision: 0n, ...flags }),
    spoiler: { call: 'deleteImage', what: 'imageInUse' },
  },
};

/** Of the whole cluster what a user can see, without ids and times: what two runs of one story must have in common. */
export function outcomeOf(world: World): unknown {
  const controller = world.controller(world.leaderName() ?? world.liveControllers()[0] ?? '');
  const { tables } = controller.view;
  const known = new Set<string>();
  const named = (kind: string, id: string, name: string | undefined) => {
    known.add(`${ROOT}name/${kind}/${name}`);
    for (const suffix of kind === 'vm' ? ['vm', 'vm-status'] : [kind]) known.add(`${ROOT}${suffix}/${id}`);
    return name;
  };
  const vms = tables.vm.sorted().map(({ id, record }) => {
    const status = tables['vm-status'].get(id)?.record;
    const runs = world.runningOn(id);
    return {
      name: named('vm', id, record.meta?.name),
      deleting: record.meta?.deleting,
      runPolicy: record.spec?.runPolicy,
      phase: status?.phase,
      epoch: status?.epoch,
      runs: runs.length,
      whereItShould: status?.phase !== VmPhase.RUNNING || runs[0] === status.host,
    };
  });
  const volumes = tables.volume.sorted().map(({ id, record }) => ({
    name: named('volume', id, record.meta?.name),
    phase: record.phase,
    deleting: record.meta?.deleting,
    sizeBytes: record.spec?.sizeBytes,
    inPool: world.pool.volumes.get(id as never)?.sizeBytes,
  }));
  const images = tables.image.sorted().map(({ id, record }) => ({
    name: named('image', id, record.meta?.name),
    phase: record.status?.phase,
    deleting: record.meta?.deleting,
    inPool: world.pool.images.get(id as never)?.complete,
  }));
  for (const { id, record } of tables.network.sorted()) named('network', id, record.meta?.name);
  // These come and go by rules of their own: hosts, the leader, the store's history, request ids, guards, operations that ended.
  const own = /^busbar\/(store\/history|host|host-status|leader|request|guard|operation|name\/host|audit|event)(\/|$)/;
  const keys = world.truth.list(ROOT, Number.POSITIVE_INFINITY, undefined).value.map(({ key }) => key);
  const byName = <T extends { name: string | undefined }>(list: T[]) =>
    list.toSorted((a, b) => String(a.name).localeCompare(String(b.name)));
  return {
    vms: byName(vms),
    volumes: byName(volumes),
    images: byName(images),
    lost: {
      keys: keys.filter((key) => !own.test(key) && !known.has(key)),
      missing: [...known].filter((key) => !keys.includes(key)),
      volumes: [...world.pool.volumes.keys()].filter((id) => tables.volume.get(id) === undefined),
      images: [...world.pool.images.keys()].filter((id) => tables.image.get(id) === undefined),
    },
  };
}
