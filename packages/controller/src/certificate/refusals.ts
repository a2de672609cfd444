// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';

/** Why a certificate that TLS has verified is not taken. */

export function certificateRevoked(serial: string): BusbarError {
  return new BusbarError({
    kind: 'unauthenticated',
    reason: 'CERTIFICATE_REVOKED',
    message: `the client certificate ${serial} was revoked`,
    hint: 'ask an admin for a new one ("busbar certificate list" says why it was revoked)',
  });
}

export function certificateExpired(serial: string, end: Date): BusbarError {
  return new BusbarError({
    kind: 'unauthenticated',
    reason: 'CERTIFICATE_EXPIRED',
    message: `the client certificate ${serial} ended ${end.toISOString()}`,
    hint: 'have a new one issued; "busbar certificate renew" works only before the end',
  });
}

export function certificateReplaced(serial: string, successor: string, end: Date): BusbarError {
  return new BusbarError({
    kind: 'unauthenticated',
    reason: 'CERTIFICATE_REPLACED',
    message: `the client certificate ${serial} ended ${end.toISOString()}, because it was renewed and its successor ${successor} is in use`,
    hint: 'use the successor; if you have not renewed it, somebody else has your key: tell an admin, who revokes it',
  });
}

/** Who cannot know what was revoked lets nobody in. */
export function revocationsUnknown(): BusbarError {
  return new BusbarError({
    kind: 'unavailable',
    reason: 'REVOCATIONS_UNKNOWN',
    message: 'this controller has not read the cluster store yet and cannot tell which certificates are revoked',
    hint: 'ask another controller, or again in a moment',
  });
}
