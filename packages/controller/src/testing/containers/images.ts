// SPDX-License-Identifier: Apache-2.0
// What the containers run: official images where they can be had, else images made of this machine's own programs.
import { execFile } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, realpath, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { getContainerRuntimeClient } from 'testcontainers';

const run = promisify(execFile);
const TIMEOUT_MS = 60_000;

/** A program, and where it lies in the image: where the official image has it, too. */
interface Program {
  readonly name: string;
  readonly here: string;
  readonly there: string;
}

const ETCD: Program = { name: 'etcd', here: '/usr/bin/etcd', there: '/usr/local/bin/etcd' };
const NATS: Program = { name: 'nats-server', here: '/usr/sbin/nats-server', there: '/nats-server' };

/** `BUSBAR_TEST_ETCD_IMAGES`, a list with commas; unset: one image of this machine's etcd. */
export async function etcdImages(): Promise<readonly string[]> {
  const named = process.env.BUSBAR_TEST_ETCD_IMAGES?.split(',').filter((image) => image !== '');
  return named ?? [await imageOf(ETCD)];
}

/** `BUSBAR_TEST_NATS_IMAGE`; unset: an image of this machine's nats-server. */
export async function natsImage(): Promise<string> {
  return process.env.BUSBAR_TEST_NATS_IMAGE ?? (await imageOf(NATS));
}

export const ETCD_PROGRAM = ETCD.there;
export const NATS_PROGRAM = NATS.there;

/** The program and the libraries that it loads, imported as an image. */
async function imageOf({ name, here, there }: Program): Promise<string> {
  const image = `busbar-test/${name}`;
  const staging = await mkdtemp(join(tmpdir(), 'busbar-image-'));
  try {
    const place = async (from: string, to: string) => {
      const target = join(staging, 'root', to);
      await mkdir(dirname(target), { recursive: true });
      await copyFile(await realpath(from), target);
    };
    await place(here, there);
    for (const library of await librariesOf(here)) await place(library, library);
    const archive = join(staging, 'image.tar');
    await run('tar', ['--create', '--file', archive, '--directory', join(staging, 'root'), '.'], {
      timeout: TIMEOUT_MS,
    });
    const { dockerode } = (await getContainerRuntimeClient()).container;
    const progress = await dockerode.importImage(archive, { repo: image, tag: 'local' });
    await new Promise<void>((resolve, reject) => {
      dockerode.modem.followProgress(progress, (error) => (error ? reject(error) : resolve()));
    });
    return `${image}:local`;
  } catch (cause) {
    throw new Error(`cannot make an image of ${here} (Debian: etcd-server, nats-server): ${(cause as Error).message}`, {
      cause,
    });
  } finally {
    await rm(staging, { recursive: true, force: true });
  }
}

/** Absolute paths; none for a program that is linked statically. */
async function librariesOf(program: string): Promise<readonly string[]> {
  const { stdout } = await run('ldd', [program], { timeout: TIMEOUT_MS }).catch((error: { stderr?: string }) => {
    if (error.stderr?.includes('not a dynamic executable')) return { stdout: '' };
    throw error;
  });
  return [...stdout.matchAll(/^\t(?:\S+ => )?(\/\S+) \(/gm)].map(([, path = '']) => path);
}
