// SPDX-License-Identifier: Apache-2.0
// Where a lab keeps its files.
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const STATE_ROOT = '/var/lib/busbar-lab';
export const REGISTRY = join(STATE_ROOT, 'labs.json');
export const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '');
export const HOST_INIT = fileURLToPath(new URL('./host-init.sh', import.meta.url));
export const JOIN_CGROUPS = fileURLToPath(new URL('./join-cgroups.sh', import.meta.url));

export const labDir = (lab: string): string => join(STATE_ROOT, lab);
export const specFile = (lab: string): string => join(labDir(lab), 'lab.json');
export const pkiDir = (lab: string): string => join(labDir(lab), 'pki');
export const cephDir = (lab: string): string => join(labDir(lab), 'ceph');
/** With --no-ceph: one directory that all hosts see, as a plant's NFS server would be. */
export const volumesDir = (lab: string): string => join(labDir(lab), 'volumes');
export const hostDir = (lab: string, host: string): string => join(labDir(lab), 'hosts', host);
/** The private part of a host's file system; a path below it appears inside the host at the same path. */
export const hostRoot = (lab: string, host: string, path = ''): string => join(hostDir(lab, host), 'root', path);
export const hostStateFile = (lab: string, host: string): string => join(hostDir(lab, host), 'host.json');

/** Directories that every host has to itself. The first group holds files of Debian packages, which a host starts from. */
export const PRIVATE_DIRECTORIES = [
  '/etc/libvirt',
  '/var/lib/libvirt',
  '/var/log/libvirt',
  '/var/cache/libvirt',
  '/etc/ceph',
  '/var/lib/ceph',
  '/var/log/ceph',
  '/etc/openvswitch',
  '/var/lib/busbar',
  '/etc/busbar',
  '/var/log/busbar',
] as const;

/** Of these the machine has none by itself: `up` makes the mount points, the last `down` removes them. */
export const OWN_MOUNT_POINTS = ['/var/lib/busbar', '/etc/busbar', '/var/log/busbar'] as const;

export const PRIVATE_FILES = ['/etc/hostname', '/etc/hosts', '/etc/machine-id'] as const;
