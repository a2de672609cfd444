// SPDX-License-Identifier: Apache-2.0
/** POSIX access lists of device files, as the kernel keeps them in an extended attribute (linux/posix_acl_xattr.h). */
import koffi from 'koffi';

const ATTRIBUTE = 'system.posix_acl_access';
const VERSION = 2;
const TAG = { owner: 0x01, user: 0x02, group: 0x04, mask: 0x10, other: 0x20 } as const;
const NOBODY_IN_PARTICULAR = 0xffffffff;
const ENTRY_BYTES = 8;
const READ_WRITE = 6;
/** The kernel's own limit of an attribute (XATTR_SIZE_MAX). */
const ATTRIBUTE_BYTES = 65_536;
const ENODATA = 61;

interface Entry {
  readonly tag: number;
  readonly permissions: number;
  readonly id: number;
}

export function decodeAcl(bytes: Buffer): Entry[] {
  if (bytes.length < 4 || bytes.readUInt32LE(0) !== VERSION) throw new Error('an access list of an unknown version');
  const entries: Entry[] = [];
  for (let at = 4; at + ENTRY_BYTES <= bytes.length; at += ENTRY_BYTES) {
    const [tag, permissions] = [bytes.readUInt16LE(at), bytes.readUInt16LE(at + 2)];
    entries.push({ tag, permissions, id: bytes.readUInt32LE(at + 4) });
  }
  return entries;
}

export function encodeAcl(entries: readonly Entry[]): Buffer {
  const bytes = Buffer.alloc(4 + entries.length * ENTRY_BYTES);
  bytes.writeUInt32LE(VERSION, 0);
  // The kernel wants them by tag, and users by id.
  const sorted = entries.toSorted((a, b) => a.tag - b.tag || a.id - b.id);
  for (const [index, { tag, permissions, id }] of sorted.entries()) {
    const at = 4 + index * ENTRY_BYTES;
    bytes.writeUInt16LE(tag, at);
    bytes.writeUInt16LE(permissions, at + 2);
    bytes.writeUInt32LE(id, at + 4);
  }
  return bytes;
}

/** What the mode says, when there is no list yet. */
export function aclOfMode(mode: number): Entry[] {
  const entry = (tag: number, shift: number): Entry => ({
    tag,
    permissions: (mode >> shift) & 7,
    id: NOBODY_IN_PARTICULAR,
  });
  return [entry(TAG.owner, 6), entry(TAG.group, 3), entry(TAG.other, 0)];
}

/** Lets `users` read and write, and nobody else of those that `ours` says are ours to remove; what others have set stays. */
export function withUsers(
  acl: readonly Entry[],
  users: readonly number[],
  ours: (uid: number) => boolean,
): readonly Entry[] {
  const kept = acl.filter(({ tag, id }) => tag !== TAG.mask && !(tag === TAG.user && (ours(id) || users.includes(id))));
  const added = users.map((id): Entry => ({ tag: TAG.user, permissions: READ_WRITE, id }));
  const named = [...kept, ...added];
  // Without named entries there is no mask, else it bounds them and the group.
  if (!named.some(({ tag }) => tag === TAG.user)) return named;
  const bounded = named.filter(({ tag }) => tag !== TAG.owner && tag !== TAG.other);
  const permissions = bounded.reduce((all, entry) => all | entry.permissions, 0);
  return [...named, { tag: TAG.mask, permissions, id: NOBODY_IN_PARTICULAR }];
}

/** Calls on a device file that does not block: a few microseconds each. */
export function deviceAccess() {
  const libc = koffi.load('libc.so.6');
  const get = libc.func('long getxattr(str path, str name, void *value, size_t size)');
  const set = libc.func('int setxattr(str path, str name, void *value, size_t size, int flags)');
  return {
    /** Null: there is none. */
    read(path: string): Buffer | null {
      const bytes = Buffer.alloc(ATTRIBUTE_BYTES);
      const length = Number(get(path, ATTRIBUTE, bytes, bytes.length));
      if (length >= 0) return bytes.subarray(0, length);
      if (koffi.errno() === ENODATA) return null;
      throw new Error(`the access list of ${path} cannot be read (errno ${koffi.errno()})`);
    },
    write(path: string, acl: Buffer): void {
      if (Number(set(path, ATTRIBUTE, acl, acl.length, 0)) === 0) return;
      throw new Error(`the access list of ${path} cannot be written (errno ${koffi.errno()})`);
    },
  };
}
