// SPDX-License-Identifier: Apache-2.0
import type { Brand } from '@busbar/core/ids';

/**
 * koffi hands pointers out as plain bigints, and a wrong one is a crash. Each kind of handle is a type
 * of its own, made only in calls.ts, and none leaves the child: the parent names images, never handles.
 */
export type Cluster = Brand<bigint, 'rados_t'>;
export type Ioctx = Brand<bigint, 'rados_ioctx_t'>;
export type Image = Brand<bigint, 'rbd_image_t'>;
export type ImageOptions = Brand<bigint, 'rbd_image_options_t'>;

/** What a C function fills in: koffi writes into the one element. */
export type Out<T> = [T | null];
