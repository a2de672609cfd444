// SPDX-License-Identifier: Apache-2.0
/**
 * Branded ids, append-only. A brand costs nothing at run time and stops a volume's id from being
 * handed to a function that wants a VM's. Values enter through the zod schemas at the borders.
 */
declare const brand: unique symbol;
export type Brand<T, B extends string> = T & { readonly [brand]: B };

/** Lower-case RFC 9562 UUID; also the libvirt domain UUID. */
export type VmId = Brand<string, 'VmId'>;
export type VolumeId = Brand<string, 'VolumeId'>;
export type ImageId = Brand<string, 'ImageId'>;
export type NetworkId = Brand<string, 'NetworkId'>;
export type OperationId = Brand<string, 'OperationId'>;
/** A host's id is its name in the cluster's configuration and in its certificate: stable across reinstallation. */
export type HostId = Brand<string, 'HostId'>;
/** The kernel's random boot id: a new one proves that everything of the former boot is gone. */
export type BootId = Brand<string, 'BootId'>;

/** Counts up from 1 with every start or move of a VM; only the newest may run. */
export type Epoch = Brand<bigint, 'Epoch'>;
/** Position in the cluster store's history (etcd's revision). */
export type Revision = Brand<bigint, 'Revision'>;
