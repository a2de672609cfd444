// SPDX-License-Identifier: Apache-2.0
/**
 * Volumes as sparse raw files in a directory that every host mounts at the same path.
 *
 *   volumes/volume.<id>.raw, .json   images/image.<id>.raw, .json   temp/<name>.<uuid>
 *
 * The .raw file decides: it comes last and goes first, each in one step. What a crash leaves in temp/ is not
 * visible: `<name>.*` was never whole, and the next attempt at the same name clears it away; `gone.<name>.*` was
 * deleted, and is swept whenever volumes are listed.
 */
import { constants } from 'node:fs';
import { type FileHandle, lstat, mkdir, open, readdir, rm, statfs, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { type Clock, withDeadline } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import type { ImageId, VolumeId } from '@busbar/core/ids';
import { openPlainFile } from '@busbar/native/confined';
import { z } from 'zod';
import type { DirConfig } from '../config.ts';
import type { DiskSource, ImageStat, ImportRequest, PoolCapacity, StorageDriver, VolumeStat } from '../driver.ts';
import { showBytes, storageError } from '../errors.ts';
import { Exclusive } from '../exclusive.ts';
import { type ImageTarget, importStream } from '../image/import.ts';
import { SpoolRoom } from '../image/room.ts';
import { fileSpool, writeAll } from '../image/spool.ts';
import * as names from '../names.ts';
import {
  cloneFile,
  createFile,
  isMissing,
  orNull,
  publish,
  publishOnce,
  readText,
  removeFile,
  takeAway,
  tempName,
  writeWhole,
} from './files.ts';
import { isLockedByQemu } from './in-use.ts';

/** Of a volume that was deleted, until its bytes are gone. */
const GONE = 'gone.';
const VolumeSidecar = z.object({ origin: z.string().nullable() });
const ImageSidecar = z.object({ format: z.string(), streamBytes: z.string(), sha256: z.string() });

export interface DirDeps {
  readonly clock: Clock;
  /** Why the directory must not be used as it is mounted; empty when it may. */
  readonly whyUnsafe: () => Promise<string>;
  /** Whether a hypervisor has the file open. */
  readonly isOpen?: (path: string) => Promise<boolean>;
}

export function dirDriver(config: DirConfig, deps: DirDeps): StorageDriver {
  const { clock } = deps;
  const { callMs, copyMs, importIdleMs } = config.deadlines;
  const isOpen = deps.isOpen ?? ((path: string) => isLockedByQemu(path, callMs));
  const exclusive = new Exclusive();
  const closing = new AbortController();
  const folders = { volumes: join(config.path, 'volumes'), images: join(config.path, 'images') };
  const temp = join(config.path, 'temp');
  const spoolDir = config.spoolDir ?? temp;
  const spoolRoom = new SpoolRoom(spoolDir);

  const volumePath = (id: VolumeId, ending: 'raw' | 'json') =>
    join(folders.volumes, `${names.volumeName(id)}.${ending}`);
  const imagePath = (id: ImageId, ending: 'raw' | 'json') => join(folders.images, `${names.imageName(id)}.${ending}`);
  const tempPath = (name: string) => join(temp, tempName(name));

  async function call<T>(what: string, deadlineMs: number, work: () => Promise<T>): Promise<T> {
    closing.signal.throwIfAborted();
    try {
      return await withDeadline(clock, deadlineMs, what, work, closing.signal);
    } catch (cause) {
      throw translate(what, cause);
    }
  }

  /** A directory that is missing is never made here: it may be a mount that failed, and the root disk below it. */
  async function prepare(): Promise<void> {
    let unsafe: string;
    try {
      unsafe = await deps.whyUnsafe();
    } catch (cause) {
      throw storageError('storageUnavailable', `the pool's directory ${config.path} cannot be read`, { cause });
    }
    if (unsafe !== '') throw storageError('storageUnavailable', unsafe);
    for (const dir of [folders.volumes, folders.images, temp]) await mkdir(dir, { recursive: true, mode: 0o711 });
  }

  const openVolume = (id: VolumeId, flags: number): Promise<FileHandle> =>
    openPlainFile(config.path, ['volumes', `${names.volumeName(id)}.raw`], flags);

  async function clearTemp(name: string): Promise<void> {
    for (const entry of await readdir(temp)) {
      if (entry.startsWith(`${name}.`)) await rm(join(temp, entry), { force: true });
    }
  }

  async function readVolume(id: VolumeId): Promise<VolumeStat | null> {
    const file = await statPlain(volumePath(id, 'raw'));
    const sidecar = file === null ? null : await readText(volumePath(id, 'json'));
    if (file === null || sidecar === null) return null;
    const { origin } = VolumeSidecar.parse(JSON.parse(sidecar));
    return { sizeBytes: file.size, allocatedBytes: file.blocks * 512n, parentImageId: origin as ImageId | null };
  }

  async function readImage(id: ImageId): Promise<{ stat: ImageStat; origin: names.ImageOrigin } | null> {
    const file = await statPlain(imagePath(id, 'raw'));
    const sidecar = file === null ? null : await readText(imagePath(id, 'json'));
    if (file === null || sidecar === null) return null;
    const { format, streamBytes, sha256 } = ImageSidecar.parse(JSON.parse(sidecar));
    return {
      stat: { virtualSizeBytes: file.size, allocatedBytes: file.blocks * 512n, sha256 },
      origin: { format, streamBytes: BigInt(streamBytes), sha256 },
    };
  }

  /** Makes the volume's file by `fill` and publishes it, unless the same one is there. */
  function create(
    id: VolumeId,
    sizeBytes: bigint,
    origin: ImageId | null,
    fill: (path: string) => Promise<void>,
  ): Promise<void> {
    return exclusive.inTurn(names.volumeName(id), () => createNow(id, sizeBytes, origin, fill));
  }

  async function createNow(
    id: VolumeId,
    sizeBytes: bigint,
    origin: ImageId | null,
    fill: (path: string) => Promise<void>,
  ): Promise<void> {
    const isThere = async () => {
      const existing = await readVolume(id);
      if (existing === null) return false;
      if (existing.sizeBytes === sizeBytes && existing.parentImageId === origin) return true;
      const is = names.describe(existing.sizeBytes, existing.parentImageId);
      throw names.existsDifferent(id, is, names.describe(sizeBytes, origin));
    };
    const name = names.volumeName(id);
    // Also when it is there: a crash right after it got its place leaves it a second name, and no VM would start with it.
    await clearTemp(name);
    if (await isThere()) return;
    const path = tempPath(name);
    try {
      await fill(path);
      await truncate(path, Number(sizeBytes));
      await syncFile(path);
      if (!(await isThere())) await writeWhole(tempPath(name), volumePath(id, 'json'), JSON.stringify({ origin }));
      // Taken: another controller made it while this one stood still, and a guest may have written to it since.
      if (await publishOnce(path, volumePath(id, 'raw'))) return;
      await rm(path, { force: true });
      if (!(await isThere())) throw storageError('storageFailed', `volume ${id} has no description beside its file`);
    } catch (error) {
      await rm(path, { force: true });
      throw error;
    }
  }

  async function capacity(): Promise<PoolCapacity> {
    const { blocks, bavail, bsize } = await statfs(config.path, { bigint: true });
    return { totalBytes: blocks * bsize, availableBytes: bavail * bsize };
  }

  async function beginImage(path: string, sizeBytes: bigint): Promise<ImageTarget> {
    const { totalBytes, availableBytes } = await capacity();
    if (sizeBytes > totalBytes) throw poolFull(sizeBytes, availableBytes, totalBytes);
    const file = await createFile(path);
    await file.truncate(Number(sizeBytes));
    return {
      async write(offset, data) {
        try {
          await writeAll(file, offset, data);
        } catch (error) {
          const { code } = error as NodeJS.ErrnoException;
          if (code !== 'ENOSPC' && code !== 'EDQUOT') throw error;
          throw poolFull(sizeBytes, (await capacity()).availableBytes, totalBytes);
        }
      },
      async finish() {
        await file.sync();
        await file.chmod(0o440);
        await file.close();
      },
      abort: () => file.close().catch(() => {}),
    };
  }

  async function importImage(request: ImportRequest): Promise<ImageStat> {
    const { imageId } = request;
    await prepare();
    const existing = await readImage(imageId);
    if (existing !== null) {
      names.requireSameStream(request, existing.origin);
      return existing.stat;
    }
    const name = names.imageName(imageId);
    await clearTemp(name);
    const path = tempPath(name);
    try {
      const deps = { clock, openSpool: fileSpool(spoolDir, spoolRoom), idleMs: importIdleMs };
      const signal = AbortSignal.any([request.signal, closing.signal]);
      const { sha256 } = await importStream(deps, { ...request, signal }, (size) => beginImage(path, size));
      const origin = { format: request.format, streamBytes: String(request.sizeBytes), sha256 };
      await writeWhole(tempPath(name), imagePath(imageId, 'json'), JSON.stringify(origin));
      await publish(path, imagePath(imageId, 'raw'));
      const made = await readImage(imageId);
      if (made === null) throw storageError('storageFailed', `image ${imageId} is gone right after it was made`);
      return made.stat;
    } catch (cause) {
      await rm(path, { force: true });
      throw translate(`importing image ${imageId}`, cause);
    }
  }

  async function listIds<T extends string>(
    dir: string,
    ending: string,
    idOf: (name: string) => T | null,
  ): Promise<T[]> {
    const found: T[] = [];
    for (const entry of (await orNull(readdir(dir))) ?? []) {
      const id = entry.endsWith(ending) ? idOf(entry.slice(0, -ending.length)) : null;
      if (id !== null) found.push(id);
    }
    return found.sort();
  }

  return {
    kind: 'dir',
    diskKeys: 'none',
    capacity: () => call('capacity', callMs, capacity),
    createVolume: ({ volumeId, sizeBytes }) =>
      call(`creating volume ${volumeId}`, callMs, async () => {
        names.requireSize(volumeId, sizeBytes);
        await prepare();
        await create(volumeId, sizeBytes, null, async (path) => await (await createFile(path)).close());
      }),
    cloneVolume: ({ volumeId, imageId, sizeBytes }) =>
      call(`cloning image ${imageId}`, copyMs, async () => {
        names.requireSize(volumeId, sizeBytes);
        await prepare();
        const image = await readImage(imageId);
        if (image === null) throw names.imageNotFound(imageId);
        const { virtualSizeBytes } = image.stat;
        if (sizeBytes < virtualSizeBytes) throw names.wouldShrink(volumeId, virtualSizeBytes, sizeBytes);
        await create(volumeId, sizeBytes, imageId, async (path) => {
          const file = await openPlainFile(config.path, ['images', `${names.imageName(imageId)}.raw`]);
          try {
            await cloneFile(`/proc/self/fd/${file.fd}`, path);
          } finally {
            await file.close();
          }
        });
      }),
    resizeVolume: (volumeId, sizeBytes) =>
      call(`resizing volume ${volumeId}`, callMs, async () => {
        names.requireSize(volumeId, sizeBytes);
        const volume = await readVolume(volumeId);
        if (volume === null) throw names.volumeNotFound(volumeId);
        if (sizeBytes < volume.sizeBytes) throw names.wouldShrink(volumeId, volume.sizeBytes, sizeBytes);
        if (sizeBytes === volume.sizeBytes) return;
        const file = await openVolume(volumeId, constants.O_RDWR);
        try {
          if (await isOpen(volumePath(volumeId, 'raw'))) throw names.volumeInUse(volumeId, 'QEMU has locked its file');
          await file.truncate(Number(sizeBytes));
          await file.sync();
        } finally {
          await file.close();
        }
      }),
    deleteVolume: (volumeId, options) =>
      call(`deleting volume ${volumeId}`, callMs, async () => {
        await prepare();
        const path = volumePath(volumeId, 'raw');
        const name = names.volumeName(volumeId);
        // A link in its place is taken away as what it is, without a look at where it points to.
        const mayBeOpen = options?.neverUsed !== true && (await orNull(lstat(path)))?.isFile() === true;
        if (mayBeOpen && (await isOpen(path))) throw names.volumeInUse(volumeId, 'QEMU has locked its file');
        await takeAway(path, tempPath(GONE + name));
        await removeFile(volumePath(volumeId, 'json'));
        await clearTemp(name);
        await clearTemp(GONE + name);
      }),
    statVolume: (volumeId) => call(`reading volume ${volumeId}`, callMs, () => readVolume(volumeId)),
    listVolumes: () =>
      call('listing volumes', callMs, async () => {
        for (const entry of (await orNull(readdir(temp))) ?? []) {
          if (entry.startsWith(GONE)) await rm(join(temp, entry), { force: true });
        }
        return await listIds(folders.volumes, '.raw', names.volumeIdOf);
      }),
    importImage: (request) => exclusive.run(names.imageName(request.imageId), () => importImage(request)),
    deleteImage: (imageId) =>
      exclusive.run(names.imageName(imageId), () =>
        call(`deleting image ${imageId}`, callMs, async () => {
          await prepare();
          // Copies do not need their image, but all pools keep one rule.
          const clones: string[] = [];
          for (const id of await listIds(folders.volumes, '.raw', names.volumeIdOf)) {
            if ((await readVolume(id))?.parentImageId === imageId) clones.push(id);
          }
          if (clones.length > 0) throw names.imageInUse(imageId, clones);
          await removeFile(imagePath(imageId, 'raw'));
          await removeFile(imagePath(imageId, 'json'));
          await clearTemp(names.imageName(imageId));
        }),
      ),
    statImage: (imageId) =>
      call(`reading image ${imageId}`, callMs, async () => (await readImage(imageId))?.stat ?? null),
    listImages: () =>
      call('listing images', callMs, async () => {
        const complete = await listIds(folders.images, '.raw', names.imageIdOf);
        const begun = ((await orNull(readdir(temp))) ?? []).map((entry) =>
          names.imageIdOf(entry.replace(/\.[^.]*$/, '')),
        );
        const partial = [...new Set(begun)].filter((id) => id !== null && !complete.includes(id)) as ImageId[];
        return [
          ...complete.map((imageId) => ({ imageId, complete: true })),
          ...partial.map((imageId) => ({ imageId, complete: false })),
        ].sort((a, b) => (a.imageId < b.imageId ? -1 : 1));
      }),
    spool: () => spoolRoom.state(),
    // Opened without a key.
    grantAccess: async () => null,
    revokeAccess: async () => {},
    diskSource: (volumeId): DiskSource => ({ kind: 'file', path: volumePath(volumeId, 'raw'), format: 'raw' }),
    async close() {
      closing.abort(storageError('storageUnavailable', 'the storage driver was closed'));
    },
  };
}

/** Of what has that name itself: a link in the place of a file is no volume. */
async function statPlain(path: string) {
  const found = await orNull(lstat(path, { bigint: true }));
  if (found === null || found.isFile()) return found;
  throw storageError('storageFailed', `${path} is not a regular file`);
}

async function syncFile(path: string): Promise<void> {
  const file = await open(path, 'r+');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

function poolFull(size: bigint, available: bigint, total: bigint): BusbarError {
  return storageError(
    'poolFull',
    `the image of ${showBytes(size)} does not fit: ${showBytes(available)} of ${showBytes(total)} available`,
  );
}

function translate(what: string, cause: unknown): BusbarError {
  if (cause instanceof BusbarError) {
    return cause.reason === 'DEADLINE_EXCEEDED' ? storageError('storageTimeout', cause.message, { cause }) : cause;
  }
  const { code } = cause as NodeJS.ErrnoException;
  if (code === 'ENOSPC' || code === 'EDQUOT') return storageError('poolFull', `${what}: no space left`, { cause });
  const reason = isMissing(cause) || code === 'EIO' || code === 'ESTALE' ? 'storageUnavailable' : 'storageFailed';
  return storageError(reason, `${what} failed (${code ?? String(cause)})`, { cause });
}
