// SPDX-License-Identifier: Apache-2.0

import type { X509Certificate } from 'node:crypto';
import type { Logger } from '@busbar/core/log';
import { type MetricsListener, metricsListener, type TlsFiles } from '@busbar/telemetry/listener';
import type { MetricsRegistry } from '@busbar/telemetry/registry';
import { callerOf, presented } from '../api/authenticate.ts';
import type { Admission } from '../certificate/admission.ts';
import type { Controller } from '../controller.ts';

/** Metrics for whoever may read the API: the same certificate, judged in the same places. */
export function controllerListener(deps: {
  readonly cluster: string;
  readonly tls: TlsFiles;
  readonly registry: MetricsRegistry;
  readonly controller: Controller;
  readonly logger: Logger;
}): MetricsListener {
  return metricsListener({
    tls: deps.tls,
    registry: deps.registry,
    health: deps.controller.health,
    logger: deps.logger,
    mayRead: (certificate) => mayRead(certificate, deps.cluster, deps.controller.admission),
  });
}

function mayRead(certificate: X509Certificate, cluster: string, admission: Admission): boolean {
  const { serialNumber, subjectAltName, validFrom, validTo } = certificate;
  const peer = { serialNumber, subjectaltname: subjectAltName, valid_from: validFrom, valid_to: validTo };
  const caller = callerOf(presented(peer), cluster);
  if (caller?.certificate == null || caller.role === null) return false;
  try {
    admission.check(caller.certificate);
    return true;
  } catch {
    return false;
  }
}
