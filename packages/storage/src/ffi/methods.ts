// SPDX-License-Identifier: Apache-2.0
/** The calls of calls.ts on an open session. Runs only in the child. */
import { assert } from '@busbar/core/assert';
import koffi, { type TypeObject } from 'koffi';
import type { CephCalls, ImageInfo, LockerInfo, Metadata, WatcherInfo } from './calls.ts';
import { check, ERRNO } from './errors.ts';
import type { Image, ImageOptions, Out } from './handles.ts';
import { filled, monCommand, openSession, type Session, withImage } from './session.ts';
import {
  type Ceph,
  DIFF_CALLBACK,
  IMAGE_SPEC,
  LINKED_IMAGE,
  type LinkedImage,
  SNAP_INFO,
  SNAP_SPEC,
  WATCHER,
  type Watcher,
} from './signatures.ts';

/** RBD_FEATURES_DEFAULT: layering, exclusive-lock, object-map, fast-diff, deep-flatten. */
const FEATURES = 1 | 4 | 8 | 16 | 32;
const OPTION_FEATURES = 1;
const OPTION_CLONE_FORMAT = 12;
/** Format 1 keeps the rule that a snapshot with clones cannot be unprotected; format 2 moves it to the trash. */
const CLONE_FORMAT = 1;

export function cephMethods(ceph: Ceph, onSession: (session: Session) => void): CephCalls {
  let open: Session | null = null;
  const session = (): Session => {
    assert(open !== null, 'connect comes first');
    return open;
  };
  const read = <T>(name: string, work: (image: Image) => Promise<T>, snapshot?: string) =>
    withImage(session(), name, 'read', work, snapshot ?? null);
  const write = <T>(name: string, work: (image: Image) => Promise<T>) => withImage(session(), name, 'write', work);

  return {
    async connect(args) {
      open = await openSession(ceph, args);
      onSession(open);
    },
    monCommand: ({ command }) => monCommand(session(), command),
    instanceId: () => `client.${ceph.instanceId(session().cluster)}`,

    async list() {
      const { io } = session();
      const found = await fetchArray('rbd_list2', IMAGE_SPEC.size, 8, (buffer, max) => ceph.list(io, buffer, max));
      const specs = decodeArray<{ name: string }>(found, IMAGE_SPEC);
      ceph.freeList(found.buffer, found.count);
      return specs.map((spec) => spec.name);
    },

    async inspect({ name }) {
      try {
        return await read(name, (image) => inspect(ceph, image));
      } catch (error) {
        if (hasErrno(error, ERRNO.ENOENT)) return null;
        throw error;
      }
    },

    async create({ name, sizeBytes, metadata }) {
      await withOptions(ceph, { [OPTION_FEATURES]: FEATURES }, async (options) =>
        check(`creating ${name}`, await ceph.createImage(session().io, name, sizeBytes, options)),
      );
      await write(name, (image) => setMetadata(ceph, image, metadata));
    },

    async clone({ parent, snapshot, name, sizeBytes, metadata }) {
      const { io } = session();
      await withOptions(ceph, { [OPTION_FEATURES]: FEATURES, [OPTION_CLONE_FORMAT]: CLONE_FORMAT }, async (options) =>
        check(`cloning ${parent} to ${name}`, await ceph.cloneImage(io, parent, snapshot, io, name, options)),
      );
      await write(name, async (image) => {
        if ((await sizeOf(ceph, image)) < sizeBytes) check(`growing ${name}`, await ceph.resize(image, sizeBytes));
        await setMetadata(ceph, image, metadata);
      });
    },

    resize: ({ name, sizeBytes }) =>
      write(name, async (image) => {
        check(`resizing ${name}`, await ceph.resize(image, sizeBytes));
      }),

    async remove({ name }) {
      const code = await ceph.removeImage(session().io, name);
      if (code !== -ERRNO.ENOENT) check(`removing ${name}`, code);
    },

    async rename({ from, to }) {
      check(`renaming ${from}`, await ceph.renameImage(session().io, from, to));
    },

    setMetadata: ({ name, metadata }) => write(name, (image) => setMetadata(ceph, image, metadata)),

    protectSnapshot: ({ name, snapshot }) =>
      write(name, async (image) => {
        const created = await ceph.snapCreate(image, snapshot);
        if (created !== -ERRNO.EEXIST) check(`taking the snapshot ${name}@${snapshot}`, created);
        const protect = await ceph.snapProtect(image, snapshot);
        if (protect !== -ERRNO.EBUSY) check(`protecting ${name}@${snapshot}`, protect);
      }),

    dropSnapshot: ({ name, snapshot }) =>
      write(name, async (image) => {
        const unprotected = await ceph.snapUnprotect(image, snapshot);
        if (unprotected === -ERRNO.ENOENT) return;
        if (unprotected !== -ERRNO.EINVAL) check(`unprotecting ${name}@${snapshot}`, unprotected);
        const removed = await ceph.snapRemove(image, snapshot);
        if (removed !== -ERRNO.ENOENT) check(`removing ${name}@${snapshot}`, removed);
      }),

    children: ({ name, snapshot }) =>
      read(
        name,
        async (image) => {
          const found = await fetchArray('rbd_list_children3', LINKED_IMAGE.size, 8, (buffer, max) =>
            ceph.children(image, buffer, max),
          );
          const children = decodeArray<LinkedImage>(found, LINKED_IMAGE);
          ceph.freeLinked(found.buffer, found.count);
          return children.map((child) => `${child.pool_name}/${child.image_name}`);
        },
        snapshot,
      ),

    watchers: ({ name }) =>
      read(name, async (image): Promise<WatcherInfo[]> => {
        const found = await fetchArray('rbd_watchers_list', WATCHER.size, 8, (buffer, max) =>
          ceph.watchers(image, buffer, max),
        );
        const watchers = decodeArray<Watcher>(found, WATCHER);
        ceph.freeWatchers(found.buffer, found.count);
        return watchers.map(({ addr, id }) => ({ address: addr, client: `client.${id}` }));
      }),

    lockers: ({ name }) => read(name, (image) => lockers(ceph, image)),

    allocated: ({ name }) => read(name, async (image) => allocated(ceph, image, await sizeOf(ceph, image))),
  };
}

async function inspect(ceph: Ceph, image: Image): Promise<ImageInfo> {
  const snapshots: { name: string; isProtected: boolean }[] = [];
  const found = await fetchArray('rbd_snap_list', SNAP_INFO.size, 4, (buffer, max) =>
    ceph.snapshots(image, buffer, max),
  );
  const infos = decodeArray<{ name: string }>(found, SNAP_INFO);
  if (found.count > 0) ceph.freeSnapshots(found.buffer);
  for (const { name } of infos) {
    const isProtected: Out<number> = [0];
    check('rbd_snap_is_protected', await ceph.snapIsProtected(image, name, isProtected));
    snapshots.push({ name, isProtected: isProtected[0] === 1 });
  }
  return {
    id: await idOf(ceph, image),
    sizeBytes: await sizeOf(ceph, image),
    parent: await parentOf(ceph, image),
    snapshots,
    metadata: await metadataOf(ceph, image),
  };
}

/** librbd's are of 24 characters at most (RBD_MAX_BLOCK_NAME_SIZE). */
const IMAGE_ID_BYTES = 64;

async function idOf(ceph: Ceph, image: Image): Promise<string> {
  const id = Buffer.alloc(IMAGE_ID_BYTES);
  check('rbd_get_id', await ceph.imageId(image, id, id.length));
  return id.toString('latin1', 0, id.indexOf(0));
}

async function sizeOf(ceph: Ceph, image: Image): Promise<bigint> {
  const size: Out<number | bigint> = [0];
  check('rbd_get_size', await ceph.size(image, size));
  return BigInt(filled(size));
}

async function parentOf(ceph: Ceph, image: Image): Promise<ImageInfo['parent']> {
  const parent = Buffer.alloc(LINKED_IMAGE.size);
  const snap = Buffer.alloc(SNAP_SPEC.size);
  const code = await ceph.parent(image, parent, snap);
  if (code === -ERRNO.ENOENT) return null;
  check('rbd_get_parent', code);
  const spec = koffi.decode(parent, LINKED_IMAGE) as LinkedImage;
  const { name } = koffi.decode(snap, SNAP_SPEC) as { name: string };
  ceph.freeLinked(parent, 1);
  ceph.freeSnapSpec(snap);
  return { pool: spec.pool_name, image: spec.image_name, snapshot: name };
}

async function metadataOf(ceph: Ceph, image: Image): Promise<Metadata> {
  for (let bytes = 4096; ; bytes *= 2) {
    const keys = text(bytes);
    const values = text(bytes);
    const code = await ceph.metadataList(image, '', 0, keys.bytes, keys.size, values.bytes, values.size);
    if (code === -ERRNO.ERANGE && bytes < 1 << 24) continue;
    check('rbd_metadata_list', code);
    const names = strings(keys);
    const contents = strings(values);
    return Object.fromEntries(names.map((name, index) => [name, contents[index] ?? '']));
  }
}

async function setMetadata(ceph: Ceph, image: Image, metadata: Metadata): Promise<void> {
  for (const [key, value] of Object.entries(metadata)) {
    check(`setting ${key}`, await ceph.metadataSet(image, key, value));
  }
}

async function lockers(ceph: Ceph, image: Image): Promise<LockerInfo[]> {
  const exclusive: Out<number> = [0];
  const [tag, clients, cookies, addresses] = [text(4096), text(16384), text(16384), text(16384)];
  const count = check(
    'rbd_list_lockers',
    await ceph.lockers(
      image,
      exclusive,
      tag.bytes,
      tag.size,
      clients.bytes,
      clients.size,
      cookies.bytes,
      cookies.size,
      addresses.bytes,
      addresses.size,
    ),
  );
  if (count === 0) return [];
  const [names, marks, from] = [strings(clients), strings(cookies), strings(addresses)];
  return names.map((client, i) => ({ client, cookie: marks[i] ?? '', address: from[i] ?? '' }));
}

/**
 * With fast-diff this reads the object map only. The callback runs on the pool's thread, which waits
 * for JS each time; librbd reports each object by itself.
 */
async function allocated(ceph: Ceph, image: Image, sizeBytes: bigint): Promise<bigint> {
  let total = 0;
  const callback = koffi.register((_offset: unknown, length: number | bigint, exists: number) => {
    if (exists !== 0) total += Number(length);
    return 0;
  }, koffi.pointer(DIFF_CALLBACK));
  try {
    check('rbd_diff_iterate2', await ceph.diff(image, null, 0n, sizeBytes, 0, 1, callback, null));
    return BigInt(total);
  } finally {
    koffi.unregister(callback);
  }
}

async function withOptions<T>(
  ceph: Ceph,
  values: Readonly<Record<number, number>>,
  work: (options: ImageOptions) => Promise<T>,
): Promise<T> {
  const out: Out<ImageOptions> = [null];
  ceph.newOptions(out);
  const options = filled(out);
  try {
    for (const [name, value] of Object.entries(values)) {
      check('rbd_image_options_set_uint64', ceph.setOption(options, Number(name), value));
    }
    return await work(options);
  } finally {
    ceph.freeOptions(options);
  }
}

interface Found {
  readonly buffer: Buffer;
  readonly count: number;
}

/** Calls until the array fits: these functions answer ERANGE and the needed count when it does not. */
async function fetchArray(
  call: string,
  elementBytes: number,
  firstGuess: number,
  fetch: (buffer: Buffer, max: Buffer) => Promise<number>,
): Promise<Found> {
  let capacity = firstGuess;
  for (let attempt = 0; attempt < 8; attempt++) {
    const buffer = Buffer.alloc(capacity * elementBytes);
    const max = Buffer.alloc(8);
    max.writeBigUInt64LE(BigInt(capacity));
    const code = await fetch(buffer, max);
    const count = Number(max.readBigUInt64LE());
    if (code === -ERRNO.ERANGE) {
      // Others may be adding meanwhile, hence some more than asked for.
      capacity = Math.max(count, capacity) + 16;
      continue;
    }
    // rbd_snap_list answers the count as its result, the others in `max`.
    const filledIn = check(call, code);
    return { buffer, count: call === 'rbd_snap_list' ? filledIn : count };
  }
  throw new Error(`${call}: the list grows faster than it can be read`);
}

function decodeArray<T>(found: Found, type: TypeObject): T[] {
  return Array.from({ length: found.count }, (_, i) => koffi.decode(found.buffer, i * type.size, type) as T);
}

interface TextBuffer {
  readonly bytes: Buffer;
  readonly size: Buffer;
}

function text(bytes: number): TextBuffer {
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(bytes));
  return { bytes: Buffer.alloc(bytes), size };
}

/** The NUL-terminated strings that the library put in, one after the other. */
function strings(buffer: TextBuffer): string[] {
  const used = buffer.bytes.subarray(0, Number(buffer.size.readBigUInt64LE()));
  return used.toString('utf8').split('\0').slice(0, -1);
}

function hasErrno(error: unknown, errno: number): boolean {
  return error instanceof Error && (error.cause as { code?: unknown } | undefined)?.code === errno;
}
