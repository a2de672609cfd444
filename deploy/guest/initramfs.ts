// SPDX-License-Identifier: Apache-2.0
// What the guest runs: busybox, the guest agent with its libraries, the scripts of rootfs/, and each kernel's modules.
import { readdir, readFile, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { type CpioEntry, cpioArchive } from './cpio.ts';
import { run } from './run.ts';

const BUSYBOX = '/bin/busybox';
const GUEST_AGENT = '/usr/sbin/qemu-ga';

/** Drivers that the guest may need; one that a kernel does not have is left out. */
const DRIVERS = [
  ...['virtio_pci', 'virtio_blk', 'virtio_net', 'virtio_scsi', 'virtio_console', 'virtio_rng', 'virtio_balloon'],
  ...['scsi_mod', 'sd_mod', 'sr_mod', 'ata_piix', 'ahci'],
  ...['isofs', 'vfat', 'nls_cp437', 'nls_ascii'],
  ...['evdev', 'button', 'i6300esb', 'e1000', 'e1000e'],
];

export async function baseArchive(rootfs: string): Promise<Buffer> {
  const entries: CpioEntry[] = [
    { kind: 'device', path: 'dev/console', mode: 0o600, major: 5, minor: 1 },
    ...(await scripts(rootfs)),
    await program(BUSYBOX, 'bin/busybox'),
    await program(GUEST_AGENT, 'bin/qemu-ga'),
  ];
  const applets = (await run(BUSYBOX, ['--list'])).trim().split('\n');
  const taken = new Set(entries.map(({ path }) => basename(path)));
  for (const applet of applets) {
    if (!taken.has(applet)) entries.push({ kind: 'link', path: `bin/${applet}`, target: 'busybox' });
  }
  for (const library of await librariesOf(GUEST_AGENT)) entries.push(await program(library, library.slice(1)));
  return cpioArchive([...entries, ...['proc', 'sys', 'run', 'tmp'].map(emptyDirectoryMarker)]);
}

// An archive knows directories by what is in them.
function emptyDirectoryMarker(path: string): CpioEntry {
  return { kind: 'file', path: `${path}/.keep`, mode: 0o644, data: new Uint8Array() };
}

/** All modules of one kernel in one folder, and for each driver a file naming what to load, in order. */
export async function moduleArchive(release: string): Promise<Buffer> {
  const entries = new Map<string, CpioEntry>();
  for (const driver of DRIVERS) {
    const needed: string[] = [];
    for (const path of await modulesOf(release, driver)) {
      // /sys/module has underscores even where the file has dashes.
      const name = basename(path, '.ko').replaceAll('-', '_');
      needed.push(name);
      const target = `lib/modules/${release}/${name}.ko`;
      entries.set(target, { kind: 'file', path: target, mode: 0o644, data: withoutSignature(await readFile(path)) });
    }
    if (needed.length === 0) continue;
    const list = `lib/modules/${release}/${driver}.needs`;
    entries.set(list, { kind: 'file', path: list, mode: 0o644, data: Buffer.from(`${needed.join(' ')}\n`) });
  }
  return cpioArchive([...entries.values()]);
}

const SIGNATURE_MAGIC = Buffer.from('~Module signature appended~\n');

/**
 * Checking a signature takes the kernel some 40 ms under emulation, for each module. Without one it loads the module
 * and taints itself (no secure boot here: GRUB is built without a signature too).
 */
function withoutSignature(module: Buffer): Buffer {
  if (!module.subarray(-SIGNATURE_MAGIC.length).equals(SIGNATURE_MAGIC)) return module;
  // struct module_signature (12 bytes, its last field the big-endian length of the signature) precedes the magic.
  const info = module.length - SIGNATURE_MAGIC.length - 12;
  return module.subarray(0, info - module.readUInt32BE(info + 8));
}

async function modulesOf(release: string, driver: string): Promise<string[]> {
  let lines: string;
  try {
    lines = await run('modprobe', ['--set-version', release, '--show-depends', driver]);
  } catch {
    // Debian's cloud kernel has no AHCI, i6300esb or e1000.
    return [];
  }
  return lines
    .split('\n')
    .map((line) => /^insmod (\S+\.ko)/.exec(line)?.[1])
    .filter((path) => path !== undefined);
}

async function scripts(rootfs: string): Promise<CpioEntry[]> {
  const files = (await readdir(rootfs, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
  return Promise.all(
    files.map(async (entry): Promise<CpioEntry> => {
      const source = join(entry.parentPath, entry.name);
      // Only the executable bit counts, whatever the umask of the checkout was.
      const executable = ((await stat(source)).mode & 0o100) !== 0;
      const mode = executable ? 0o755 : 0o644;
      return { kind: 'file', path: source.slice(rootfs.length + 1), mode, data: await readFile(source) };
    }),
  );
}

async function program(source: string, path: string): Promise<CpioEntry> {
  return { kind: 'file', path, mode: 0o755, data: await readFile(source) };
}

/** ldd names the loader without an arrow: "/lib64/ld-linux-x86-64.so.2 (0x…)". */
async function librariesOf(binary: string): Promise<string[]> {
  const lines = (await run('ldd', [binary])).split('\n');
  return lines.map((line) => /(?:=> )?(\/\S+) \(0x/.exec(line)?.[1]).filter((path) => path !== undefined);
}
