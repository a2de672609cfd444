// SPDX-License-Identifier: Apache-2.0
import { randomUUID } from 'node:crypto';
import { assert } from '@busbar/core/assert';
import type { Renewer } from '@busbar/pki/tls/renewal';
import type { TlsSource } from '@busbar/pki/tls/source';
import {
  CertificatePurpose,
  RenewCertificateRequest,
  type RenewCertificateResponse,
} from '@busbar/proto/gen/busbar/v1/certificate';
import { callerOf, presented } from '../api/authenticate.ts';
import type { Pipeline } from '../api/pipeline.ts';
import type { BoundService } from '../api/services.ts';

/**
 * A controller has its certificates renewed by its own API, and goes the way of every caller: known by the certificate
 * that it shows to others, authorised, checked for revocation and recorded.
 */
export function ownRenewer(
  deps: {
    readonly cluster: string;
    readonly services: readonly BoundService[];
    readonly gate: Pipeline;
    readonly identity: TlsSource;
  },
  purpose: CertificatePurpose,
): Renewer {
  const bound = deps.services.find((service) => service.definition.name === 'CertificateService');
  const [definition, method] = [bound?.definition.methods.renewCertificate, bound?.methods.renewCertificate];
  assert(bound !== undefined && definition !== undefined && method !== undefined, 'the API renews certificates');
  const call = deps.gate.unary(bound.definition.fullName, definition, method);
  const ask = async (csrPem: string, validateOnly: boolean, signal: AbortSignal) => {
    const { serialNumber, names, notBefore, notAfter } = deps.identity.current();
    const peer = presented({
      serialNumber,
      subjectaltname: names,
      valid_from: notBefore.toISOString(),
      valid_to: notAfter.toISOString(),
    });
    const requestId = randomUUID();
    const request = RenewCertificateRequest.fromPartial({ csrPem, purpose, validateOnly, requestId });
    return (await call(request, callerOf(peer, deps.cluster), signal)) as RenewCertificateResponse;
  };
  return {
    renew: async (csrPem, signal) => ({
      certificatePem: (await ask(csrPem, false, signal)).certificate?.certificatePem ?? '',
    }),
    // The others are shown to servers that are not ours.
    ...(purpose === CertificatePurpose.CONTROLLER
      ? { prove: async (csrPem: string, signal: AbortSignal) => void (await ask(csrPem, true, signal)) }
      : {}),
  };
}
