// SPDX-License-Identifier: Apache-2.0
/**
 * What Busbar writes beside its RBD images. A clone inherits the metadata of its image, hence two
 * words for "complete": an image's never makes a half-made clone look whole.
 */
import type { ImageId } from '@busbar/core/ids';
import type { ImageInfo, Metadata } from '../ffi/calls.ts';
import type { ImageOrigin } from '../names.ts';

/** The protected snapshot that volumes are cloned from. */
export const BASE = 'base';

const KEY = {
  imageState: 'busbar.image',
  volumeState: 'busbar.volume',
  volumeOrigin: 'busbar.origin',
  /** The temporary name that the volume was made under: tells whose rename gave it its final name. */
  volumeMadeAs: 'busbar.made_as',
  format: 'busbar.format',
  streamBytes: 'busbar.stream_bytes',
  sha256: 'busbar.sha256',
} as const;
const COMPLETE = 'complete';

export function volumeMetadata(origin: ImageId | null, madeAs: string): Metadata {
  // In this order: the state comes last, so it says that everything before it is there.
  return { [KEY.volumeOrigin]: origin ?? '', [KEY.volumeMadeAs]: madeAs, [KEY.volumeState]: COMPLETE };
}

/** Written before the first byte goes, and never taken back: from then on the volume may have holes. */
export const VOLUME_DELETING: Metadata = { [KEY.volumeState]: 'deleting' };

export function isCompleteVolume(info: ImageInfo): boolean {
  return info.metadata[KEY.volumeState] === COMPLETE;
}

export function isVolumeBeingDeleted(info: ImageInfo): boolean {
  return info.metadata[KEY.volumeState] === VOLUME_DELETING[KEY.volumeState];
}

export function volumeMadeAs(info: ImageInfo): string {
  return info.metadata[KEY.volumeMadeAs] ?? '';
}

export function volumeOrigin(info: ImageInfo): ImageId | null {
  const origin = info.metadata[KEY.volumeOrigin] ?? '';
  return origin === '' ? null : (origin as ImageId);
}

export const IMAGE_RECEIVING: Metadata = { [KEY.imageState]: 'receiving' };
export const IMAGE_DELETING: Metadata = { [KEY.imageState]: 'deleting' };
export const IMAGE_COMPLETE: Metadata = { [KEY.imageState]: COMPLETE };

export function sealedImage(origin: ImageOrigin): Metadata {
  return {
    [KEY.format]: origin.format,
    [KEY.streamBytes]: String(origin.streamBytes),
    [KEY.sha256]: origin.sha256,
    ...IMAGE_COMPLETE,
  };
}

export function isCompleteImage(info: ImageInfo): boolean {
  const base = info.snapshots.find((snapshot) => snapshot.name === BASE);
  return info.metadata[KEY.imageState] === COMPLETE && base?.isProtected === true;
}

export function imageOrigin(info: ImageInfo): ImageOrigin {
  return {
    format: info.metadata[KEY.format] ?? '',
    streamBytes: BigInt(info.metadata[KEY.streamBytes] ?? '0'),
    sha256: info.metadata[KEY.sha256] ?? '',
  };
}
