// SPDX-License-Identifier: Apache-2.0
/**
 * Volumes and images in a Ceph pool.
 *
 *   image.<id>   RBD image with the protected snapshot `base`; volumes are cloned from that
 *   volume.<id>  RBD image
 *
 * Both are complete only when their metadata says so, which is written last (metadata.ts). An image
 * or volume without it is the remains of a crash: invisible, and replaced by the next attempt. Each belongs
 * to one saga, but a controller that stood still may go on with a step beside its successor: hence a
 * volume is made under a name of its own and gets its final one by a rename, which refuses a taken name
 * (half-made.ts). Other races end at Ceph's own refusals (a protected snapshot with clones, an image
 * with watchers).
 */
import type { Clock } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import type { ImageId, VolumeId } from '@busbar/core/ids';
import type { Logger } from '@busbar/core/log';
import type { Metrics } from '@busbar/core/metrics';
import type { Random } from '@busbar/core/random';
import { nativeCode } from '@busbar/native/errors';
import type { RbdConfig } from '../config.ts';
import type { DiskSource, ImageStat, ImportRequest, StorageDriver, VolumeStat } from '../driver.ts';
import { isReason, storageError } from '../errors.ts';
import { Exclusive } from '../exclusive.ts';
import type { ImageInfo, Metadata } from '../ffi/calls.ts';
import { ERRNO } from '../ffi/errors.ts';
import { importStream } from '../image/import.ts';
import { SpoolRoom } from '../image/room.ts';
import { fileSpool } from '../image/spool.ts';
import * as names from '../names.ts';
import { type CephApi, CephClient } from './client.ts';
import { diffTarget } from './diff-target.ts';
import { grantAccess, revokeAccess } from './grant.ts';
import { asideName, removeHalfMade, removeNeverUsed, sweepAside } from './half-made.ts';
import * as meta from './metadata.ts';
import { poolCapacity } from './monitors.ts';

/** The second finds the name free, or another controller's volume complete; a third is for bad luck. */
const RENAME_ATTEMPTS = 3;

export interface RbdDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly random: Random;
  readonly metrics?: Metrics | undefined;
  /** Default: librados in a child process. */
  readonly client?: CephApi;
}

export interface RbdDriver extends StorageDriver {
  readonly kind: 'rbd';
  /** Process that hosts librados now; for tests and diagnosis. */
  childPid(): number | null;
}

export function rbdDriver(config: RbdConfig, deps: RbdDeps): RbdDriver {
  const { clock, logger } = deps;
  const client = deps.client ?? new CephClient(config, deps);
  const aside = { ...deps, client };
  const exclusive = new Exclusive();
  const spoolRoom = new SpoolRoom(config.spoolDir);
  const closing = new AbortController();

  const capacity = async () =>
    poolCapacity(await client.call('monCommand', { command: { prefix: 'df', detail: 'detail' } }), config.pool);
  const inspect = (name: string) => client.call('inspect', { name });
  const completeImage = async (id: ImageId): Promise<ImageInfo | null> => {
    const info = await inspect(names.imageName(id));
    return info !== null && meta.isCompleteImage(info) ? info : null;
  };

  type Make = (name: string, metadata: Metadata) => Promise<void>;

  /** Makes the volume unless the same one is there; what a crash left of it is replaced. */
  function createOnce(id: VolumeId, sizeBytes: bigint, origin: ImageId | null, make: Make): Promise<void> {
    return exclusive.inTurn(names.volumeName(id), () => createNow(id, sizeBytes, origin, make));
  }

  async function createNow(id: VolumeId, sizeBytes: bigint, origin: ImageId | null, make: Make): Promise<void> {
    const name = names.volumeName(id);
    const isThere = async () => {
      const info = await inspect(name);
      if (info !== null && meta.isVolumeBeingDeleted(info)) {
        throw names.existsDifferent(id, 'being deleted', names.describe(sizeBytes, origin));
      }
      if (info === null || !meta.isCompleteVolume(info)) return { complete: false, exists: info !== null, madeAs: '' };
      const from = meta.volumeOrigin(info);
      if (info.sizeBytes !== sizeBytes || from !== origin) {
        throw names.existsDifferent(id, names.describe(info.sizeBytes, from), names.describe(sizeBytes, origin));
      }
      return { complete: true, exists: true, madeAs: meta.volumeMadeAs(info) };
    };
    const atFirst = await isThere();
    if (atFirst.complete) return;
    if (atFirst.exists) await removeHalfMade(aside, name);

    const temporary = asideName(aside, 'making', name);
    try {
      await make(temporary, meta.volumeMetadata(origin, temporary));
    } catch (error) {
      // A storage that does not answer will not remove it either: that is the sweep's.
      const noAnswer = error instanceof BusbarError && (error.kind === 'timeout' || error.kind === 'unavailable');
      if (!noAnswer) await discardMaking(temporary);
      throw error;
    }
    for (let attempt = 0; attempt < RENAME_ATTEMPTS; attempt++) {
      const isTaken = await nameTaken(temporary, name);
      // Not what the rename answered but what is there now counts.
      const now = await isThere().catch(async (error: unknown) => {
        if (isReason(error, 'volumeExistsDifferent')) await discardMaking(temporary);
        throw error;
      });
      if (now.complete) {
        // Finished by another controller, unless ours it is, by a rename of which only the answer failed.
        if (now.madeAs !== temporary) await discardMaking(temporary);
        return;
      }
      // The remains of a creation by an older version, or one that died between two objects.
      if (isTaken || now.exists) await removeHalfMade(aside, name);
      else break;
    }
    throw storageError('storageUnavailable', `volume ${id} is gone right after it was made`, {
      hint: 'repeat the call',
    });
  }

  /**
   * Renames, and answers whether the name was taken already. librbd creates the new name on the OSD in one step that
   * fails when it is there, so nothing is ever replaced; but it tells so only when it had seen it before, else (16.2) it
   * answers success and has done nothing.
   */
  async function nameTaken(from: string, to: string): Promise<boolean> {
    try {
      await client.call('rename', { from, to });
      return false;
    } catch (error) {
      if (nativeCode(error) === ERRNO.EEXIST) return true;
      // Swept, since we stood still for so long. Any other failure may have renamed it: then it must not be removed by name.
      if (nativeCode(error) === ERRNO.ENOENT) return false;
      throw error;
    }
  }

  /** Only for one that certainly has no other name. The sweep has it if that fails. */
  async function discardMaking(temporary: string): Promise<void> {
    await client.callLong('remove', { name: temporary }).catch((error: unknown) => {
      logger.warn({ image: temporary, err: error }, 'an unfinished volume is left to the sweep');
    });
  }

  async function deleteVolume(id: VolumeId, neverUsed: boolean): Promise<void> {
    const name = names.volumeName(id);
    if (neverUsed) return await removeNeverUsed(aside, name);
    let info = await inspect(name);
    if (info !== null && !meta.isCompleteVolume(info) && !meta.isVolumeBeingDeleted(info)) {
      if ((await removeHalfMade(aside, name)) === 'removed') return;
      info = await inspect(name);
    }
    if (info !== null) {
      const watchers = await client.call('watchers', { name });
      if (watchers.length > 0) throw names.volumeInUse(id, watchers.map(({ address }) => address).join(', '));
      if (info.snapshots.length > 0) throw storageError('volumeInUse', `volume ${id} has snapshots`);
      if (meta.isCompleteVolume(info)) await client.call('setMetadata', { name, metadata: meta.VOLUME_DELETING });
    }
    try {
      await client.callLong('remove', { name });
    } catch (error) {
      // It stays "deleting": this refusal does not say that no earlier removal took bytes away.
      if (nativeCode(error) === ERRNO.EBUSY) throw names.volumeInUse(id, 'by a client that has just opened it');
      if (nativeCode(error) === ERRNO.ENOTEMPTY) {
        throw storageError('volumeInUse', `volume ${id} has snapshots`, { cause: error });
      }
      throw error;
    }
  }

  /** For an image: one that has become complete since the caller looked is another import's. */
  async function removeHalfImage(name: string): Promise<void> {
    if ((await removeHalfMade(aside, name)) === 'removed') return;
    throw storageError('imageBusy', `${name} has just been completed by another controller`);
  }

  async function deleteImage(id: ImageId): Promise<void> {
    const name = names.imageName(id);
    const info = await inspect(name);
    if (info === null || !meta.isCompleteImage(info)) return await removeHalfImage(name);
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
    await removeHalfImage(name);
  }

  async function imageStat(info: ImageInfo, name: string): Promise<ImageStat> {
    const allocatedBytes = await client.call('allocated', { name });
    return { virtualSizeBytes: info.sizeBytes, allocatedBytes, sha256: meta.imageOrigin(info).sha256 };
  }

  /**
   * Under its final name from the start, unlike a volume: no two controllers import the same id, because the one that
   * receives the stream makes the id, and only deletions (of that one, or the leader's once its record is gone) meet it.
   */
  async function importImage(request: ImportRequest): Promise<ImageStat> {
    const name = names.imageName(request.imageId);
    const existing = await inspect(name);
    if (existing !== null && meta.isCompleteImage(existing)) {
      names.requireSameStream(request, meta.imageOrigin(existing));
      return await imageStat(existing, name);
    }
    await removeHalfImage(name);
    let begun = false;
    try {
      const signal = AbortSignal.any([request.signal, closing.signal]);
      const importDeps = {
        clock,
        openSpool: fileSpool(config.spoolDir, spoolRoom),
        idleMs: config.deadlines.importIdleMs,
      };
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
      await removeHalfImage(name);
    } catch (error) {
      logger.warn({ image: name, error: String(error) }, 'a half-made image could not be removed now');
    }
  }

  return {
    kind: 'rbd',
    diskKeys: config.identities,
    childPid: () => client.childPid,
    capacity,
    async createVolume({ volumeId, sizeBytes }) {
      names.requireSize(volumeId, sizeBytes);
      await createOnce(volumeId, sizeBytes, null, (name, metadata) =>
        client.call('create', { name, sizeBytes, metadata }),
      );
    },
    async cloneVolume({ volumeId, imageId, sizeBytes }) {
      names.requireSize(volumeId, sizeBytes);
      const image = await completeImage(imageId);
      if (image === null) throw names.imageNotFound(imageId);
      if (sizeBytes < image.sizeBytes) throw names.wouldShrink(volumeId, image.sizeBytes, sizeBytes);
      await createOnce(volumeId, sizeBytes, imageId, (name, metadata) =>
        client.call('clone', {
          parent: names.imageName(imageId),
          snapshot: meta.BASE,
          name,
          sizeBytes,
          metadata,
        }),
      );
    },
    async resizeVolume(volumeId, sizeBytes) {
      names.requireSize(volumeId, sizeBytes);
      const name = names.volumeName(volumeId);
      const info = await inspect(name);
      if (info === null || !meta.isCompleteVolume(info)) throw names.volumeNotFound(volumeId);
      if (sizeBytes < info.sizeBytes) throw names.wouldShrink(volumeId, info.sizeBytes, sizeBytes);
      if (sizeBytes === info.sizeBytes) return;
      const watchers = await client.call('watchers', { name });
      if (watchers.length > 0) throw names.volumeInUse(volumeId, watchers.map(({ address }) => address).join(', '));
      await client.call('resize', { name, sizeBytes });
    },
    deleteVolume: (volumeId, options) =>
      exclusive.inTurn(names.volumeName(volumeId), () => deleteVolume(volumeId, options?.neverUsed === true)),
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
      await sweepAside(aside, all);
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
    spool: () => spoolRoom.state(),
    grantAccess: async (request) =>
      config.identities === 'vm' ? await grantAccess(client, config.pool, request) : null,
    revokeAccess: async (vmId, epochs) => {
      if (config.identities === 'vm') await revokeAccess(client, vmId, epochs);
    },
    diskSource: (volumeId): DiskSource => ({ kind: 'rbd', pool: config.pool, image: names.volumeName(volumeId) }),
    async close() {
      closing.abort(storageError('storageUnavailable', 'the storage driver was closed'));
      await client.close();
    },
  };
}
