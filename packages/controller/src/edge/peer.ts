// SPDX-License-Identifier: Apache-2.0
import type { PeerCertificate, TLSSocket } from 'node:tls';
import { BusbarError } from '@busbar/core/errors';
import { type Arrival, httpsArrival } from '../api/arrival.ts';
import { callerOf, presented } from '../api/authenticate.ts';
import type { Caller } from '../api/call.ts';

/**
 * Who is at the other end. The handshake lets everybody in, so that whoever has no valid certificate is told why in
 * the API's own words: a TLS alert says "certificate unknown" at best, and curl shows it as "unexpected eof".
 */
export interface Peer {
  readonly caller: Caller | null;
  /** Why there is no caller, when the certificate itself is the reason. */
  readonly refusal: BusbarError | null;
  readonly arrival: Arrival;
}

export function peerOf(socket: TLSSocket, cluster: string): Peer {
  const arrival = httpsArrival(socket);
  const certificate = socket.getPeerCertificate();
  if (!socket.authorized)
    return { caller: null, refusal: certificateRefusal(socket.authorizationError, certificate), arrival };
  return { caller: callerOf(presented(certificate), cluster), refusal: null, arrival };
}

type Shown = Pick<PeerCertificate, 'valid_from' | 'valid_to'>;

/** `code` is OpenSSL's word for the result of the verification. Null when no certificate was sent: the pipeline tells that. */
export function certificateRefusal(code: unknown, certificate: Shown | Record<string, never>): BusbarError | null {
  if (certificate.valid_to === undefined) return null;
  const refusal = (reason: string, message: string, hint: string) =>
    new BusbarError({ kind: 'unauthenticated', reason, message, hint });
  switch (String(code)) {
    case 'CERT_HAS_EXPIRED':
      return refusal(
        'CLIENT_CERTIFICATE_EXPIRED',
        `the client certificate ended on ${certificate.valid_to}`,
        'have a new one issued; if it should be valid, compare the clocks of both machines',
      );
    case 'CERT_NOT_YET_VALID':
      return refusal(
        'CLIENT_CERTIFICATE_NOT_YET_VALID',
        `the client certificate is valid from ${certificate.valid_from} on`,
        'compare the clocks of both machines',
      );
    case 'CERT_REVOKED':
      return refusal(
        'CLIENT_CERTIFICATE_REVOKED',
        'the client certificate was revoked',
        'ask an administrator of the cluster',
      );
    case 'UNABLE_TO_GET_ISSUER_CERT':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
    case 'CERT_SIGNATURE_FAILURE':
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'SELF_SIGNED_CERT_IN_CHAIN':
      return refusal(
        'CLIENT_CERTIFICATE_UNKNOWN_AUTHORITY',
        "the client certificate was not issued by this cluster's authority",
        'use a certificate of this cluster: is this the right cluster?',
      );
    default:
      return refusal(
        'CLIENT_CERTIFICATE_INVALID',
        `the client certificate is not valid: ${String(code)}`,
        'use a client certificate issued by the cluster',
      );
  }
}
