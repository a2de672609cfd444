// SPDX-License-Identifier: Apache-2.0
// A daemon's certificate and key are two files, and two files cannot be replaced in one step. So that no crash leaves
// a pair that does not fit, the certificate waits beside its place until the key is there:
//
//   1. CERTIFICATE.next and KEY.next are written and flushed      crash after: the old pair is whole
//   2. KEY.next becomes KEY                                       crash after: KEY fits CERTIFICATE.next
//   3. CERTIFICATE.next becomes CERTIFICATE                       done
//
// Whoever reads finishes step 3 if it finds a key that fits only the waiting certificate. The paths stay what the
// configuration names, and other programs may read them.
import { renameSync } from 'node:fs';
import { open, readFile, rename, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { errorChain } from '@busbar/core/errors';
import { type Result, refuse } from '@busbar/core/result';
import { parseTls, type TlsMaterial } from './material.ts';

/** Paths of PEM files. */
export interface TlsFiles {
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
}

const next = (path: string): string => `${path}.next`;

/** What the files hold; the refusal names the file and says what is wrong with it. */
export async function readTls(files: TlsFiles): Promise<Result<TlsMaterial, string>> {
  try {
    const [ca, certificate, key] = await Promise.all(
      [files.ca, files.certificate, files.key].map((path) => readFile(path)),
    );
    const text = { ca: ca as Buffer, certificate: certificate as Buffer, key: key as Buffer };
    const read = parseTls(text);
    if (read.ok) return read;
    const waiting = await readFile(next(files.certificate)).catch(() => null);
    const finished = waiting === null ? read : parseTls({ ...text, certificate: waiting });
    if (finished.ok) {
      // Whether this succeeds is the next reader's concern: the pair fits.
      await rename(next(files.certificate), files.certificate).catch(() => {});
      return finished;
    }
    return refuse(`${files.certificate} and ${files.key}: ${read.error}`);
  } catch (error) {
    return refuse(errorChain(error));
  }
}

/** Changes with each replacement of a file, whatever its clock says. */
export async function stampOf(files: TlsFiles): Promise<string> {
  const stamps = [files.ca, files.certificate, files.key].map(async (path) => {
    const info = await stat(path, { bigint: true }).catch(() => null);
    // ctime, not mtime: it also tells of a file that became readable.
    return info === null ? 'missing' : `${info.dev}/${info.ino}/${info.ctimeNs}`;
  });
  return (await Promise.all(stamps)).join(' ');
}

/** Step 1. The new files get the owner and the mode of those that they will replace. */
export async function stagePair(
  files: TlsFiles,
  pair: { readonly certificatePem: string; readonly keyPem: string },
): Promise<void> {
  await writeBeside(files.certificate, pair.certificatePem);
  await writeBeside(files.key, pair.keyPem);
  await flush(dirname(files.certificate));
  await flush(dirname(files.key));
}

/** Steps 2 and 3. Not interrupted by anything else in this process, so that nobody in it ever reads half of it. */
export async function switchPair(files: TlsFiles): Promise<void> {
  for (const path of SWITCH_ORDER.map((name) => files[name])) renameSync(next(path), path);
  await flush(dirname(files.key));
  await flush(dirname(files.certificate));
}

export const SWITCH_ORDER = ['key', 'certificate'] as const;

async function writeBeside(path: string, text: string): Promise<void> {
  const former = await stat(path);
  // Nobody else may open it before it has its mode.
  const file = await open(next(path), 'w', 0o600);
  try {
    await file.chown(former.uid, former.gid);
    await file.chmod(former.mode & 0o777);
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
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
