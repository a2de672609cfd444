// SPDX-License-Identifier: Apache-2.0
// Encrypts what must not stand in the cluster store in plain text: keys of authorities, user data of VMs. The seal key
// is a file that only controllers hold; a copy of etcd (a backup, a stolen disk of a member) is worth nothing without it.
import { createCipheriv, createDecipheriv, createHmac, createSecretKey, hkdfSync } from 'node:crypto';
import { BusbarError } from '@busbar/core/errors';

export const SEAL_KEY_BYTES = 32;
const NONCE_BYTES = 12; // GCM's own size, NIST SP 800-38D 8.2
const TAG_BYTES = 16;
const PREFIX = 'sealed.1.';

export interface Seal {
  /**
   * `context` says what it is and whose (e.g. "vm-user-data/ID"): what was sealed for one place opens in no other.
   * The same plain text for the same context gives the same sealed text, so that plans stay pure.
   */
  seal(plain: Uint8Array, context: string): string;
  /** Keyed: who has only the store can neither open it nor try guesses against it. A tenth of the cost of sealing. */
  digest(plain: Uint8Array, context: string): string;
  /** Throws SEAL_BROKEN when it was sealed with another key or for another context, or was changed. */
  open(sealed: string, context: string): Uint8Array;
}

export function openSeal(key: Uint8Array): Seal {
  if (key.length !== SEAL_KEY_BYTES) {
    throw new BusbarError({
      kind: 'invalid',
      reason: 'SEAL_KEY_INVALID',
      message: `a seal key has ${SEAL_KEY_BYTES} bytes, not ${key.length}`,
    });
  }
  // As key objects: Node would make one of the bytes in every call, which is five sixths of the time of a digest.
  const derive = (use: string) => createSecretKey(Buffer.from(hkdfSync('sha256', key, '', `busbar seal 1 ${use}`, 32)));
  const encryptionKey = derive('encryption');
  const nonceKey = derive('nonce');
  const digestKey = derive('digest');
  return {
    digest: (plain, context) =>
      createHmac('sha256', digestKey).update(`${context.length}\0${context}\0`).update(plain).digest('base64url'),
    seal(plain, context) {
      // From the content, as in AES-SIV (RFC 5297): a nonce is repeated for equal texts only, which it then shows equal.
      const nonce = createHmac('sha256', nonceKey)
        .update(`${context.length}\0${context}\0`)
        .update(plain)
        .digest()
        .subarray(0, NONCE_BYTES);
      const cipher = createCipheriv('aes-256-gcm', encryptionKey, nonce).setAAD(Buffer.from(context));
      const text = Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
      return PREFIX + text.toString('base64url');
    },
    open(sealed, context) {
      try {
        if (!sealed.startsWith(PREFIX)) throw new Error('it is not sealed text of version 1');
        const bytes = Buffer.from(sealed.slice(PREFIX.length), 'base64url');
        if (bytes.length < NONCE_BYTES + TAG_BYTES) throw new Error('it is cut short');
        const decipher = createDecipheriv('aes-256-gcm', encryptionKey, bytes.subarray(0, NONCE_BYTES), {
          authTagLength: TAG_BYTES,
        });
        decipher.setAAD(Buffer.from(context)).setAuthTag(bytes.subarray(-TAG_BYTES));
        return Buffer.concat([decipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES)), decipher.final()]);
      } catch (cause) {
        throw new BusbarError({
          kind: 'internal',
          reason: 'SEAL_BROKEN',
          message: `${context} in the cluster store cannot be opened with this controller's seal key`,
          hint: 'every controller needs the same seal key; after a restore, the one of the time of the backup',
          cause,
        });
      }
    },
  };
}
