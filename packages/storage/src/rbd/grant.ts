// SPDX-License-Identifier: Apache-2.0
/** Makes and removes the Ceph identities of access.ts. */
import type { Epoch, VmId } from '@busbar/core/ids';
import { nativeCode } from '@busbar/native/errors';
import { z } from 'zod';
import type { AccessGrant, AccessRequest } from '../driver.ts';
import { storageError } from '../errors.ts';
import { ERRNO } from '../ffi/errors.ts';
import * as names from '../names.ts';
import { type AccessDisk, accessCaps, accessEntity, accessUser } from './access.ts';
import type { CephApi } from './client.ts';
import * as meta from './metadata.ts';

const Identity = z.array(z.object({ key: z.base64() })).length(1);

/**
 * `auth get-or-create` answers the key that is there already, so a leader that takes over a start tells the agent the
 * same as its predecessor. Caps of the same start differ only when an image was replaced in between: they are set anew.
 */
export async function grantAccess(client: CephApi, pool: string, request: AccessRequest): Promise<AccessGrant> {
  const { vmId, epoch } = request;
  const caps = accessCaps(pool, await Promise.all(request.disks.map((disk) => imageOf(client, disk))));
  const entity = accessEntity(vmId, epoch);
  const getOrCreate = () => client.call('monCommand', { command: { prefix: 'auth get-or-create', entity, caps } });
  const answer = await getOrCreate().catch(async (error: unknown) => {
    if (nativeCode(error) !== ERRNO.EINVAL) throw error;
    await client.call('monCommand', { command: { prefix: 'auth caps', entity, caps } });
    return await getOrCreate();
  });
  // Whatever is wrong with the answer, there may be a key in it: it is in no error.
  const [identity] = Identity.safeParse(parsed(answer)).data ?? [];
  if (identity === undefined) throw storageError('storageFailed', `the monitors' answer holds no key of ${entity}`);
  return { user: accessUser(vmId, epoch), key: Buffer.from(identity.key, 'base64') };
}

/** One that is not there costs a question (0.6 ms), one that is a commit of the monitors. */
export async function revokeAccess(client: CephApi, vmId: VmId, epochs: readonly Epoch[]): Promise<void> {
  for (const epoch of epochs) {
    await client.call('monCommand', { command: { prefix: 'auth rm', entity: accessEntity(vmId, epoch) } });
  }
}

/** What is not there, or is not whole, is not granted; the start goes on, and QEMU's words tell the user what it misses. */
async function imageOf(client: CephApi, disk: AccessRequest['disks'][number]): Promise<AccessDisk> {
  const name = names.volumeName(disk.volumeId);
  const volume = await client.call('inspect', { name });
  const id = volume !== null && meta.isCompleteVolume(volume) ? volume.id : null;
  // The parent that the volume names is not asked: its guest could have written any other image there.
  const parent = disk.imageId === null ? null : await client.call('inspect', { name: names.imageName(disk.imageId) });
  return { name, id, parentId: parent !== null && meta.isCompleteImage(parent) ? parent.id : null };
}

function parsed(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}
