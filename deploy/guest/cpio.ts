// SPDX-License-Identifier: Apache-2.0
// The "newc" archive that the kernel unpacks as its first file system. Written here rather than by cpio(1), because
// device nodes then need no root and the same inputs give the same bytes.

export type CpioEntry =
  | { kind: 'file'; path: string; mode: number; data: Uint8Array }
  | { kind: 'link'; path: string; target: string }
  | { kind: 'device'; path: string; mode: number; major: number; minor: number };

// File type bits of st_mode.
const DIRECTORY = 0o040000;
const CHARACTER_DEVICE = 0o020000;
const REGULAR = 0o100000;
const SYMBOLIC_LINK = 0o120000;

type Header = { ino: number; mode: number; path: string; data: Uint8Array; major: number; minor: number };

/** Parent directories are added by themselves; entries are sorted by path, parents first. */
export function cpioArchive(entries: readonly CpioEntry[]): Buffer {
  const byPath = new Map<string, CpioEntry | 'directory'>();
  for (const entry of entries) {
    const parts = entry.path.split('/');
    for (let depth = 1; depth < parts.length; depth++) byPath.set(parts.slice(0, depth).join('/'), 'directory');
    byPath.set(entry.path, entry);
  }
  const chunks: Buffer[] = [];
  let ino = 1;
  for (const path of [...byPath.keys()].sort()) {
    chunks.push(member(headerOf(path, byPath.get(path) ?? 'directory', ino++)));
  }
  chunks.push(member({ ino: 0, mode: 0, path: 'TRAILER!!!', data: new Uint8Array(), major: 0, minor: 0 }));
  return Buffer.concat(chunks);
}

function headerOf(path: string, entry: CpioEntry | 'directory', ino: number): Header {
  const plain = { ino, path, data: new Uint8Array(), major: 0, minor: 0 };
  if (entry === 'directory') return { ...plain, mode: DIRECTORY | 0o755 };
  switch (entry.kind) {
    case 'file':
      return { ...plain, mode: REGULAR | entry.mode, data: entry.data };
    case 'link':
      return { ...plain, mode: SYMBOLIC_LINK | 0o777, data: Buffer.from(entry.target) };
    case 'device':
      return { ...plain, mode: CHARACTER_DEVICE | entry.mode, major: entry.major, minor: entry.minor };
  }
}

function member({ ino, mode, path, data, major, minor }: Header): Buffer {
  const name = Buffer.from(`${path}\0`);
  const links = (mode & DIRECTORY) === DIRECTORY ? 2 : 1;
  const fields = [ino, mode, 0, 0, links, 0, data.length, 0, 0, major, minor, name.length, 0];
  const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`);
  return Buffer.concat([padded(Buffer.concat([header, name])), padded(Buffer.from(data))]);
}

function padded(data: Buffer): Buffer {
  return Buffer.concat([data, Buffer.alloc((4 - (data.length % 4)) % 4)]);
}
