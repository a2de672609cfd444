// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import type { DomainDisk } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { DiskBus, DiskCache } from '@busbar/proto/gen/busbar/v1/vm';
import type { RbdFacts } from './facts.ts';
import { childrenNamed, element, find, textOf, type XmlElement } from './xml.ts';

/** virtio-blk's serial number is a field of this many bytes. */
const SERIAL_LENGTH = 20;

const BUSES: Readonly<Record<DiskBus, 'virtio' | 'scsi' | 'sata'>> = {
  [DiskBus.UNSPECIFIED]: 'virtio',
  [DiskBus.UNRECOGNIZED]: 'virtio',
  [DiskBus.VIRTIO]: 'virtio',
  [DiskBus.SCSI]: 'scsi',
  [DiskBus.SATA]: 'sata',
};

const CACHES: Readonly<Record<DiskCache, 'none' | 'writeback' | 'writethrough'>> = {
  [DiskCache.UNSPECIFIED]: 'none',
  [DiskCache.UNRECOGNIZED]: 'none',
  [DiskCache.NONE]: 'none',
  [DiskCache.WRITEBACK]: 'writeback',
  [DiskCache.WRITETHROUGH]: 'writethrough',
};

/** Hands out `vda`, `vdb` … and `sda` …; what the guest calls them is its own affair. */
export class DeviceNames {
  #virtio = 0;
  #scsi = 0;

  next(bus: 'virtio' | 'scsi' | 'sata'): string {
    return bus === 'virtio' ? `vd${letters(this.#virtio++)}` : `sd${letters(this.#scsi++)}`;
  }
}

/** Hands out I/O threads, in turn. */
export class IoThreads {
  readonly #count: number;
  #next = 0;

  constructor(count: number) {
    this.#count = count;
  }

  /** Undefined when there are none. libvirt counts from 1. */
  next(): number | undefined {
    return this.#count === 0 ? undefined : (this.#next++ % this.#count) + 1;
  }

  /** For a controller, which serves all its disks by one. */
  driver(): XmlElement[] {
    const iothread = this.next();
    return iothread === undefined ? [] : [element('driver', { iothread })];
  }
}

/** a … z, aa, ab … as the kernel counts disks. */
function letters(index: number): string {
  const rest = Math.floor(index / 26);
  return (rest === 0 ? '' : letters(rest - 1)) + String.fromCharCode(97 + (index % 26));
}

export function diskElement(
  disk: DomainDisk,
  names: DeviceNames,
  rbd: RbdFacts | null,
  ioThreads: IoThreads,
): XmlElement {
  const bus = BUSES[disk.bus];
  const cache = CACHES[disk.cache];
  const isRbd = disk.source?.$case === 'rbd';
  return element(
    'disk',
    { type: isRbd ? 'network' : 'file', device: 'disk' },
    element('driver', {
      name: 'qemu',
      type: 'raw',
      cache,
      // A guest that lost its storage (fenced, pool full) pauses: with `report` it would remount its
      // file system read-only or worse, and need a person.
      error_policy: 'stop',
      rerror_policy: 'stop',
      // Kernel aio needs O_DIRECT, which only cache=none opens with; librbd has its own threads.
      io: isRbd ? undefined : cache === 'none' ? 'native' : 'threads',
      discard: 'unmap',
      // Only virtio-blk has a thread of its own; SCSI disks have their controller's.
      iothread: bus === 'virtio' ? ioThreads.next() : undefined,
    }),
    ...sourceElements(disk, rbd),
    element('target', { dev: names.next(bus), bus }),
    element('serial', {}, serialOf(disk.volumeId)),
    disk.readOnly ? element('readonly') : null,
    disk.bootOrder > 0 ? element('boot', { order: disk.bootOrder }) : null,
  );
}

const serialOf = (volumeId: string): string => volumeId.slice(0, SERIAL_LENGTH);

/** What libvirt calls the disk that a volume is in a domain ("vda"); undefined when it has no such disk. */
export function targetOf(domain: XmlElement, volumeId: string): string | undefined {
  const devices = find(domain, 'devices');
  const disks = devices === undefined ? [] : childrenNamed(devices, 'disk');
  const found = disks.filter((disk) => {
    const serial = find(disk, 'serial');
    return serial !== undefined && textOf(serial) === serialOf(volumeId);
  });
  // Two volumes with one beginning are told apart by nothing here: better none than the wrong one.
  return found.length === 1 && found[0] !== undefined ? find(found[0], 'target')?.attributes.dev : undefined;
}

function sourceElements(disk: DomainDisk, rbd: RbdFacts | null): XmlElement[] {
  switch (disk.source?.$case) {
    case 'file':
      return [element('source', { file: disk.source.value.path })];
    case 'rbd': {
      if (rbd === null) throw invalidDisk(disk, 'is in Ceph, and this host has no access to Ceph configured');
      const { pool, image } = disk.source.value;
      return [
        element('auth', { username: rbd.user }, element('secret', { type: 'ceph', uuid: rbd.secretUuid })),
        element(
          'source',
          { protocol: 'rbd', name: `${pool}/${image}` },
          ...rbd.monitors.map((monitor) => element('host', splitAddress(monitor))),
        ),
      ];
    }
    case undefined:
      throw invalidDisk(disk, 'says not where it is');
  }
}

/** `[fd00::1]:6789`, `10.0.0.1:6789`, `10.0.0.1`; without a port it is Ceph's default. */
function splitAddress(address: string): { name: string; port: string | undefined } {
  const bracketed = /^\[(.+)\](?::(\d+))?$/.exec(address);
  if (bracketed !== null) return { name: bracketed[1] ?? '', port: bracketed[2] };
  const colon = address.lastIndexOf(':');
  if (colon < 0 || address.indexOf(':') !== colon) return { name: address, port: undefined };
  return { name: address.slice(0, colon), port: address.slice(colon + 1) };
}

function invalidDisk(disk: DomainDisk, why: string): BusbarError {
  return new BusbarError({ kind: 'invalid', reason: 'DISK_INVALID', message: `disk ${disk.name} ${why}` });
}
