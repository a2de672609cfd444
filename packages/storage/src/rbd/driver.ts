// SPDX-License-Identifier: Apache-2.0
/**
 * Volumes and images in a Ceph pool.
 *
 *   image.<id>   RBD image with the protected snapshot `base`; volumes are cloned from that
 *   volume.<id>  RBD image
 *
 * Both are complete only when their metadata says so, which is written last (metadata.ts). An image
 * or volume without it is the remains of a crash: invisible, and replaced by the next attempt. The
 * writer of each is the saga that owns it; races between sagas end at Ceph's own refusals (a
 * protected snapshot with clones, an image with watchers).
 */
import type { Clock } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import type { ImageId, VolumeId } from '@busbar/core/ids';
import type { Logger } from '@busbar/core/log';
import { nativeCode } from '@busbar/native/errors';
import type { RbdConfig } from '../config.ts';
import type { DiskSource, ImageStat, ImportRequest, StorageDriver, VolumeStat } from '../driver.ts';
import { storageError } from '../errors.ts';
import { Exclusive } from '../exclusive.ts';
import type { ImageInfo } from '../ffi/calls.ts';
import { ERRNO } from '../ffi/errors.ts';
import { importStream } from '../image/import.ts';
import { fileSpool } from '../image/spool.ts';
import * as names from '../names.ts';
import { CephClient } from './client.ts';
import { diffTarget } from './diff-target.ts';
import { removeHalfMade, sweepLost } from './half-made.ts';
import * as meta from './metadata.ts';
import { poolCapacity } from './monitors.ts';

export interface RbdDeps {
  readonly clock: Clock;
  readonly logger: Logger;
}

export interface RbdDriver extends StorageDriver {
  readonly kind: 'rbd';
  /** Process that hosts librados now; for tests and diagnosis. */
  childPid(): number | null;
}

export function rbdDriver(config: RbdConfig, deps: RbdDeps): RbdDriver {
  const { clock, logger } = deps;
  const client = new CephClient(config, deps);
  const exclusive = new Exclusive();
  const closing = new AbortController();

  const capacity = async () =>
    poolCapacity(await client.call('monCommand', { command: { prefix: 'df', detail: 'detail' } }), config.pool);
  const inspect = (name: string) => client.call('inspect', { name });
  const completeImage = async (id: ImageId): Promise<ImageInfo | null> => {
    const info = await inspect(names.imageName(id));
    return info !== null && meta.isCompleteImage(info) ? info : null;
  };

  /** Makes the volume unless the same one is there; what a crash left of it is replaced. */
  function createOnce(
    id: VolumeId,
    sizeBytes: bigint,
    origin: ImageId | null,
    make: (name: string) => Promise<void>,
  ): Promise<void> {
    const name = names.volumeName(id);
    return exclusive.inTurn(name, () => createNow(name, id, sizeBytes, origin, make));
  }

  async function createNow(
    name: string,
    id: VolumeId,
    sizeBytes: bigint,
    origin: ImageId | null,
    make: (name: string) => Promise<void>,
  ): Promise<void> {
    const existing = await inspect(name);
    if (existing !== null && meta.isCompleteVolume(existing)) {
      const from = meta.volumeOrigin(existing);
      if (existing.sizeBytes === sizeBytes && from === origin) return;
      throw names.existsDifferent(id, names.describe(existing.sizeBytes, from), names.describe(sizeBytes, origin));
    }
    if (existing !== null) await removeHalfMade(client, clock, name);
    try {
      await make(name);
    } catch (error) {
      if (nativeCode(error) !== ERRNO.EEXIST) throw error;
      // Its name is taken but it cannot be opened: a creation that died between two objects.
      await removeHalfMade(client, clock, name);
      await make(name);
    }
  }

  async function deleteVolume(id: VolumeId): Promise<void> {
    const name = names.volumeName(id);
    const info = await inspect(name);
    if (info !== null && !meta.isCompleteVolume(info)) return await removeHalfMade(client, clock, name);
    if (info !== null) {
      const watchers = await client.call('watchers', { name });
      if (watchers.length > 0) throw names.volumeInUse(id, watchers.map(({ address }) => address).join(', '));
    }
    try {
      await client.callLong('remove', { name });
    } catch (error) {
      if (nativeCode(error) === ERRNO.EBUSY) throw names.volumeInUse(id, 'by a client that has just opened it');
      if (nativeCode(error) === ERRNO.ENOTEMPTY) {
        throw storageError('volumeInUse', `volume ${id} has snapshots`, { cause: error });
      }
      throw error;
    }
  }

  async function deleteImage(id: ImageId): Promise<void> {
    const name = names.imageName(id);
    const info = await inspect(name);
    if (info === null || !meta.isCompleteImage(info)) return await removeHalfMade(client, clock, name);
    const clones = await client.call('children', { name, snapshot: meta.BASE });
    if (clones.length > 0) throw names.imageInUse(id, clones);
    await client.call('setMetadata', { name, metadata: meta.IMAGE_DELETING });
    try {
      await client.callLong('dropSnapshot', { name, snapshot: meta.BASE });
    } catch (error) {
      if (nativeCode(error) !== ERRNO.EBUSY) throw error;
      // A clone was made since we looked.
      await client.call('setMetadata', { name, metadata: meta.IMAGE_COMPLETE });
      throw names.imageInUse(id, await client.call('children', { name, snapshot: meta.BASE }));
    }
    await removeHalfMade(client, clock, name);
  }

  async function imageStat(info: ImageInfo, name: string): Promise<ImageStat> {
    const allocatedBytes = await client.call('allocated', { name });
    return { virtualSizeBytes: info.sizeBytes, allocatedBytes, sha256: meta.imageOrigin(info).sha256 };
  }

  async function importImage(request: ImportRequest): Promise<ImageStat> {
    const name = names.imageName(request.imageId);
    const existing = await inspect(name);
    if (existing !== null && meta.isCompleteImage(existing)) {
      names.requireSameStream(request, meta.imageOrigin(existing));
      return await imageStat(existing, name);
    }
    await removeHalfMade(client, clock, name);
    let begun = false;
    try {
      const signal = AbortSignal.any([request.signal, closing.signal]);
      const importDeps = { clock, openSpool: fileSpool(config.spoolDir), idleMs: config.deadlines.importIdleMs };
      const { sha256 } = await importStream(importDeps, { ...request, signal }, async (sizeBytes) => {
        begun = true;
        await client.call('create', { name, sizeBytes, metadata: meta.IMAGE_RECEIVING });
        return await diffTarget(config, clock, name, sizeBytes, capacity);
      });
      await client.call('protectSnapshot', { name, snapshot: meta.BASE });
      const origin = { format: request.format, streamBytes: request.sizeBytes, sha256 };
      await client.call('setMetadata', { name, metadata: meta.sealedImage(origin) });
      const made = await inspect(name);
      if (made === null)
        throw storageError('storageFailed', `image ${request.imageId} is gone right after it was made`);
      return await imageStat(made, name);
    } catch (error) {
      if (begun) await cleanUp(name);
      throw error instanceof BusbarError
        ? error
        : storageError('storageFailed', `importing image ${request.imageId} failed`, { cause: error });
    }
  }

  /** The error of the import matters, not that of the cleaning; the next attempt or deleteImage cleans as well. */
  async function cleanUp(name: string): Promise<void> {
    try {
      await removeHalfMade(client, clock, name);
    } catch (error) {
      logger.warn({ image: name, error: String(error) }, 'a half-made image could not be removed now');
    }
  }

  return {
    kind: 'rbd',
    childPid: () => client.childPid,
    capacity,
    async createVolume({ volumeId, sizeBytes }) {
      names.requireSize(volumeId, sizeBytes);
      await createOnce(volumeId, sizeBytes, null, (name) =>
        client.call('create', { name, sizeBytes, metadata: meta.volumeMetadata(null) }),
      );
    },
    async cloneVolume({ volumeId, imageId, sizeBytes }) {
      names.requireSize(volumeId, sizeBytes);
      const image = await completeImage(imageId);
      if (image === null) throw names.imageNotFound(imageId);
      if (sizeBytes < image.sizeBytes) throw names.wouldShrink(volumeId, image.sizeBytes, sizeBytes);
      await createOnce(volumeId, sizeBytes, imageId, (name) =>
        client.call('clone', {
          parent: names.imageName(imageId),
          snapshot: meta.BASE,
          name,
          sizeBytes,
          metadata: meta.volumeMetadata(imageId),
        }),
      );
    },
    async resizeVolume(volumeId, sizeBytes) {
      names.requireSize(volumeId, sizeBytes);
      const name = names.volumeName(volumeId);
      const info = await inspect(name);
      if (info === null || !meta.isCompleteVolume(info)) throw names.volumeNotFound(volumeId);
      if (sizeBytes < info.sizeBytes) throw names.wouldShrink(volumeId, info.sizeBytes, sizeBytes);
      if (sizeBytes > info.sizeBytes) await client.call('resize', { name, sizeBytes });
    },
    deleteVolume: (volumeId) => exclusive.inTurn(names.volumeName(volumeId), () => deleteVolume(volumeId)),
    async statVolume(volumeId): Promise<VolumeStat | null> {
      const name = names.volumeName(volumeId);
      const info = await inspect(name);
      if (info === null || !meta.isCompleteVolume(info)) return null;
      const allocatedBytes = await client.call('allocated', { name });
      const parentImageId = info.parent === null ? null : names.imageIdOf(info.parent.image);
      return { sizeBytes: info.sizeBytes, allocatedBytes, parentImageId };
    },
    async listVolumes() {
      const all = await client.call('list', null);
      await sweepLost(client, all);
      const ids = all.map(names.volumeIdOf);
      return ids.filter((id) => id !== null).sort();
    },
    importImage: (request) => exclusive.run(names.imageName(request.imageId), () => importImage(request)),
    deleteImage: (imageId) => exclusive.run(names.imageName(imageId), () => deleteImage(imageId)),
    async statImage(imageId) {
      const info = await completeImage(imageId);
      return info === null ? null : await imageStat(info, names.imageName(imageId));
    },
    async listImages() {
      const ids = (await client.call('list', null)).map(names.imageIdOf).filter((id) => id !== null);
      return await Promise.all(
        ids.sort().map(async (imageId) => ({ imageId, complete: (await completeImage(imageId)) !== null })),
      );
    },
    diskSource: (volumeId): DiskSource => ({ kind: 'rbd', pool: config.pool, image: names.volumeName(volumeId) }),
    async close() {
      closing.abort(storageError('storageUnavailable', 'the storage driver was closed'));
      await client.close();
    },
  };
}
