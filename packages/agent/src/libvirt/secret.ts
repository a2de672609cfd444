// SPDX-License-Identifier: Apache-2.0
import { readFile } from 'node:fs/promises';
import { BusbarError } from '@busbar/core/errors';
import type { VmId } from '@busbar/core/ids';
import { element, serialize } from '../domain/xml.ts';

/** Of the key that all VMs share, where they do. One secret per libvirt: defining it again replaces its value. Random, fixed for good. */
export const CEPH_SECRET_UUID = '1f0c2f3e-6d0b-4d1e-9a57-b05ba2c3f4d1';

/** Ephemeral: never on disk. Private: nobody reads it back through libvirt. */
export function cephSecretXml(): string {
  return secretXml(CEPH_SECRET_UUID, 'Key of this host for Ceph, set by the Busbar agent', 'busbar');
}

/** For one start of a VM: there while libvirt hands it to QEMU. The secret's UUID is the VM's. */
export function diskSecretXml(vmId: VmId): string {
  return secretXml(vmId, 'Key of the disks of one VM for one start, set by the Busbar agent', `busbar/${vmId}`);
}

function secretXml(uuid: string, description: string, name: string): string {
  return serialize(
    element(
      'secret',
      { ephemeral: 'yes', private: 'yes' },
      element('uuid', {}, uuid),
      element('description', {}, description),
      element('usage', { type: 'ceph' }, element('name', {}, name)),
    ),
  );
}

/** The key's bytes, from a keyring (`key = …`) or a file with nothing but the key. The key is never in an error. */
export async function readCephKey(keyFile: string): Promise<Uint8Array> {
  const text = await readFile(keyFile, 'utf8');
  const key = /^\s*key\s*=\s*(\S+)\s*$/m.exec(text)?.[1] ?? text.trim();
  const bytes = Buffer.from(key, 'base64');
  // Buffer.from skips what it does not know; a cephx key is 28 bytes.
  if (bytes.length < 16 || !/^[A-Za-z0-9+/]+={0,2}$/.test(key)) {
    throw new BusbarError({
      kind: 'invalid',
      reason: 'CEPH_KEY_INVALID',
      message: `${keyFile} holds no Ceph key`,
      hint: 'write the keyring with: ceph auth get client.NAME -o FILE',
    });
  }
  return bytes;
}
