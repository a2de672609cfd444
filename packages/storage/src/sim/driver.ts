// SPDX-License-Identifier: Apache-2.0
/**
 * A pool in memory, for the simulation of whole clusters. Deterministic: time comes from the injected
 * clock, chance from the injected Random, and faults are configuration that a test may change.
 */
import type { Clock } from '@busbar/core/clock/clock';
import { sleep, withDeadline } from '@busbar/core/clock/clock';
import type { Epoch, ImageId, VmId, VolumeId } from '@busbar/core/ids';
import type { Random } from '@busbar/core/random';
import type {
  AccessGrant,
  DiskSource,
  ImageStat,
  ImportRequest,
  PoolCapacity,
  SpoolState,
  StorageDriver,
  VolumeStat,
} from '../driver.ts';
import { isReason, type StorageReason, showBytes, storageError } from '../errors.ts';
import { Exclusive } from '../exclusive.ts';
import { importStream } from '../image/import.ts';
import { memorySpool } from '../image/spool.ts';
import * as names from '../names.ts';

export type SimCall = Exclude<keyof StorageDriver, 'kind' | 'diskKeys' | 'diskSource' | 'close'>;

export interface SimFault {
  /** Default: any call. */
  readonly call?: SimCall;
  /** `hang`: the call ends at its deadline with STORAGE_TIMEOUT. */
  readonly what: StorageReason | 'hang';
  /** Calls that it still strikes. */
  times: number;
  /** The call takes effect and only its answer is lost, as with a child that dies after the work. */
  readonly afterwards?: boolean;
  /** A deletion begins and is cut off: what it was about stays, half-made. */
  readonly half?: boolean;
}

/** What all drivers of one pool share, as the hosts of a cluster share a real one. */
export interface SimPool {
  totalBytes: bigint;
  latencyMs: { min: number; max: number };
  callDeadlineMs: number;
  faults: SimFault[];
  readonly volumes: Map<VolumeId, SimVolume>;
  readonly images: Map<ImageId, SimImage>;
  /** What drivers say of the disk where streams wait; simulated ones wait in memory. */
  spool: SpoolState | null;
  /** Volumes that a simulated VM has open. */
  readonly open: Set<VolumeId>;
  /** Volumes that an orphan of a killed controller has open, or whose ghost watch does not end. */
  readonly orphaned: Set<VolumeId>;
  /** Starts of VMs that may open their volumes. */
  readonly granted: Map<VmId, Set<Epoch>>;
}

export interface SimVolume {
  sizeBytes: bigint;
  readonly origin: ImageId | null;
  /** Of its own, what the clone has from its image not counted. */
  allocatedBytes: bigint;
  /** Its deletion has begun: part of its data may be gone. */
  deleting?: boolean;
}

export interface SimImage {
  readonly complete: boolean;
  readonly virtualSizeBytes: bigint;
  readonly allocatedBytes: bigint;
  readonly origin: names.ImageOrigin;
  /** Offset → data; empty when the pool keeps no contents. */
  readonly content: ReadonlyMap<number, Buffer>;
}

export function newSimPool(
  settings: Partial<Pick<SimPool, 'totalBytes' | 'latencyMs' | 'callDeadlineMs'>> = {},
): SimPool {
  return {
    totalBytes: settings.totalBytes ?? 1024n ** 4n,
    latencyMs: settings.latencyMs ?? { min: 0, max: 0 },
    callDeadlineMs: settings.callDeadlineMs ?? 10_000,
    faults: [],
    spool: null,
    volumes: new Map(),
    images: new Map(),
    open: new Set(),
    orphaned: new Set(),
    granted: new Map(),
  };
}

export interface SimDeps {
  readonly clock: Clock;
  readonly random: Random;
}

export function simDriver(pool: SimPool, deps: SimDeps): StorageDriver {
  const { clock, random } = deps;
  const exclusive = new Exclusive();
  const closing = new AbortController();

  /** Latency, then faults, then the work in one step: what is seen of it is all or nothing. */
  async function call<T>(name: SimCall, work: () => T | Promise<T>, half: () => void = () => {}): Promise<T> {
    closing.signal.throwIfAborted();
    const { min, max } = pool.latencyMs;
    if (max > 0) await sleep(clock, min + random.next() * (max - min), closing.signal);
    const fault = pool.faults.find((f) => f.times > 0 && (f.call === undefined || f.call === name));
    if (fault === undefined) return await work();
    fault.times--;
    if (fault.half === true) half();
    if (fault.afterwards === true) await work();
    if (fault.what !== 'hang') throw storageError(fault.what, `${name}: simulated`);
    const never = () => new Promise<never>(() => {});
    return await withDeadline(clock, pool.callDeadlineMs, name, never, closing.signal).catch((cause: unknown) => {
      if (closing.signal.aborted) throw cause;
      throw storageError('storageTimeout', `${name} did not end within ${pool.callDeadlineMs} ms: simulated`, {
        cause,
      });
    });
  }

  const used = () => {
    let bytes = 0n;
    for (const image of pool.images.values()) bytes += image.allocatedBytes;
    for (const volume of pool.volumes.values()) bytes += volume.allocatedBytes;
    return bytes;
  };
  const completeImage = (imageId: ImageId) => {
    const image = pool.images.get(imageId);
    return image?.complete === true ? image : null;
  };
  const create = (volumeId: VolumeId, sizeBytes: bigint, origin: ImageId | null) => {
    const existing = pool.volumes.get(volumeId);
    if (existing?.deleting === true) {
      throw names.existsDifferent(volumeId, 'being deleted', names.describe(sizeBytes, origin));
    } else if (existing === undefined) {
      pool.volumes.set(volumeId, { sizeBytes, origin, allocatedBytes: 0n });
    } else if (existing.sizeBytes !== sizeBytes || existing.origin !== origin) {
      const is = names.describe(existing.sizeBytes, existing.origin);
      throw names.existsDifferent(volumeId, is, names.describe(sizeBytes, origin));
    }
  };

  async function importImage(request: ImportRequest): Promise<ImageStat> {
    const { imageId } = request;
    const existing = completeImage(imageId);
    if (existing !== null) {
      names.requireSameStream(request, existing.origin);
      return imageStat(existing);
    }
    const content = new Map<number, Buffer>();
    let allocatedBytes = 0n;
    const origin = { format: request.format, streamBytes: request.sizeBytes, sha256: '' };
    pool.images.delete(imageId);
    try {
      const done = await importStream({ clock, openSpool: memorySpool, idleMs: 60_000 }, request, async (size) => {
        if (size > pool.totalBytes) throw poolFull(size);
        pool.images.set(imageId, { complete: false, virtualSizeBytes: size, allocatedBytes: 0n, origin, content });
        return {
          async write(offset, data) {
            allocatedBytes += BigInt(data.length);
            if (used() + allocatedBytes > pool.totalBytes) throw poolFull(size);
            content.set(offset, Buffer.from(data));
          },
          async finish() {},
          async abort() {},
        };
      });
      const { virtualSizeBytes, sha256 } = done;
      const image = { complete: true, virtualSizeBytes, allocatedBytes, origin: { ...origin, sha256 }, content };
      pool.images.set(imageId, image);
      return imageStat(image);
    } catch (error) {
      // A fault of the storage leaves the half-made image behind, as a crash would.
      if (!isReason(error, 'storageUnavailable')) pool.images.delete(imageId);
      throw error;
    }
  }

  const poolFull = (size: bigint) =>
    storageError(
      'poolFull',
      `the image of ${showBytes(size)} does not fit: ${showBytes(pool.totalBytes - used())} of ` +
        `${showBytes(pool.totalBytes)} available`,
    );

  return {
    kind: 'sim',
    diskKeys: 'vm',
    capacity: () =>
      call('capacity', (): PoolCapacity => {
        const available = pool.totalBytes - used();
        return { totalBytes: pool.totalBytes, availableBytes: available > 0n ? available : 0n };
      }),
    createVolume: ({ volumeId, sizeBytes }) =>
      call('createVolume', () => {
        names.requireSize(volumeId, sizeBytes);
        create(volumeId, sizeBytes, null);
      }),
    cloneVolume: ({ volumeId, imageId, sizeBytes }) =>
      call('cloneVolume', () => {
        names.requireSize(volumeId, sizeBytes);
        const image = completeImage(imageId);
        if (image === null) throw names.imageNotFound(imageId);
        if (sizeBytes < image.virtualSizeBytes) throw names.wouldShrink(volumeId, image.virtualSizeBytes, sizeBytes);
        create(volumeId, sizeBytes, imageId);
      }),
    resizeVolume: (volumeId, sizeBytes) =>
      call('resizeVolume', () => {
        names.requireSize(volumeId, sizeBytes);
        const volume = pool.volumes.get(volumeId);
        if (volume === undefined || volume.deleting === true) throw names.volumeNotFound(volumeId);
        if (sizeBytes < volume.sizeBytes) throw names.wouldShrink(volumeId, volume.sizeBytes, sizeBytes);
        if (sizeBytes === volume.sizeBytes) return;
        if (pool.open.has(volumeId)) throw names.volumeInUse(volumeId, 'a simulated VM');
        volume.sizeBytes = sizeBytes;
      }),
    deleteVolume: (volumeId, options) =>
      call(
        'deleteVolume',
        () => {
          if (pool.open.has(volumeId)) throw names.volumeInUse(volumeId, 'a simulated VM');
          const isOrphaned = pool.orphaned.has(volumeId) && options?.neverUsed !== true;
          if (isOrphaned) throw names.volumeInUse(volumeId, 'a simulated orphan');
          pool.volumes.delete(volumeId);
        },
        () => {
          const volume = pool.volumes.get(volumeId);
          if (volume !== undefined) volume.deleting = true;
        },
      ),
    statVolume: (volumeId) =>
      call('statVolume', (): VolumeStat | null => {
        const volume = pool.volumes.get(volumeId);
        if (volume === undefined || volume.deleting === true) return null;
        const { sizeBytes, allocatedBytes, origin } = volume;
        return { sizeBytes, allocatedBytes, parentImageId: origin };
      }),
    listVolumes: () => call('listVolumes', () => [...pool.volumes.keys()].sort()),
    importImage: (request) =>
      call('importImage', () => exclusive.run(names.imageName(request.imageId), () => importImage(request))),
    deleteImage: (imageId) =>
      call(
        'deleteImage',
        () =>
          exclusive.run(names.imageName(imageId), async () => {
            const clones = [...pool.volumes].filter(([, volume]) => volume.origin === imageId).map(([id]) => id);
            if (clones.length > 0) throw names.imageInUse(imageId, clones.sort());
            pool.images.delete(imageId);
          }),
        () => {
          const image = pool.images.get(imageId);
          if (image !== undefined) pool.images.set(imageId, { ...image, complete: false });
        },
      ),
    statImage: (imageId) =>
      call('statImage', () => {
        const image = completeImage(imageId);
        return image === null ? null : imageStat(image);
      }),
    listImages: () =>
      call('listImages', () =>
        [...pool.images]
          .map(([imageId, { complete }]) => ({ imageId, complete }))
          .sort((a, b) => (a.imageId < b.imageId ? -1 : 1)),
      ),
    spool: async () => pool.spool,
    grantAccess: ({ vmId, epoch }) =>
      call('grantAccess', (): AccessGrant => {
        pool.granted.set(vmId, (pool.granted.get(vmId) ?? new Set()).add(epoch));
        return { user: `${vmId}.${epoch}`, key: Buffer.from(`key of ${vmId}.${epoch}`) };
      }),
    revokeAccess: (vmId, epochs) =>
      call('revokeAccess', () => {
        const granted = pool.granted.get(vmId);
        for (const epoch of epochs) granted?.delete(epoch);
        if (granted?.size === 0) pool.granted.delete(vmId);
      }),
    diskSource: (volumeId): DiskSource => ({ kind: 'rbd', pool: 'sim', image: names.volumeName(volumeId) }),
    async close() {
      closing.abort(storageError('storageUnavailable', 'the storage driver was closed'));
    },
  };
}

function imageStat(image: SimImage): ImageStat {
  const { virtualSizeBytes, allocatedBytes, origin } = image;
  return { virtualSizeBytes, allocatedBytes, sha256: origin.sha256 };
}
