// SPDX-License-Identifier: Apache-2.0
import type { X509Certificate } from 'node:crypto';
import type { Logger } from '@busbar/core/log';
import type { HealthSource } from '@busbar/telemetry/health';
import { type MetricsListener, metricsListener, type TlsFiles } from '@busbar/telemetry/listener';
import type { MetricsRegistry } from '@busbar/telemetry/registry';

export function agentListener(deps: {
  readonly cluster: string;
  readonly tls: TlsFiles;
  readonly registry: MetricsRegistry;
  readonly health: HealthSource;
  readonly logger: Logger;
}): MetricsListener {
  return metricsListener({ ...deps, mayRead: (certificate) => isClientOf(deps.cluster, certificate) });
}

const LABEL = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?';

/**
 * Whether a certificate of the cluster's authority is a client's: one identity, and that a client's, and one role, as
 * the controllers' API has it. An agent knows no list of revoked ones; it shows figures and obeys nobody who asks here.
 */
export function isClientOf(cluster: string, { subjectAltName = '' }: Pick<X509Certificate, 'subjectAltName'>): boolean {
  // Node quotes an entry that could be taken for two; what looks odd is left out.
  const uris = subjectAltName.split(', ').filter((entry) => entry.startsWith('URI:') && !entry.includes('"'));
  const states = (pattern: string) => uris.filter((uri) => new RegExp(`^URI:spiffe://${pattern}$`).test(uri)).length;
  const identities = states(`${LABEL}/(?:controller|host|client)/${LABEL}`);
  return (
    identities === 1 &&
    states(`${cluster}/client/${LABEL}`) === 1 &&
    states(`${cluster}/role/(?:viewer|operator|admin)`) === 1
  );
}
