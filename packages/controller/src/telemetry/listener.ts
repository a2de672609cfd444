// SPDX-License-Identifier: Apache-2.0
import type { Logger } from '@busbar/core/log';
import { type MetricsListener, metricsListener, type TlsFiles } from '@busbar/telemetry/listener';
import type { MetricsRegistry } from '@busbar/telemetry/registry';
import { callerOf } from '../api/authenticate.ts';
import { uriNames } from '../api/identity-interceptor.ts';
import type { Controller } from '../controller.ts';

/** Metrics for whoever could call the API: the same certificate, judged in the same place. Any role reads. */
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
    mayRead: (certificate) => callerOf(uriNames(certificate.subjectAltName ?? ''), deps.cluster) !== null,
  });
}
