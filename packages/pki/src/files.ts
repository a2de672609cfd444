// SPDX-License-Identifier: Apache-2.0
// Which file of a host holds what. Pure, but for `writeTree`, which makes a whole directory appear at once or not at all.
import { randomBytes } from 'node:crypto';
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { BusbarError } from '@busbar/core/errors';
import type { KeyPairPem } from './authority.ts';
import type { HostCredentials } from './found.ts';
import type { AuthorityName, HostPurpose } from './purpose.ts';

export interface NewFile {
  /** Relative to the directory that is written. */
  readonly path: string;
  readonly content: string | Uint8Array;
  /** Secrets: the owner alone. */
  readonly secret: boolean;
}

/** Name of certificate and key below the pki directory. */
export const PKI_FILES: Readonly<Record<HostPurpose, { certificate: string; key: string }>> = {
  agent: { certificate: 'agent.crt', key: 'agent.key' },
  nats: { certificate: 'nats.crt', key: 'nats.key' },
  controller: { certificate: 'controller.crt', key: 'controller.key' },
  etcd: { certificate: 'etcd.crt', key: 'etcd.key' },
  'etcd-client': { certificate: 'etcd-client.crt', key: 'etcd-client.key' },
};
const AUTHORITY_FILE: Readonly<Record<AuthorityName, string>> = {
  ca: 'ca.crt',
  'etcd-ca': 'etcd-ca.crt',
};
/** What etcd reads at each handshake (`--client-crl-file`, `--peer-crl-file`): whom it refuses although the authority signed. */
export const ETCD_REVOCATIONS_FILE = 'etcd-ca.crl';
export const SEAL_KEY_FILE = 'seal.key';
export const AUTHORITIES_FILE = 'authorities.sealed.json';

/** What belongs into /etc/busbar/pki. */
export function pkiFiles(host: HostCredentials): readonly NewFile[] {
  const files: NewFile[] = [];
  for (const [name, path] of Object.entries(AUTHORITY_FILE)) {
    const content = host.authorities[name as AuthorityName];
    if (content !== undefined) files.push({ path, content, secret: false });
  }
  for (const [purpose, names] of Object.entries(PKI_FILES)) {
    const pair = host.certificates[purpose as HostPurpose];
    if (pair === undefined) continue;
    files.push({ path: names.certificate, content: pair.certificatePem, secret: false });
    files.push({ path: names.key, content: pair.keyPem, secret: true });
  }
  if (host.etcdRevocations !== null)
    files.push({ path: ETCD_REVOCATIONS_FILE, content: host.etcdRevocations, secret: false });
  if (host.sealKey !== null) files.push({ path: SEAL_KEY_FILE, content: host.sealKey, secret: true });
  return files;
}

export function below(directory: string, files: readonly NewFile[]): readonly NewFile[] {
  return files.map((file) => ({ ...file, path: join(directory, file.path) }));
}

/** Files of some KB are written and flushed in far less: what is older, its writer was killed. */
const ABANDONED_MS = 10 * 60_000;

/** What a `writeTree` that was killed has left beside the directory: keys that nobody uses and nobody would look for. */
async function removeAbandoned(directory: string): Promise<void> {
  const parent = dirname(directory);
  for (const name of await readdir(parent).catch(() => [])) {
    const path = join(parent, name);
    if (!path.startsWith(`${directory}.`) || !/^[0-9a-f]{12}\.tmp$/.test(path.slice(directory.length + 1))) continue;
    if (Date.now() - (await stat(path)).mtimeMs > ABANDONED_MS) await rm(path, { recursive: true, force: true });
  }
}

/**
 * Makes `directory` with these files in it: everything is written and flushed beside it, then it gets its name in one
 * step. Refuses a directory that has anything in it; when it fails, nothing is left.
 */
export async function writeTree(directory: string, files: readonly NewFile[]): Promise<void> {
  await assertUnused(directory);
  await removeAbandoned(directory);
  const temporary = `${directory}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    await mkdir(dirname(directory), { recursive: true });
    await mkdir(temporary, { mode: 0o700 });
    for (const file of files) {
      const path = join(temporary, file.path);
      await mkdir(dirname(path), { recursive: true, mode: 0o700 });
      await writeNew(path, file.content, file.secret ? 0o600 : 0o644);
    }
    await flush(temporary);
    // Over a directory that does not exist or is empty, and over nothing else: rename(2).
    await rename(temporary, directory).catch((cause: NodeJS.ErrnoException) => {
      throw cause.code === 'ENOTEMPTY' || cause.code === 'EEXIST' ? inUse(directory) : cause;
    });
    await flush(dirname(directory));
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw error;
  }
}

export async function assertUnused(directory: string): Promise<void> {
  const there = await readdir(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    if (error.code === 'ENOTDIR') throw inUse(directory);
    throw error;
  });
  if (there.length > 0) throw inUse(directory);
}

/**
 * Replaces certificate and key, which are two files and cannot change in one step: the new pair is written beside the old
 * one (`.next`), then the key takes its place, then the certificate. Whoever finds a key that does not fit after a crash
 * finds the certificate that does beside it. Owner and mode stay, for servers that run as somebody else.
 */
export async function replacePair(
  files: { readonly certificate: string; readonly key: string },
  pair: KeyPairPem,
): Promise<void> {
  const next = (path: string) => `${path}.next`;
  try {
    await writeBeside(files.certificate, next(files.certificate), pair.certificatePem);
    await writeBeside(files.key, next(files.key), pair.keyPem);
  } catch (error) {
    await Promise.all([files.certificate, files.key].map((path) => rm(next(path), { force: true })));
    throw error;
  }
  await rename(next(files.key), files.key);
  await rename(next(files.certificate), files.certificate);
  await flush(dirname(files.key));
}

/** Replaces one file, or makes it, in one step: a reader finds the old content or the new one, also after a crash. */
export async function replaceFile(path: string, content: Uint8Array): Promise<void> {
  const next = `${path}.next`;
  await rm(next, { force: true });
  try {
    await writeNew(next, content, 0o644);
    await rename(next, path);
  } catch (error) {
    await rm(next, { force: true });
    throw error;
  }
  await flush(dirname(path));
}

async function writeBeside(former: string, path: string, text: string): Promise<void> {
  const { uid, gid, mode } = await stat(former);
  // What a crash left is worth nothing: nobody has asked for its key.
  await rm(path, { force: true });
  // Nobody else may open it before it has its mode.
  const handle = await open(path, 'wx', 0o600);
  try {
    await handle.chown(uid, gid);
    await handle.chmod(mode & 0o777);
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function writeNew(path: string, content: string | Uint8Array, mode: number): Promise<void> {
  const handle = await open(path, 'wx', mode);
  try {
    await handle.writeFile(content);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function flush(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function inUse(directory: string): BusbarError {
  return new BusbarError({
    kind: 'already-exists',
    reason: 'DIRECTORY_IN_USE',
    message: `${directory} exists and is not an empty directory`,
    hint: 'keys are never overwritten: choose another directory, or move the old one away first',
  });
}
