// SPDX-License-Identifier: Apache-2.0
import { assert } from '@busbar/core/assert';
import type { ImageId, VolumeId } from '@busbar/core/ids';
import type { ImportRequest } from './driver.ts';
import { storageError } from './errors.ts';

/** Ids come checked from the API; here they become names of files and of RBD images, so a slip is a bug. */
const SAFE = /^[a-z0-9][a-z0-9-]{0,62}$/;
const VOLUME = 'volume.';
const IMAGE = 'image.';
const SECTOR = 512n;

export function volumeName(id: VolumeId): string {
  assert(SAFE.test(id), `volume id ${JSON.stringify(id)} is no id`);
  return `${VOLUME}${id}`;
}

export function imageName(id: ImageId): string {
  assert(SAFE.test(id), `image id ${JSON.stringify(id)} is no id`);
  return `${IMAGE}${id}`;
}

export function volumeIdOf(name: string): VolumeId | null {
  return idOf(VOLUME, name) as VolumeId | null;
}

export function imageIdOf(name: string): ImageId | null {
  return idOf(IMAGE, name) as ImageId | null;
}

function idOf(prefix: string, name: string): string | null {
  const id = name.startsWith(prefix) ? name.slice(prefix.length) : '';
  return SAFE.test(id) ? id : null;
}

// The refusals that read the same in every driver.

export function requireSize(id: VolumeId, sizeBytes: bigint): void {
  if (sizeBytes > 0n && sizeBytes % SECTOR === 0n) return;
  throw storageError('volumeSize', `volume ${id}: ${sizeBytes} bytes is not a positive multiple of ${SECTOR}`);
}

export function volumeNotFound(id: VolumeId) {
  return storageError('volumeNotFound', `there is no volume ${id}`);
}

export function imageNotFound(id: ImageId) {
  return storageError('imageNotFound', `there is no complete image ${id}`);
}

export function wouldShrink(id: VolumeId, from: bigint, to: bigint) {
  return storageError('volumeShrink', `volume ${id} cannot shrink from ${from} to ${to} bytes: it would lose data`);
}

export function existsDifferent(id: VolumeId, is: string, wanted: string) {
  return storageError('volumeExistsDifferent', `volume ${id} exists and is ${is}, not ${wanted}`);
}

export function volumeInUse(id: VolumeId, by: string) {
  return storageError('volumeInUse', `volume ${id} is open: ${by}`, {
    hint: 'stop the VM that uses it; a client that was killed counts for 30 s more',
  });
}

export function imageInUse(id: ImageId, clones: readonly string[]) {
  const some = clones.slice(0, 5).join(', ') + (clones.length > 5 ? ', …' : '');
  return storageError('imageInUse', `image ${id} has ${clones.length} clones: ${some}`, {
    hint: 'delete the volumes that were made from it first',
  });
}

/** Describes a volume for existsDifferent. */
export function describe(sizeBytes: bigint, origin: ImageId | null): string {
  return `${sizeBytes} bytes, ${origin === null ? 'empty at first' : `made from image ${origin}`}`;
}

/** What is recorded with an image about the stream that it was made from. */
export interface ImageOrigin {
  readonly format: string;
  readonly streamBytes: bigint;
  readonly sha256: string;
}

/** A repeated import of what is there already: fine when it is the same stream. */
export function requireSameStream(request: ImportRequest, is: ImageOrigin): void {
  const isSame =
    is.format === request.format &&
    is.streamBytes === request.sizeBytes &&
    (request.sha256 === null || is.sha256 === '' || request.sha256 === is.sha256);
  if (isSame) return;
  throw storageError(
    'imageExistsDifferent',
    `image ${request.imageId} exists and was made from another stream ` +
      `(${is.format}, ${is.streamBytes} bytes, SHA-256 ${is.sha256 === '' ? 'unknown' : is.sha256})`,
  );
}
