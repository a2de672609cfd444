// SPDX-License-Identifier: Apache-2.0
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';

const PACKAGES = ['ganeti-htools-3.0', 'python3-nova'];
const CACHE = resolve(import.meta.dirname, '../../../.cache/peers');
// 48 MB in 175 packages; apt's own timeout for one of them is two minutes.
const FETCH_DEADLINE_MS = 10 * 60_000;
// What apt-get says on one line per package must fit: 175 lines of some 100 bytes today.
const OUTPUT_BYTES = 16 * 1024 * 1024;

export class PeersUnavailable extends Error {}

const run = async (program: string, args: readonly string[], cwd?: string): Promise<string> => {
  const options = {
    timeout: FETCH_DEADLINE_MS,
    maxBuffer: OUTPUT_BYTES,
    env: { ...process.env, LC_ALL: 'C' },
    ...(cwd === undefined ? {} : { cwd }),
  };
  return (await promisify(execFile)(program, args, options)).stdout;
};

/**
 * The folder in which the peers are unpacked, as they would be under /. Nothing is installed: what the peers need and the
 * machine has, they take from the machine; the rest is unpacked beside them. Fetched once for each set of versions.
 */
export async function fetchPeers(): Promise<string> {
  const wanted = await missingPackages();
  // One folder for each set of versions: an update of the machine changes what is missing on it.
  const key = createHash('sha256').update(wanted.join('\n')).digest('hex').slice(0, 12);
  const root = join(CACHE, key);
  if (existsSync(root)) return root;
  await mkdir(CACHE, { recursive: true });
  for (const name of await readdir(CACHE)) {
    // What a fetch that was killed left behind, and other versions.
    await rm(join(CACHE, name), { recursive: true, force: true });
  }
  const work = await mkdtemp(join(CACHE, 'unfinished-'));
  try {
    const [debs, unpacked] = [join(work, 'debs'), join(work, 'root')];
    await mkdir(debs);
    await mkdir(unpacked);
    console.error(`bench: fetching ${wanted.length} Debian packages of the peers into .cache/peers`);
    await run('apt-get', ['download', '--quiet', ...wanted], debs);
    for (const name of await readdir(debs)) await run('dpkg-deb', ['--extract', join(debs, name), unpacked]);
    await writeFile(join(unpacked, 'packages'), `${wanted.join('\n')}\n`);
    await rename(unpacked, root);
    return root;
  } catch (cause) {
    throw new PeersUnavailable(`cannot fetch the peers' Debian packages: ${lastWords(cause)}`, { cause });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** What apt-get would install to have the peers, each with its version. */
async function missingPackages(): Promise<readonly string[]> {
  const simulate = () => run('apt-get', ['install', '--simulate', '--no-install-recommends', ...PACKAGES]);
  let plan: string;
  try {
    plan = await simulate().catch(async () => {
      // A fresh container has no package lists, and with old ones the versions are gone.
      await run('apt-get', ['update']);
      return simulate();
    });
  } catch (cause) {
    throw new PeersUnavailable(`apt-get cannot have ${PACKAGES.join(' and ')}: ${lastWords(cause)}`, { cause });
  }
  return parsePlan(plan);
}

/** From lines such as "Inst python3-nova (2:26.2.2-1 Debian:12/oldstable [all])"; of an update: "Inst NAME [OLD] (NEW …". */
export function parsePlan(plan: string): readonly string[] {
  return Array.from(
    plan.matchAll(/^Inst (\S+) (?:\[\S+\] )?\((\S+) /gm),
    ([, name, version]) => `${name}=${version}`,
  ).toSorted();
}

/** The version of a package in the peers' folder, e.g. 26.2.2. */
export function versionOf(packages: string, name: string): string {
  const found = packages.split('\n').find((line) => line.startsWith(`${name}=`));
  // Without the epoch; the Debian revision says which build it was.
  return found === undefined ? 'of this machine' : found.slice(name.length + 1).replace(/^\d+:/, '');
}

function lastWords(cause: unknown): string {
  const stderr = cause instanceof Error && 'stderr' in cause ? String(cause.stderr).trim() : '';
  return stderr === ''
    ? String(cause)
    : (stderr.split('\n').findLast((line) => /^E:/.test(line)) ?? stderr.slice(-400));
}
