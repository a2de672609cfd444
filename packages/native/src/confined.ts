// SPDX-License-Identifier: Apache-2.0
/**
 * Files in a directory that other hosts write to, too: a pool that is shared. What lies there under a name that we know may
 * be a link to something of ours, and whoever opens it as root gives it away.
 *
 * Node has no openat2(2). The same is had by opening one name at a time, each below the directory that is open already
 * (/proc/self/fd/N/NAME) and none through a link: RESOLVE_NO_SYMLINKS and RESOLVE_BENEATH. It protects our own opens. What
 * somebody else opens by path afterwards (QEMU, libvirt's chown) is protected by the mount: with `nosymfollow` the kernel
 * follows no link in it, for anybody, at any time.
 */
import { constants } from 'node:fs';
import { type FileHandle, open, readFile, realpath } from 'node:fs/promises';
import { assert } from '@busbar/core/assert';
import { BusbarError } from '@busbar/core/errors';

/** What a shared directory has to be mounted with. */
export const CONFINED_OPTIONS = ['nosymfollow', 'nodev', 'nosuid'] as const;

/** A name, not a path: what follows cannot leave the directory. */
const NAME = /^(?!\.{1,2}$)[^/\0]+$/;
/** A FIFO that nobody writes to would hold the call for ever. */
const FLAGS = constants.O_NOFOLLOW | constants.O_NONBLOCK;

/** Opens `root/parts[0]/…`, through no link below `root`. What is opened is a regular file with this one name. */
export async function openPlainFile(
  root: string,
  parts: readonly string[],
  flags: number = constants.O_RDONLY,
): Promise<FileHandle> {
  for (const part of parts) assert(NAME.test(part), `${part} is a name`);
  const path = [root, ...parts].join('/');
  let directory = await open(root, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    for (const part of parts.slice(0, -1)) {
      const next = await openBelow(directory, part, constants.O_RDONLY | constants.O_DIRECTORY, path);
      await directory.close();
      directory = next;
    }
    const file = await openBelow(directory, parts.at(-1) ?? '', flags, path);
    try {
      const { nlink } = await requireRegular(file, path);
      if (nlink !== 1) throw unsafe(path, `has ${nlink} names, so it is the file of something else as well`);
      return file;
    } catch (error) {
      await file.close();
      throw error;
    }
  } finally {
    await directory.close();
  }
}

async function openBelow(directory: FileHandle, name: string, flags: number, path: string): Promise<FileHandle> {
  try {
    return await open(`/proc/self/fd/${directory.fd}/${name}`, flags | FLAGS);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ELOOP') throw unsafe(path, `goes through the symbolic link "${name}"`);
    // A socket, or a device on a mount without devices.
    if (code === 'ENXIO' || code === 'EACCES') throw unsafe(path, 'is not a regular file');
    throw error;
  }
}

async function requireRegular(file: FileHandle, path: string): Promise<{ readonly nlink: number }> {
  const stat = await file.stat();
  if (!stat.isFile()) throw unsafe(path, 'is not a regular file');
  return stat;
}

function unsafe(path: string, why: string): BusbarError {
  return new BusbarError({
    kind: 'precondition',
    reason: 'FILE_UNSAFE',
    message: `${path} ${why}`,
    hint: 'nobody but Busbar may change what is in the pool: look at who did, and restore the file',
  });
}

/** Why a directory that is shared cannot be trusted; empty when its mount keeps what it should. */
export async function whyNotConfined(directory: string, mountsFile = '/proc/self/mountinfo'): Promise<string> {
  const [real, text] = await Promise.all([realpath(directory), readFile(mountsFile, 'utf8')]);
  const has = optionsOf(real, text);
  const missing = CONFINED_OPTIONS.filter((option) => !has.includes(option));
  if (missing.length === 0) return '';
  return (
    `the pool's directory ${directory} is mounted without ${missing.join(', ')}: a link in it could give a guest any file ` +
    `of this host. Mount it with -o ${CONFINED_OPTIONS.join(',')}`
  );
}

/** The options of the mount that a path is on. Of mounts on one point the last one is what is seen. Pure. */
function optionsOf(path: string, mountinfo: string): readonly string[] {
  let best = { length: -1, options: [] as readonly string[] };
  for (const line of mountinfo.split('\n')) {
    const [, , , , point = '', options = ''] = line.split(' ');
    const at = point.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
    const covers = at === '/' || path === at || path.startsWith(`${at}/`);
    if (at !== '' && covers && at.length >= best.length) best = { length: at.length, options: options.split(',') };
  }
  return best.options;
}
