// SPDX-License-Identifier: Apache-2.0
import { z } from 'zod';

/**
 * Paths reach Ceph's programs as arguments. Anything that a shell, a Ceph option or a reader of a log
 * could take for something else is refused rather than escaped.
 */
const path = z
  .string()
  .regex(/^\/[\w./+-]*$/, 'must be an absolute path of letters, digits and _ . / + -')
  .refine((value) => !value.split('/').includes('..'), 'must not contain ".."');
const name = z.string().regex(/^[A-Za-z0-9][\w.-]{0,63}$/, 'must be a name of letters, digits, _ . and -');
const ms = z.int().min(10).max(86_400_000);
const seconds = z.int().min(1).max(600);

export const RbdConfig = z.strictObject({
  driver: z.literal('rbd'),
  pool: name,
  cephConf: path,
  /** Without `client.`; needs the caps mon, osd and mgr "profile rbd" (osd and mgr may be limited to the pool). */
  user: name,
  keyring: path,
  /**
   * `vm`: each start of a VM gets a Ceph identity of its own, which opens its disks only; `user` then needs the caps that
   * rbd/access.ts names. `shared`: every host has a key in its agent.yaml that opens every disk of the pool.
   */
  identities: z.enum(['vm', 'shared'], '"vm" or "shared"').default('shared'),
  /** Where qcow2 streams wait until they are whole; needs room for the largest of them. */
  spoolDir: path,
  deadlines: z
    .strictObject({
      /** Reads, creating, resizing. */
      callMs: ms.default(12_000),
      /** Deleting: Ceph removes object by object. */
      deleteMs: ms.default(600_000),
      /** Asking the monitors why a call failed; added to the deadline of that call. */
      diagnoseMs: ms.default(3_000),
      /** An import whose sender sends nothing, or whose pool takes nothing, for so long is given up. */
      importIdleMs: ms.default(90_000),
    })
    .prefault({}),
  timeouts: z
    .strictObject({
      mountS: seconds.default(4),
      monOpS: seconds.default(4),
      osdOpS: seconds.default(5),
      /** For bulk data: longer than the failover of an OSD. */
      bulkOsdOpS: seconds.default(60),
    })
    .prefault({}),
});

export const DirConfig = z.strictObject({
  driver: z.literal('dir'),
  /** A directory that every host mounts at this path. */
  path,
  /** Default: inside `path`. */
  spoolDir: path.optional(),
  deadlines: z
    .strictObject({
      callMs: ms.default(20_000),
      /** A clone where the file system cannot share blocks. */
      copyMs: ms.default(3_600_000),
      importIdleMs: ms.default(90_000),
    })
    .prefault({}),
});

export const SimConfig = z.strictObject({
  driver: z.literal('sim'),
  totalBytes: z
    .union([z.bigint(), z.int().transform(BigInt)])
    .refine((value) => value > 0n)
    .optional(),
});

/** The `storage` section of the controller's configuration. */
export const StorageConfig = z.discriminatedUnion('driver', [RbdConfig, DirConfig, SimConfig]);

export type RbdConfig = z.output<typeof RbdConfig>;
export type DirConfig = z.output<typeof DirConfig>;
export type SimConfig = z.output<typeof SimConfig>;
export type StorageConfig = z.output<typeof StorageConfig>;
