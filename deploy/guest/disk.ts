// SPDX-License-Identifier: Apache-2.0
// Lays out the disk: protective MBR with GRUB's boot sector, GPT, partitions. Identifiers are constants, so that
// the same inputs give the same bytes.
import { crc32 } from 'node:zlib';

const SECTOR_BYTES = 512;
const ENTRY_COUNT = 128;
const ENTRY_BYTES = 128;
const ENTRY_SECTORS = (ENTRY_COUNT * ENTRY_BYTES) / SECTOR_BYTES;
const FIRST_USABLE_LBA = 2 + ENTRY_SECTORS;
const MIB_SECTORS = (1024 * 1024) / SECTOR_BYTES;

// Partition types from the UEFI specification, GRUB's manual ("Hah!IdontNeedEFI") and Linux ("Linux filesystem data").
const TYPE_BIOS_BOOT = '21686148-6449-6e6f-744e-656564454649';
const TYPE_EFI_SYSTEM = 'c12a7328-f81f-11d2-ba4b-00a0c93ec93b';
const TYPE_LINUX_DATA = '0fc63daf-8483-4772-8e79-3d69d8477de4';
const DISK_GUID = 'b05ba300-6275-7362-6172-000000000000';

/** The guest finds its reserved partition by this name (rootfs/lib/busbar/hardware.sh). */
export const COUNTER_PARTITION = 'busbar-counter';

// Offsets inside GRUB's boot.img and diskboot.img (include/grub/i386/pc/boot.h of GRUB 2.06).
const BOOT_CODE_BYTES = 440;
const BOOT_KERNEL_SECTOR = 0x5c;
const BOOT_DRIVE_CHECK = 0x66;
const DISKBOOT_FIRST_BLOCK = SECTOR_BYTES - 12;

type Partition = { name: string; type: string; firstLba: number; lastLba: number };

export type DiskParts = {
  /** GRUB's first sector (boot.img). */
  bootSector: Buffer;
  /** GRUB itself (core.img), placed in the BIOS boot partition. */
  core: Buffer;
  /** FAT file system with the kernels; a whole number of MiB. */
  system: Buffer;
};

/** BIOS boot (to 1 MiB), EFI system, 1 MiB for the counter, backup GPT. */
export function diskImage({ bootSector, core, system }: DiskParts): Buffer {
  const systemLba = MIB_SECTORS;
  const counterLba = systemLba + system.length / SECTOR_BYTES;
  const sectors = counterLba + 2 * MIB_SECTORS;
  const partitions: Partition[] = [
    { name: 'busbar-bios', type: TYPE_BIOS_BOOT, firstLba: FIRST_USABLE_LBA, lastLba: systemLba - 1 },
    { name: 'busbar-system', type: TYPE_EFI_SYSTEM, firstLba: systemLba, lastLba: counterLba - 1 },
    { name: COUNTER_PARTITION, type: TYPE_LINUX_DATA, firstLba: counterLba, lastLba: counterLba + MIB_SECTORS - 1 },
  ];
  if (core.length > (systemLba - FIRST_USABLE_LBA) * SECTOR_BYTES) throw new Error('GRUB is larger than its partition');

  const disk = Buffer.alloc(sectors * SECTOR_BYTES);
  masterBootRecord(bootSector, sectors).copy(disk, 0);
  const entries = partitionEntries(partitions);
  gptHeader(entries, { own: 1, other: sectors - 1, entriesAt: 2, sectors }).copy(disk, SECTOR_BYTES);
  entries.copy(disk, 2 * SECTOR_BYTES);
  const backupEntriesLba = sectors - 1 - ENTRY_SECTORS;
  entries.copy(disk, backupEntriesLba * SECTOR_BYTES);
  gptHeader(entries, { own: sectors - 1, other: 1, entriesAt: backupEntriesLba, sectors }).copy(
    disk,
    (sectors - 1) * SECTOR_BYTES,
  );
  core.copy(disk, FIRST_USABLE_LBA * SECTOR_BYTES);
  // The first sector of core.img loads the rest, which follows it.
  disk.writeBigUInt64LE(BigInt(FIRST_USABLE_LBA + 1), FIRST_USABLE_LBA * SECTOR_BYTES + DISKBOOT_FIRST_BLOCK);
  system.copy(disk, systemLba * SECTOR_BYTES);
  return disk;
}

function masterBootRecord(bootSector: Buffer, sectors: number): Buffer {
  const mbr = Buffer.alloc(SECTOR_BYTES);
  bootSector.copy(mbr, 0, 0, BOOT_CODE_BYTES);
  mbr.writeBigUInt64LE(BigInt(FIRST_USABLE_LBA), BOOT_KERNEL_SECTOR);
  // Two NOPs over a jump: trust the drive number that the BIOS passes (what grub-bios-setup does for hard disks).
  mbr.writeUInt16LE(0x9090, BOOT_DRIVE_CHECK);
  const entry = 446;
  mbr.writeUInt32LE(0x00020000, entry); // not active, CHS 0/0/2
  mbr.writeUInt32LE(0xffffffee, entry + 4); // type EE: GPT, CHS end at its maximum
  mbr.writeUInt32LE(1, entry + 8);
  mbr.writeUInt32LE(sectors - 1, entry + 12);
  mbr.writeUInt16LE(0xaa55, 510);
  return mbr;
}

function partitionEntries(partitions: readonly Partition[]): Buffer {
  const entries = Buffer.alloc(ENTRY_COUNT * ENTRY_BYTES);
  partitions.forEach(({ name, type, firstLba, lastLba }, index) => {
    const at = index * ENTRY_BYTES;
    guidBytes(type).copy(entries, at);
    guidBytes(DISK_GUID.slice(0, -1) + (index + 1)).copy(entries, at + 16);
    entries.writeBigUInt64LE(BigInt(firstLba), at + 32);
    entries.writeBigUInt64LE(BigInt(lastLba), at + 40);
    entries.write(name, at + 56, 'utf16le');
  });
  return entries;
}

type HeaderPlace = { own: number; other: number; entriesAt: number; sectors: number };

function gptHeader(entries: Buffer, { own, other, entriesAt, sectors }: HeaderPlace): Buffer {
  const header = Buffer.alloc(92);
  header.write('EFI PART', 0);
  header.writeUInt32LE(0x00010000, 8);
  header.writeUInt32LE(header.length, 12);
  header.writeBigUInt64LE(BigInt(own), 24);
  header.writeBigUInt64LE(BigInt(other), 32);
  header.writeBigUInt64LE(BigInt(FIRST_USABLE_LBA), 40);
  header.writeBigUInt64LE(BigInt(sectors - 2 - ENTRY_SECTORS), 48);
  guidBytes(DISK_GUID).copy(header, 56);
  header.writeBigUInt64LE(BigInt(entriesAt), 72);
  header.writeUInt32LE(ENTRY_COUNT, 80);
  header.writeUInt32LE(ENTRY_BYTES, 84);
  header.writeUInt32LE(crc32(entries), 88);
  header.writeUInt32LE(crc32(header), 16);
  return header;
}

/** The first three groups of a GUID are stored little-endian. */
function guidBytes(guid: string): Buffer {
  const bytes = Buffer.from(guid.replaceAll('-', ''), 'hex');
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  return bytes;
}
