// SPDX-License-Identifier: Apache-2.0
/**
 * A Ceph identity for each start of a VM (ADR 0056), as caps. Pure.
 *
 * A guest that broke out of QEMU has its key. Hence the caps name the objects of its own images and the operations that
 * librbd needs, found by running librbd 16.2 with less and less until it failed; what an OSD or monitor does not need is
 * not there.
 */
import { assert } from '@busbar/core/assert';
import type { Epoch, VmId } from '@busbar/core/ids';

/** Entities that Busbar makes and removes. The key of the controllers may touch no other. */
const ENTITY_PREFIX = 'client.busbar-vm.';

/** Without `client.`, as QEMU wants it. The epoch makes it new with each start: no key outlives the start it was made for. */
export function accessUser(vmId: VmId, epoch: Epoch): string {
  return `busbar-vm.${vmId}.${epoch}`;
}

export function accessEntity(vmId: VmId, epoch: Epoch): string {
  return `client.${accessUser(vmId, epoch)}`;
}

/**
 * Maps of the cluster, and one command: librbd has to fence the dead client that still holds its image's lock, or the
 * disk stays locked. One instance only (an address with a nonce other than 0): with `profile rbd` it could be a whole
 * host, or a range of them. Ceph 16.2 splits words at spaces and stops at the first quote of the same kind.
 */
const MON =
  'allow service mon r, allow service osd r, allow command "osd blocklist" with blocklistop=add addr regex ' +
  '"^([0-9.]+|[[][0-9a-f:]+[]]):[0-9]+/[1-9][0-9]*$"';
/** Nothing. Named all the same, because the controllers' key is held to exactly these words and cannot be held to silence. */
const MGR = 'allow command "busbar none"';
const MDS = 'allow r path=/busbar-none';

export interface AccessDisk {
  /** Name of its image, in full: ids of volumes have one length, so none is the beginning of another. */
  readonly name: string;
  /** Ceph's id of its image; null when there is none: QEMU may ask for it, and hears that. */
  readonly id: string | null;
  /** Ceph's id of the image that it is a clone of. */
  readonly parentId: string | null;
}

const SAFE_POOL = /^[A-Za-z0-9][\w.-]*$/;
const SAFE_NAME = /^[a-z0-9.-]+$/;
const SAFE_ID = /^[0-9a-z]+$/;

/** In the order in which `auth get-or-create` and `auth caps` take them. */
export function accessCaps(pool: string, disks: readonly AccessDisk[]): readonly string[] {
  assert(SAFE_POOL.test(pool), `pool ${JSON.stringify(pool)} is no name for a cap`);
  const allow = (what: string, prefix: string) => `allow ${what} pool=${pool} object_prefix ${prefix}`;
  const grants = new Set([
    // librbd asks for settings of the pool, and for the name of an image that it knows by its id (the parent).
    allow('class rbd metadata_list', 'rbd_info'),
    allow('class rbd dir_get_name', 'rbd_directory'),
  ]);
  for (const { name, id, parentId } of disks) {
    assert(SAFE_NAME.test(name), `${JSON.stringify(name)} is no image for a cap`);
    grants.add(allow('r class-read', `rbd_id.${name}`));
    for (const each of [id, parentId])
      assert(each === null || SAFE_ID.test(each), `image id ${JSON.stringify(each)} is no id for a cap`);
    if (id === null) {
      // Where librbd looks next, for an image of the first format: what it must not look at it calls forbidden, not missing.
      grants.add(allow('r', `${name}.rbd`));
      continue;
    }
    // Writing, also where the VM's disk is read-only: QEMU 7.2 opens it for writing all the same, and watches it.
    for (const prefix of [`rbd_header.${id}`, `rbd_object_map.${id}`, `rbd_data.${id}.`])
      grants.add(allow('rwx', prefix));
    if (parentId === null) continue;
    for (const prefix of [`rbd_header.${parentId}`, `rbd_object_map.${parentId}`])
      grants.add(allow('r class-read', prefix));
    grants.add(allow('r', `rbd_data.${parentId}.`));
  }
  return ['mon', MON, 'osd', [...grants].join(', '), 'mgr', MGR, 'mds', MDS];
}

/**
 * What the controllers' own key needs at the monitors: to make identities like these and no others. Whoever could choose
 * the caps of an identity would be Ceph's administrator.
 */
export function controllerMonCaps(pool: string): string {
  assert(SAFE_POOL.test(pool), `pool ${JSON.stringify(pool)} is no name for a cap`);
  const objects = `"^(allow [a-z_ -]+ pool=${pool.replaceAll('.', '[.]')} object_prefix (rbd_|volume[.])[0-9a-z_.-]+(, |$))+$"`;
  const entity = `entity prefix ${ENTITY_PREFIX}`;
  const exactly = `${entity} caps_mon='${MON}' caps_mgr='${MGR}' caps_mds='${MDS}' caps_osd regex ${objects}`;
  return [
    'profile rbd',
    ...['auth get-or-create', 'auth caps'].map((command) => `allow command "${command}" with ${exactly}`),
    `allow command "auth rm" with ${entity}`,
  ].join(', ');
}
