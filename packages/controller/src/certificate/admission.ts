// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import type { PresentedCertificate } from '../api/authenticate.ts';
import type { ClusterView } from '../view/view.ts';

/**
 * Whether a certificate that TLS has verified still counts. TLS looks once, at the handshake; connections live for months,
 * and a revoked certificate is one that TLS likes.
 */
export interface Admission {
  /** Throws CERTIFICATE_REVOKED, CERTIFICATE_EXPIRED or REVOCATIONS_UNKNOWN. */
  check(certificate: PresentedCertificate): void;
  /**
   * For the session of an agent: the same, but open while the cluster store was never seen. A session grants a lease and
   * nothing else, and leases must not depend on the store (ADR 0021).
   */
  checkAgent(certificate: PresentedCertificate): void;
  /** Calls back once when the certificate is revoked, at once when it is already. */
  onRevoked(certificate: PresentedCertificate, callback: () => void): Disposable;
}

export function admission(view: ClusterView, clock: Clock): Admission {
  const waiting = new Map<string, Set<() => void>>();
  const revoked = (serial: string): boolean =>
    view.tables.certificate.get(serial)?.record.certificate?.revokeTime !== undefined;
  // For the life of the controller, like the view itself.
  view.changes.onFlush(() => {
    for (const [serial, callbacks] of waiting) {
      if (!revoked(serial)) continue;
      waiting.delete(serial);
      for (const callback of callbacks) callback();
    }
  });

  function checkAgent(certificate: PresentedCertificate): void {
    if (revoked(certificate.serial)) throw certificateRevoked(certificate);
    if (certificate.notAfter < clock.wallTime()) {
      throw new BusbarError({
        kind: 'unauthenticated',
        reason: 'CERTIFICATE_EXPIRED',
        message: `the client certificate ${certificate.serial} ended ${certificate.notAfter.toISOString()}`,
        hint: 'have a new one issued; "busbar certificate renew" works only before the end',
      });
    }
  }

  return {
    checkAgent,
    check(certificate) {
      if (!view.filled) {
        // Who cannot know what was revoked lets nobody in.
        throw new BusbarError({
          kind: 'unavailable',
          reason: 'REVOCATIONS_UNKNOWN',
          message: 'this controller has not read the cluster store yet and cannot tell which certificates are revoked',
          hint: 'ask another controller, or again in a moment',
        });
      }
      checkAgent(certificate);
    },
    onRevoked(certificate, callback) {
      const { serial } = certificate;
      if (revoked(serial)) {
        callback();
        return { [Symbol.dispose]: () => {} };
      }
      const callbacks = waiting.get(serial) ?? new Set();
      waiting.set(serial, callbacks.add(callback));
      return {
        [Symbol.dispose]() {
          callbacks.delete(callback);
          if (callbacks.size === 0 && waiting.get(serial) === callbacks) waiting.delete(serial);
        },
      };
    },
  };
}

export function certificateRevoked(certificate: PresentedCertificate): BusbarError {
  return new BusbarError({
    kind: 'unauthenticated',
    reason: 'CERTIFICATE_REVOKED',
    message: `the client certificate ${certificate.serial} was revoked`,
    hint: 'ask an admin for a new one ("busbar certificate list" says why it was revoked)',
  });
}
