// SPDX-License-Identifier: Apache-2.0
/** The C declarations of librados.h and rbd/librbd.h (16.2) that we use, and nothing but them. */
import koffi, { type LibraryHandle } from 'koffi';
import type { Cluster, Image, ImageOptions, Ioctx, Out } from './handles.ts';

/** rbd_image_spec_t */
export const IMAGE_SPEC = koffi.struct({ id: 'string', name: 'string' });
/** rbd_linked_image_spec_t */
export const LINKED_IMAGE = koffi.struct({
  pool_id: 'int64_t',
  pool_name: 'string',
  pool_namespace: 'string',
  image_id: 'string',
  image_name: 'string',
  trash: 'bool',
});
/** rbd_snap_spec_t; the enum has the size of an int. */
export const SNAP_SPEC = koffi.struct({ id: 'uint64_t', namespace_type: 'int', name: 'string' });
/** rbd_snap_info_t */
export const SNAP_INFO = koffi.struct({ id: 'uint64_t', size: 'uint64_t', name: 'string' });
/** rbd_image_watcher_t */
export const WATCHER = koffi.struct({ addr: 'string', id: 'int64_t', cookie: 'uint64_t' });
/** Callback of rbd_diff_iterate2. */
export const DIFF_CALLBACK = koffi.proto('int (uint64_t offset, size_t length, int exists, void *arg)');

export interface LinkedImage {
  readonly pool_name: string;
  readonly image_name: string;
  readonly trash: boolean;
}
export interface Watcher {
  readonly addr: string;
  readonly id: number | bigint;
  readonly cookie: number | bigint;
}

/** Runs in libuv's thread pool, so that a call that blocks blocks neither the child's loop nor other calls. */
function pooled<A extends unknown[], R>(library: LibraryHandle, declaration: string) {
  const call = library.func(declaration);
  return (...args: A): Promise<R> =>
    new Promise((resolve, reject) => {
      call.async(...args, (error: Error | null, result: R) => (error === null ? resolve(result) : reject(error)));
    });
}

/** Only for functions that take no lock and do no I/O. */
function direct<A extends unknown[], R>(library: LibraryHandle, declaration: string) {
  return library.func(declaration) as (...args: A) => R;
}

type Sizes = Buffer;
type Text = Buffer;

export function loadLibraries() {
  const rados = koffi.load('librados.so.2');
  const rbd = koffi.load('librbd.so.1');
  return {
    // rados
    create: direct<[Out<Cluster>, string, string, number], number>(
      rados,
      'int rados_create2(_Out_ void **cluster, const char *clustername, const char *name, uint64_t flags)',
    ),
    readConf: direct<[Cluster, string], number>(rados, 'int rados_conf_read_file(void *cluster, const char *path)'),
    setConf: direct<[Cluster, string, string], number>(
      rados,
      'int rados_conf_set(void *cluster, const char *option, const char *value)',
    ),
    connect: pooled<[Cluster], number>(rados, 'int rados_connect(void *cluster)'),
    shutdown: pooled<[Cluster], void>(rados, 'void rados_shutdown(void *cluster)'),
    createIoctx: pooled<[Cluster, string, Out<Ioctx>], number>(
      rados,
      'int rados_ioctx_create(void *cluster, const char *pool, _Out_ void **ioctx)',
    ),
    destroyIoctx: pooled<[Ioctx], void>(rados, 'void rados_ioctx_destroy(void *io)'),
    monCommand: pooled<
      [Cluster, string[], number, string, number, Out<bigint>, Out<number>, Out<bigint>, Out<number>],
      number
    >(
      rados,
      'int rados_mon_command(void *cluster, const char **cmd, size_t cmdlen, const char *inbuf, size_t inbuflen, ' +
        '_Out_ void **outbuf, _Out_ size_t *outbuflen, _Out_ void **outs, _Out_ size_t *outslen)',
    ),
    freeBuffer: direct<[bigint], void>(rados, 'void rados_buffer_free(void *buf)'),
    instanceId: direct<[Cluster], number | bigint>(rados, 'uint64_t rados_get_instance_id(void *cluster)'),

    // images
    list: pooled<[Ioctx, Buffer, Sizes], number>(rbd, 'int rbd_list2(void *io, void *images, void *max_images)'),
    freeList: direct<[Buffer, number], void>(rbd, 'void rbd_image_spec_list_cleanup(void *images, size_t n)'),
    newOptions: direct<[Out<ImageOptions>], void>(rbd, 'void rbd_image_options_create(_Out_ void **opts)'),
    freeOptions: direct<[ImageOptions], void>(rbd, 'void rbd_image_options_destroy(void *opts)'),
    setOption: direct<[ImageOptions, number, number], number>(
      rbd,
      'int rbd_image_options_set_uint64(void *opts, int name, uint64_t value)',
    ),
    createImage: pooled<[Ioctx, string, bigint, ImageOptions], number>(
      rbd,
      'int rbd_create4(void *io, const char *name, uint64_t size, void *opts)',
    ),
    cloneImage: pooled<[Ioctx, string, string, Ioctx, string, ImageOptions], number>(
      rbd,
      'int rbd_clone3(void *p_io, const char *p_name, const char *p_snap, void *c_io, const char *c_name, void *opts)',
    ),
    removeImage: pooled<[Ioctx, string], number>(rbd, 'int rbd_remove(void *io, const char *name)'),
    renameImage: pooled<[Ioctx, string, string], number>(
      rbd,
      'int rbd_rename(void *io, const char *from, const char *to)',
    ),
    open: pooled<[Ioctx, string, Out<Image>, string | null], number>(
      rbd,
      'int rbd_open(void *io, const char *name, _Out_ void **image, const char *snap)',
    ),
    openReadOnly: pooled<[Ioctx, string, Out<Image>, string | null], number>(
      rbd,
      'int rbd_open_read_only(void *io, const char *name, _Out_ void **image, const char *snap)',
    ),
    close: pooled<[Image], number>(rbd, 'int rbd_close(void *image)'),
    imageId: pooled<[Image, Text, number], number>(rbd, 'int rbd_get_id(void *image, void *id, size_t id_len)'),
    size: pooled<[Image, Out<number | bigint>], number>(rbd, 'int rbd_get_size(void *image, _Out_ uint64_t *size)'),
    resize: pooled<[Image, bigint], number>(rbd, 'int rbd_resize(void *image, uint64_t size)'),
    parent: pooled<[Image, Buffer, Buffer], number>(
      rbd,
      'int rbd_get_parent(void *image, void *parent_image, void *parent_snap)',
    ),
    freeLinked: direct<[Buffer, number], void>(rbd, 'void rbd_linked_image_spec_list_cleanup(void *images, size_t n)'),
    freeSnapSpec: direct<[Buffer], void>(rbd, 'void rbd_snap_spec_cleanup(void *snap)'),
    diff: pooled<[Image, null, bigint, bigint, number, number, bigint, null], number>(
      rbd,
      'int rbd_diff_iterate2(void *image, const char *from, uint64_t ofs, uint64_t len, uint8_t include_parent, ' +
        'uint8_t whole_object, void *cb, void *arg)',
    ),

    // snapshots
    snapshots: pooled<[Image, Buffer, Buffer], number>(
      rbd,
      'int rbd_snap_list(void *image, void *snaps, void *max_snaps)',
    ),
    freeSnapshots: direct<[Buffer], void>(rbd, 'void rbd_snap_list_end(void *snaps)'),
    snapCreate: pooled<[Image, string], number>(rbd, 'int rbd_snap_create(void *image, const char *name)'),
    snapRemove: pooled<[Image, string], number>(rbd, 'int rbd_snap_remove(void *image, const char *name)'),
    snapProtect: pooled<[Image, string], number>(rbd, 'int rbd_snap_protect(void *image, const char *name)'),
    snapUnprotect: pooled<[Image, string], number>(rbd, 'int rbd_snap_unprotect(void *image, const char *name)'),
    snapIsProtected: pooled<[Image, string, Out<number>], number>(
      rbd,
      'int rbd_snap_is_protected(void *image, const char *name, _Out_ int *is_protected)',
    ),
    children: pooled<[Image, Buffer, Sizes], number>(
      rbd,
      'int rbd_list_children3(void *image, void *images, void *max_images)',
    ),

    // metadata, watchers, lockers
    metadataList: pooled<[Image, string, number, Text, Sizes, Text, Sizes], number>(
      rbd,
      'int rbd_metadata_list(void *image, const char *start, uint64_t max, void *keys, void *keys_len, void *vals, ' +
        'void *vals_len)',
    ),
    metadataSet: pooled<[Image, string, string], number>(
      rbd,
      'int rbd_metadata_set(void *image, const char *key, const char *value)',
    ),
    watchers: pooled<[Image, Buffer, Sizes], number>(
      rbd,
      'int rbd_watchers_list(void *image, void *watchers, void *max_watchers)',
    ),
    freeWatchers: direct<[Buffer, number], void>(rbd, 'void rbd_watchers_list_cleanup(void *watchers, size_t n)'),
    lockers: pooled<[Image, Out<number>, Text, Sizes, Text, Sizes, Text, Sizes, Text, Sizes], number | bigint>(
      rbd,
      'int64_t rbd_list_lockers(void *image, _Out_ int *exclusive, void *tag, void *tag_len, void *clients, ' +
        'void *clients_len, void *cookies, void *cookies_len, void *addrs, void *addrs_len)',
    ),
  };
}

export type Ceph = ReturnType<typeof loadLibraries>;
