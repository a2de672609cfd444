// SPDX-License-Identifier: Apache-2.0
import { execFile } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { BusbarError } from '@busbar/core/errors';
import type { NoCloudData } from '@busbar/proto/gen/busbar/agent/v1/agent';

const run = promisify(execFile);

/** An ISO of some KiB; a second is already a lot. */
const BUILD_DEADLINE_MS = 10_000;

/** The files of cloud-init's NoCloud source. */
export function seedFiles(data: NoCloudData): Readonly<Record<string, string>> {
  const metaData = `instance-id: ${yamlString(data.instanceId)}\nlocal-hostname: ${yamlString(data.hostname)}\n`;
  return {
    'meta-data': metaData,
    'user-data': data.userData,
    ...(data.networkConfig === '' ? {} : { 'network-config': data.networkConfig }),
  };
}

/**
 * A YAML double-quoted scalar that means exactly `value`, in YAML 1.1 and 1.2. Everything beyond
 * printable ASCII is escaped: cloud-init's parser refuses some of it raw, and reads JSON's
 * surrogate pairs as two broken characters.
 */
export function yamlString(value: string): string {
  let quoted = '"';
  for (const char of value) {
    const code = char.codePointAt(0) ?? 0;
    if (char === '"' || char === '\\') quoted += `\\${char}`;
    else if (code >= 0x20 && code < 0x7f) quoted += char;
    else if (code <= 0xff) quoted += `\\x${code.toString(16).padStart(2, '0')}`;
    else if (code <= 0xffff) quoted += `\\u${code.toString(16).padStart(4, '0')}`;
    else quoted += `\\U${code.toString(16).padStart(8, '0')}`;
  }
  return `${quoted}"`;
}

/** A directory in which a seed disk is being made; what is in it is as secret as the disk. */
const BUILD_PREFIX = '.build-';
/** Of this process. One agent runs on a host at a time (agent.lock), so any other is what a killed one left. */
const building = new Set<string>();

/** Removes what agents that were killed in the middle of making a seed disk have left: it may hold passwords. */
export async function sweepBuilds(seedDir: string): Promise<void> {
  for (const name of await readdir(seedDir).catch(() => [])) {
    const path = join(seedDir, name);
    if (name.startsWith(BUILD_PREFIX) && !building.has(path)) await rm(path, { recursive: true, force: true });
  }
}

/**
 * Makes the seed disk. User data often holds passwords: the files are in a directory that only we
 * can enter, gone before this returns, and the image is readable for us alone (libvirt gives it to
 * QEMU's user at start).
 */
export async function buildSeed(data: NoCloudData, isoPath: string, program = 'xorrisofs'): Promise<void> {
  const parent = dirname(isoPath);
  await mkdir(parent, { recursive: true, mode: 0o711 });
  await sweepBuilds(parent);
  const work = await mkdtemp(join(parent, BUILD_PREFIX));
  building.add(work);
  try {
    const files = join(work, 'files');
    await mkdir(files, { mode: 0o700 });
    for (const [name, text] of Object.entries(seedFiles(data))) {
      await writeFile(join(files, name), text, { mode: 0o600 });
    }
    const made = join(work, 'seed.iso');
    // Joliet and Rock Ridge: the names are in lower case and longer than 8.3.
    const argv = ['-quiet', '-output', made, '-volid', 'cidata', '-joliet', '-rock', files];
    await run(program, argv, { timeout: BUILD_DEADLINE_MS });
    await chmod(made, 0o600);
    await rename(made, isoPath);
  } catch (cause) {
    const missing = (cause as NodeJS.ErrnoException).code === 'ENOENT';
    throw new BusbarError({
      kind: 'unavailable',
      reason: 'SEED_FAILED',
      message: missing
        ? 'xorrisofs is not installed on this host'
        : `the cloud-init disk could not be made: ${why(cause)}`,
      hint: missing ? 'install the package xorriso' : `look at the free space in ${parent}`,
    });
  } finally {
    await rm(work, { recursive: true, force: true });
    building.delete(work);
  }
}

/** xorriso's own reason, without the command line and the banner around it; else the system's. */
function why(cause: unknown): string {
  const { stderr, message } = cause as { readonly stderr?: string; readonly message?: string };
  const said = /FAILURE : (.+)/.exec(stderr ?? '')?.[1];
  return said ?? (message ?? String(cause)).split('\n', 1)[0] ?? '';
}
