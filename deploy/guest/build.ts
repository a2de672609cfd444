// SPDX-License-Identifier: Apache-2.0
// Builds the demo and test guest: a small disk image that boots by BIOS and UEFI (see README.md).
// A library (buildGuestImage) and a program (`node deploy/guest/build.ts --help`).
import { createHash, randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { diskImage } from './disk.ts';
import { baseArchive, moduleArchive } from './initramfs.ts';
import { run } from './run.ts';

export type GuestImageFormat = 'raw' | 'qcow2';

export type GuestImageOptions = {
  /** Where the image goes; default `.cache/guest/busbar-guest.raw` (or .qcow2) below the repository. */
  output?: string;
  format?: GuestImageFormat;
  /** Build even if nothing changed. */
  force?: boolean;
};

export type GuestImage = { path: string; sha256: string; sizeBytes: number };

export class GuestBuildFailed extends Error {}

const HERE = import.meta.dirname;
const ROOTFS = join(HERE, 'rootfs');
const DEFAULT_FOLDER = resolve(HERE, '../../.cache/guest');
const BOOT_FOLDER = '/boot';
const GRUB_FOLDER = '/usr/lib/grub';

// 2025-01-01: any fixed time, for the file dates inside the image.
const SOURCE_DATE_EPOCH = '1735689600';
const MIB = 1024 * 1024;
// 4 KiB: few enough to read fast, and small enough that the FAT16 has the 4085 clusters it needs from 16 MiB on.
const FAT_CLUSTER_SECTORS = '8';
const FAT_OVERHEAD_BYTES = MIB;

const KERNEL_PARAMETERS = [
  'console=tty0',
  'console=ttyS0,115200',
  'quiet',
  // Tells the first program to wait for the disk it came from.
  'busbar.own-disk',
  // Reboot rather than hang: a supervisor sees the guest come back.
  'panic=5',
  // Start-up time under emulation: skip self-tests and what a guest with one program cannot use.
  'cryptomgr.notests',
  'mitigations=off',
  'no_timer_check',
  'audit=0',
  'apparmor=0',
];

const BASE_GRUB_MODULES = ['part_gpt', 'fat', 'normal', 'test', 'regexp', 'setpci', 'memrw', 'boot'];

export async function buildGuestImage(options: GuestImageOptions = {}): Promise<GuestImage> {
  const format = options.format ?? 'raw';
  const path = resolve(options.output ?? join(DEFAULT_FOLDER, `busbar-guest.${format}`));
  const kernels = await findKernels();
  const key = await inputsKey(kernels, format);
  const cached = options.force === true ? undefined : await cachedImage(path, key);
  if (cached !== undefined) return cached;

  await mkdir(dirname(path), { recursive: true });
  const work = await mkdtemp(join(tmpdir(), 'busbar-guest-'));
  // In the folder of the output, because only within one file system does a rename replace atomically.
  const unfinished = `${path}.${randomUUID()}.tmp`;
  try {
    const disk = await assembleDisk(work, kernels);
    if (format === 'raw') {
      await writeFile(unfinished, disk);
    } else {
      const raw = join(work, 'disk.raw');
      await writeFile(raw, disk);
      await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', raw, unfinished]);
    }
    const content = await readFile(unfinished);
    const image = { path, sha256: sha256(content), sizeBytes: content.length };
    await rename(unfinished, path);
    await writeFile(sidecar(path), `${JSON.stringify({ key, sha256: image.sha256 })}\n`);
    return image;
  } finally {
    await rm(work, { recursive: true, force: true });
    await rm(unfinished, { force: true });
  }
}

type Kernels = { cloud: string; general: string | undefined };

/** The newest of each flavour in /boot. The general one is optional: without it, no SATA and no i6300esb. */
async function findKernels(): Promise<Kernels> {
  const releases = (await readdir(BOOT_FOLDER))
    .map((name) => /^vmlinuz-(.+-amd64)$/.exec(name)?.[1])
    .filter((release) => release !== undefined)
    .sort((left, right) => left.localeCompare(right, 'en', { numeric: true }));
  const cloud = releases.findLast((release) => release.endsWith('-cloud-amd64'));
  const general = releases.findLast((release) => /^[\d.-]+-amd64$/.test(release));
  if (cloud === undefined) {
    throw new GuestBuildFailed(`no cloud kernel in ${BOOT_FOLDER}: install linux-image-cloud-amd64`);
  }
  return { cloud, general };
}

async function inputsKey({ cloud, general }: Kernels, format: GuestImageFormat): Promise<string> {
  const hash = createHash('sha256').update(`${format} ${cloud} ${general}\n`);
  const packages = [`linux-image-${cloud}`, ...(general === undefined ? [] : [`linux-image-${general}`])];
  packages.push('busybox-static', 'qemu-guest-agent', 'libglib2.0-0', 'libc6', 'dosfstools', 'mtools', 'lz4');
  packages.push('grub-common', 'grub-pc-bin', 'grub-efi-amd64-bin');
  // Shows the version of each installed one; those that are missing are named when their program is run.
  hash.update(await run('sh', ['-c', 'dpkg-query -W "$@" 2>/dev/null; true', 'sh', ...packages]));
  const sources = (await readdir(HERE, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile() && !/\.test\.ts$|\.md$/.test(entry.name))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
  for (const source of sources) {
    hash.update(source.slice(HERE.length)).update(await readFile(source));
  }
  return hash.digest('hex');
}

/** The image there is, if it came from the same inputs and nobody wrote to it since. */
async function cachedImage(path: string, key: string): Promise<GuestImage | undefined> {
  try {
    const known: unknown = JSON.parse(await readFile(sidecar(path), 'utf8'));
    if (typeof known !== 'object' || known === null || !('key' in known) || !('sha256' in known)) return undefined;
    if (known.key !== key) return undefined;
    const content = await readFile(path);
    const actual = sha256(content);
    return actual === known.sha256 ? { path, sha256: actual, sizeBytes: content.length } : undefined;
  } catch {
    // Absent or unreadable: build.
    return undefined;
  }
}

function sidecar(path: string): string {
  return `${path}.inputs.json`;
}

function sha256(content: Uint8Array): string {
  return createHash('sha256').update(content).digest('hex');
}

async function assembleDisk(work: string, kernels: Kernels): Promise<Buffer> {
  const [base, cloudModules, bios, uefi] = await Promise.all([
    baseArchive(ROOTFS),
    moduleArchive(kernels.cloud),
    grubImage(work, 'i386-pc', '(,gpt2)/EFI/BOOT', ['biosdisk', 'linux16']),
    grubImage(work, 'x86_64-efi', '/EFI/BOOT', ['chain']),
  ]);
  const template = await readFile(join(HERE, 'grub.cfg'), 'utf8');
  const files = new Map<string, Uint8Array>([
    ['EFI/BOOT/BOOTX64.EFI', uefi],
    ['EFI/BOOT/grub.cfg', Buffer.from(template.replaceAll('@CMDLINE@', KERNEL_PARAMETERS.join(' ')))],
    ['vmlinuz-cloud', await kernel(kernels.cloud)],
    ['base.img', await lz4(work, base)],
    ['modules-cloud.img', cloudModules],
  ]);
  if (kernels.general !== undefined) {
    files.set('vmlinuz-general', await kernel(kernels.general));
    files.set('modules-general.img', await moduleArchive(kernels.general));
  }
  const system = await fatFileSystem(work, files);
  return diskImage({ bootSector: await readFile(join(GRUB_FOLDER, 'i386-pc/boot.img')), core: bios, system });
}

/** Under emulation, unpacking LZ4 takes less time than the firmware takes to read the other half. */
async function lz4(work: string, archive: Uint8Array): Promise<Buffer> {
  const plain = join(work, 'base.cpio');
  const packed = join(work, 'base.lz4');
  await writeFile(plain, archive);
  // -l: the legacy format is the one that the kernel knows.
  await run('lz4', ['-l', '-9', '-q', plain, packed]);
  return readFile(packed);
}

function kernel(release: string): Promise<Buffer> {
  return readFile(join(BOOT_FOLDER, `vmlinuz-${release}`));
}

async function grubImage(work: string, target: string, prefix: string, modules: readonly string[]): Promise<Buffer> {
  const output = join(work, `grub-${target}`);
  const folder = join(GRUB_FOLDER, target);
  await run('grub-mkimage', ['-O', target, '-d', folder, '-p', prefix, '-o', output, ...BASE_GRUB_MODULES, ...modules]);
  return readFile(output);
}

async function fatFileSystem(work: string, files: ReadonlyMap<string, Uint8Array>): Promise<Buffer> {
  const tree = join(work, 'system');
  let bytes = FAT_OVERHEAD_BYTES;
  for (const [path, content] of files) {
    const target = join(tree, path);
    await mkdir(dirname(target), { recursive: true });
    await writeFile(target, content);
    bytes += content.length;
  }
  const image = join(work, 'system.fat');
  const kib = String(Math.ceil(bytes / MIB) * 1024);
  const fat = ['-F', '16', '-s', FAT_CLUSTER_SECTORS, '-n', 'BUSBAR', '-i', 'b05ba300', '--invariant'];
  await run('mkfs.vfat', [...fat, '-C', image, kib]);
  const top = (await readdir(tree)).sort().map((name) => join(tree, name));
  await run('mcopy', ['-i', image, '-s', ...top, '::/'], { SOURCE_DATE_EPOCH, TZ: 'UTC' });
  return readFile(image);
}

const HELP = `Builds the Busbar demo guest image. Nothing is done when the inputs have not changed.

usage: node deploy/guest/build.ts [--format raw|qcow2] [--force] [OUTPUT]

  OUTPUT     default .cache/guest/busbar-guest.raw (or .qcow2) in the repository
  --format   raw (default) or qcow2
  --force    build even if nothing changed
  --help     this text

Prints path, SHA-256 and size as JSON. Needs the packages of deploy/guest/debian-packages.txt.
`;

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    options: { format: { type: 'string' }, force: { type: 'boolean' }, help: { type: 'boolean' } },
    allowPositionals: true,
  });
  if (values.help === true) {
    process.stdout.write(HELP);
    return;
  }
  const format = values.format ?? 'raw';
  if ((format !== 'raw' && format !== 'qcow2') || positionals.length > 1) {
    process.stderr.write(HELP);
    process.exitCode = 2;
    return;
  }
  const [output] = positionals;
  const image = await buildGuestImage({
    format,
    force: values.force ?? false,
    ...(output === undefined ? {} : { output }),
  });
  process.stdout.write(`${JSON.stringify(image)}\n`);
}

if (import.meta.main) await main();
