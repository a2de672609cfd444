// SPDX-License-Identifier: Apache-2.0
import { type Clock, sleep } from '@busbar/core/clock/clock';
import type { Logger } from '@busbar/core/log';
import { revocationList } from '@busbar/pki/revocation-list';
import type { Seal } from '@busbar/pki/seal';
import { CertificatePurpose } from '@busbar/proto/gen/busbar/v1/certificate';
import type { ClusterView } from '../view/view.ts';
import { openRecorded } from './authority.ts';

/** After a disk that was full, or a directory that was not there. */
const RETRY_MS = 5_000;
/** The view changes with every write of the cluster, revocations with one in a million of them. */
const LOOK_EVERY_MS = 500;
/** Of etcd's authority, and those of which the cluster knows nothing but the number. */
const CONCERN_ETCD: readonly CertificatePurpose[] = [
  CertificatePurpose.ETCD,
  CertificatePurpose.ETCD_CLIENT,
  CertificatePurpose.UNSPECIFIED,
];

/**
 * Keeps the file from which the etcd member of this host learns who is revoked (ADR 0039). etcd reads it at every
 * handshake and refuses everybody when it cannot, so it is replaced in one step and never removed, and left as it is
 * until the cluster store was read. Written at the start as well: what was revoked while this controller was off is then known.
 */
export async function keepEtcdRevocations(
  deps: {
    readonly view: ClusterView;
    readonly seal: Seal;
    readonly clock: Clock;
    readonly logger: Logger;
    readonly write: (list: Uint8Array) => Promise<void>;
  },
  signal: AbortSignal,
): Promise<void> {
  const { view, seal, clock, logger } = deps;
  let written: string | null = null;
  let wake = () => {};
  using _changes = view.changes.onFlush(() => wake());
  const ended = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
  while (!signal.aborted) {
    const changed = new Promise<void>((resolve) => {
      wake = resolve;
    });
    const record = view.tables.authority.get('etcd-ca')?.record;
    const revoked = revokedOf(view);
    const content = revoked.map(({ serial }) => serial).join(' ');
    if (view.filled && record !== undefined && content !== written) {
      try {
        await deps.write(await revocationList(await openRecorded(seal, 'etcd-ca', record), revoked, clock.wallTime()));
        written = content;
        logger.info({ revoked: revoked.length }, 'etcd knows the revoked certificates');
      } catch (error) {
        logger.warn({ err: error }, 'etcd cannot be told of revoked certificates');
        await sleep(clock, RETRY_MS, signal).catch(() => {});
        continue;
      }
    }
    await Promise.race([changed, ended]);
    await sleep(clock, LOOK_EVERY_MS, signal).catch(() => {});
  }
}

function revokedOf(view: ClusterView): { readonly serial: string; readonly time: Date }[] {
  return view.tables.certificate.sorted().flatMap(({ record: { certificate } }) => {
    if (certificate?.revokeTime === undefined || !CONCERN_ETCD.includes(certificate.purpose)) return [];
    return [{ serial: certificate.serial, time: certificate.revokeTime }];
  });
}
