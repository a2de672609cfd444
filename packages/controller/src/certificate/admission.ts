// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import type { BusbarError } from '@busbar/core/errors';
import type { PresentedCertificate } from '../api/authenticate.ts';
import type { ClusterView } from '../view/view.ts';
import { isUnused } from './line.ts';
import { certificateExpired, certificateReplaced, certificateRevoked, revocationsUnknown } from './refusals.ts';

/**
 * Whether a certificate that TLS has verified still counts. TLS looks once, at the handshake; connections live for months,
 * and a revoked certificate is one that TLS likes.
 */
export interface Admission {
  /** Throws CERTIFICATE_REVOKED, CERTIFICATE_REPLACED, CERTIFICATE_EXPIRED or REVOCATIONS_UNKNOWN. */
  check(certificate: PresentedCertificate): void;
  /**
   * For a session of an agent that begins: the same, but open while the cluster store was never seen. A session grants a lease
   * and nothing else, and leases must not depend on the store (ADR 0021).
   */
  checkAgent(certificate: PresentedCertificate): void;
  /** Calls back once, with the reason, when the certificate does not count any more; at once when it does not already. */
  onEnd(certificate: PresentedCertificate, callback: (why: BusbarError) => void): Disposable;
  /** The same for a revocation alone: what an agent has open does not end by the wall clock (ADR 0048). */
  onRevoked(certificate: PresentedCertificate, callback: (why: BusbarError) => void): Disposable;
}

/**
 * How long a set wall clock goes unnoticed at most: ends are wall time, timers are not. Looking costs a map with an entry
 * for each certificate that is connected.
 */
export const LOOK_EVERY_MS = 10_000;

type Callback = (why: BusbarError) => void;
/** Who waits for the end of one certificate: streams are thousands, certificates a few. */
interface Waiting {
  readonly certificate: PresentedCertificate;
  readonly byTime: Set<Callback>;
  readonly byRevocation: Set<Callback>;
}

/** `onFirstUse` is told of a renewed certificate that was let in and is not on record as used, for as long as it is not. */
export function admission(view: ClusterView, clock: Clock, onFirstUse: (serial: string) => void = () => {}): Admission {
  const waiting = new Map<string, Waiting>();
  let timer: Disposable | null = null;
  const recordOf = (serial: string) => view.tables.certificate.get(serial)?.record.certificate;

  function revocationOf({ serial }: PresentedCertificate): BusbarError | null {
    return recordOf(serial)?.revokeTime === undefined ? null : certificateRevoked(serial);
  }

  function endOf({ serial, notAfter }: PresentedCertificate): Date {
    const replaceTime = recordOf(serial)?.replaceTime;
    return replaceTime !== undefined && replaceTime < notAfter ? replaceTime : notAfter;
  }

  function refusalOf(certificate: PresentedCertificate): BusbarError | null {
    const revocation = revocationOf(certificate);
    if (revocation !== null) return revocation;
    const end = endOf(certificate);
    if (end >= clock.wallTime()) return null;
    const { serial, notAfter } = certificate;
    if (end.getTime() === notAfter.getTime()) return certificateExpired(serial, end);
    return certificateReplaced(serial, recordOf(serial)?.successorSerial ?? '', end);
  }

  function checkAgent(certificate: PresentedCertificate): void {
    const refusal = refusalOf(certificate);
    if (refusal !== null) throw refusal;
    const record = recordOf(certificate.serial);
    if (record !== undefined && isUnused(record)) onFirstUse(certificate.serial);
  }

  /** Ends what has to end, and looks again when the next one is due. */
  function look(): void {
    timer?.[Symbol.dispose]();
    timer = null;
    let nextMs = Number.POSITIVE_INFINITY;
    for (const [serial, { certificate, byTime, byRevocation }] of waiting) {
      const revocation = revocationOf(certificate);
      if (revocation !== null) tell(byRevocation, revocation);
      const why = refusalOf(certificate);
      if (why !== null) tell(byTime, why);
      if (byTime.size + byRevocation.size === 0) waiting.delete(serial);
      if (byTime.size > 0) nextMs = Math.min(nextMs, endOf(certificate).getTime() - clock.wallTime().getTime());
    }
    // One past the end: that instant itself still counts.
    if (nextMs < Number.POSITIVE_INFINITY) timer = clock.timer(Math.min(nextMs + 1, LOOK_EVERY_MS), look);
  }
  // For the life of the controller, like the view itself.
  view.changes.onFlush(() => {
    if (waiting.size > 0) look();
  });

  function wait(certificate: PresentedCertificate, kind: 'byTime' | 'byRevocation', told: Callback): Disposable {
    const { serial } = certificate;
    const callback: Callback = (why) => told(why);
    const entry = waiting.get(serial) ?? { certificate, byTime: new Set(), byRevocation: new Set() };
    waiting.set(serial, entry);
    const isFirst = entry[kind].size === 0;
    entry[kind].add(callback);
    // The others of this certificate are being watched over already.
    if (isFirst) look();
    return {
      [Symbol.dispose]() {
        entry[kind].delete(callback);
        if (entry.byTime.size + entry.byRevocation.size === 0 && waiting.get(serial) === entry) waiting.delete(serial);
        if (waiting.size > 0 || timer === null) return;
        timer[Symbol.dispose]();
        timer = null;
      },
    };
  }

  return {
    checkAgent,
    check(certificate) {
      if (!view.filled) throw revocationsUnknown();
      checkAgent(certificate);
    },
    onEnd: (certificate, callback) => wait(certificate, 'byTime', callback),
    onRevoked: (certificate, callback) => wait(certificate, 'byRevocation', callback),
  };
}

function tell(callbacks: Set<Callback>, why: BusbarError): void {
  for (const callback of [...callbacks]) {
    callbacks.delete(callback);
    callback(why);
  }
}
