// SPDX-License-Identifier: Apache-2.0
import type { Epoch, ImageId, VmId, VolumeId } from '@busbar/core/ids';

/**
 * What a pool of volumes can do. Implementations: rbd (librados/librbd for management, Ceph's own
 * programs for bulk data), dir (files in a directory that all hosts mount), sim. All pass conformance.ts.
 *
 * Every call is idempotent, because a saga may repeat it after a crash: creating what already
 * exists with the same parameters succeeds, deleting what is absent succeeds. Every call ends within
 * the driver's deadline, with a BusbarError whose reason is one of StorageReason.
 */
export interface StorageDriver {
  readonly kind: 'rbd' | 'dir' | 'sim';
  /** Whose keys open the disks: nobody needs one; each start of a VM has its own; all hosts have the same. */
  readonly diskKeys: 'none' | 'vm' | 'shared';
  capacity(): Promise<PoolCapacity>;

  /** An empty volume. Refuses (VOLUME_EXISTS_DIFFERENT) when one of that id has another size or origin. */
  createVolume(request: { readonly volumeId: VolumeId; readonly sizeBytes: bigint }): Promise<void>;
  /**
   * A clone of an image, grown to `sizeBytes` (VOLUME_SHRINK below the image's virtual size). Takes no
   * space of its own where the pool can share blocks (rbd; dir on a file system with reflinks).
   */
  cloneVolume(request: {
    readonly volumeId: VolumeId;
    readonly imageId: ImageId;
    readonly sizeBytes: bigint;
  }): Promise<void>;
  /**
   * Grows only: shrinking cuts off guest data and is refused (VOLUME_SHRINK). Refused (VOLUME_IN_USE) while a client has it
   * open: growing needs the image's lock, which librbd takes from a QEMU that stands still for 30 s by blocklisting it, and
   * its guest is lost. Who has it open grows it, and so sees the new size.
   */
  resizeVolume(volumeId: VolumeId, sizeBytes: bigint): Promise<void>;
  /**
   * Refuses (VOLUME_IN_USE) while a client has it open; rbd believes so of a killed client for 30 s. From the first byte
   * that goes, the volume is half-made for all to see, so that a deletion that was cut off is repeated and never called off.
   * `neverUsed` is the caller's word that no VM ever had it open: whoever has it open is the orphan of a
   * controller that was killed, which is fenced instead of waited for.
   */
  deleteVolume(volumeId: VolumeId, options?: { readonly neverUsed: boolean }): Promise<void>;
  /** Null also for one that a crash left half-made, or half-deleted: repeat that, or delete it. */
  statVolume(volumeId: VolumeId): Promise<VolumeStat | null>;
  /** Sorted; half-made ones too, so that they can be found and deleted. */
  listVolumes(): Promise<readonly VolumeId[]>;

  /**
   * Reads `source` to its end and makes a read-only image of it. Nothing is visible before the whole
   * stream arrived and was found sound (a half-made image is removed; one left by a crash is
   * replaced by the next import and reported by `listImages` with complete=false).
   * A complete image of that id is success without reading `source` when its format, length and (where
   * both sides know it) checksum are the same, else IMAGE_EXISTS_DIFFERENT.
   * Refuses IMAGE_INVALID (truncated, not of the named format, needs a backing or external file),
   * POOL_FULL (does not fit), IMAGE_CHECKSUM (sha256 given and different).
   */
  importImage(request: ImportRequest): Promise<ImageStat>;
  /** Refuses (IMAGE_IN_USE) while volumes are clones of it; removes a half-made one too. */
  deleteImage(imageId: ImageId): Promise<void>;
  /** Null also while it is half-made. */
  statImage(imageId: ImageId): Promise<ImageStat | null>;
  /** Sorted. */
  listImages(): Promise<readonly { readonly imageId: ImageId; readonly complete: boolean }[]>;

  /** The disk on which qcow2 streams wait on this host; null where there is none. */
  spool(): Promise<SpoolState | null>;
  /**
   * Lets one start of a VM open exactly these volumes, and read the images that they are made from; answers as whom. The
   * same request again gives the same answer. Null where volumes are opened without a key (dir), or with the one that the
   * hosts have (rbd with `identities: shared`). A volume that is not there is not granted: QEMU says so when it starts.
   */
  grantAccess(request: AccessRequest): Promise<AccessGrant | null>;
  /** Ends what was granted to starts of the VM that are over. Nothing granted: success. */
  revokeAccess(vmId: VmId, epochs: readonly Epoch[]): Promise<void>;
  /** How a hypervisor opens the volume. */
  diskSource(volumeId: VolumeId): DiskSource;
  /** Ends running calls and lets go of every handle and child process. */
  close(): Promise<void>;
}

export interface AccessRequest {
  readonly vmId: VmId;
  readonly epoch: Epoch;
  readonly disks: readonly {
    readonly volumeId: VolumeId;
    /** The image that the volume is a clone of, by the cluster's records: what the volume says of itself is the guest's to forge. */
    readonly imageId: ImageId | null;
  }[];
}

/** The key opens disks: it goes to the host that runs the VM, and into no record, log or error. */
export interface AccessGrant {
  readonly user: string;
  readonly key: Buffer;
}

export type ImageFormat = 'raw' | 'qcow2';

export interface ImportRequest {
  readonly imageId: ImageId;
  readonly format: ImageFormat;
  /** Length of the stream; a stream of another length is refused as truncated or too long. */
  readonly sizeBytes: bigint;
  /** Lower-case hex; null when the sender does not know it. */
  readonly sha256: string | null;
  readonly source: AsyncIterable<Uint8Array>;
  readonly signal: AbortSignal;
  /** Called with the bytes taken from `source` so far, and in the end phase with the phase's name. */
  readonly onProgress?: (progress: {
    readonly phase: 'receive' | 'convert' | 'seal';
    readonly doneBytes: bigint;
  }) => void;
}

export interface ImageStat {
  /** Size of the disk that the guest sees. */
  readonly virtualSizeBytes: bigint;
  /** Space really taken in the pool (one copy), in the pool's granularity (rbd: objects of 4 MiB). */
  readonly allocatedBytes: bigint;
  /** Of the stream as received; empty when unknown (image made by an older driver). */
  readonly sha256: string;
}

export interface VolumeStat {
  readonly sizeBytes: bigint;
  readonly allocatedBytes: bigint;
  readonly parentImageId: ImageId | null;
}

export interface PoolCapacity {
  /** Usable for data, i.e. after replication. */
  readonly totalBytes: bigint;
  readonly availableBytes: bigint;
}

export interface SpoolState {
  readonly dir: string;
  readonly totalBytes: bigint;
  readonly freeBytes: bigint;
  /** What imports leave free. */
  readonly reserveBytes: bigint;
}

export type DiskSource =
  | { readonly kind: 'rbd'; readonly pool: string; readonly image: string }
  | { readonly kind: 'file'; readonly path: string; readonly format: 'raw' };

/** Stable reasons of BusbarError thrown by storage drivers; errors.ts gives each its kind. */
export const STORAGE_REASONS = {
  volumeExistsDifferent: 'VOLUME_EXISTS_DIFFERENT',
  /** Not a positive multiple of 512 bytes. */
  volumeSize: 'VOLUME_SIZE',
  volumeShrink: 'VOLUME_SHRINK',
  volumeInUse: 'VOLUME_IN_USE',
  volumeNotFound: 'VOLUME_NOT_FOUND',
  imageNotFound: 'IMAGE_NOT_FOUND',
  imageInUse: 'IMAGE_IN_USE',
  /** A complete image of that id was made from another stream. */
  imageExistsDifferent: 'IMAGE_EXISTS_DIFFERENT',
  imageInvalid: 'IMAGE_INVALID',
  imageChecksum: 'IMAGE_CHECKSUM',
  /** Another import or deletion of the same image is under way here. */
  imageBusy: 'IMAGE_BUSY',
  /** The caller's signal aborted the import, or its stream broke off or fell silent. */
  importCancelled: 'IMPORT_CANCELLED',
  /** The sender keeps an import's place and sends next to nothing. */
  importTooSlow: 'IMPORT_TOO_SLOW',
  poolFull: 'POOL_FULL',
  /** The host's spool directory, where qcow2 streams wait for conversion, has no room above what is kept free there. */
  spoolFull: 'SPOOL_FULL',
  storageUnavailable: 'STORAGE_UNAVAILABLE',
  storageTimeout: 'STORAGE_TIMEOUT',
  /** The storage answered something that the driver does not know; the message has it. */
  storageFailed: 'STORAGE_FAILED',
} as const;
