// SPDX-License-Identifier: Apache-2.0
import { type Clock, sleep, withDeadline } from '@busbar/core/clock/clock';
import { BusbarError, errorChain } from '@busbar/core/errors';
import type { Logger } from '@busbar/core/log';
import { stagePair, switchPair, type TlsFiles } from './files.ts';
import { parseTls, type TlsMaterial } from './material.ts';
import type { TlsSource } from './source.ts';

/** Who issues certificates: the cluster, through its API. Proven by the connection, the caller gets one for itself. */
export interface Renewer {
  renew(csrPem: string, signal: AbortSignal): Promise<{ readonly certificatePem: string }>;
  /**
   * Shows the new certificate, by then in place, to the cluster: from its first use on it cannot be renewed away by a thief of
   * the former one, which ends soon (ADR 0047). Only where it is what the caller is known by.
   */
  prove?(csrPem: string, signal: AbortSignal): Promise<void>;
}

export interface RenewalDeps {
  readonly source: Pick<TlsSource, 'current' | 'refresh'>;
  readonly files: TlsFiles;
  readonly renewer: Renewer;
  readonly logger: Logger;
}

/** A third of a lifetime is left for whatever is in the way: a year's certificate gives four months to notice. */
const RENEW_AT = 2 / 3;
/** Of what is left of the lifetime is waited after a failure: often enough at the end, and not a thousand lines a day before. */
const RETRY_PART = 1 / 20;
const RETRY_MS = { min: 1_000, max: 3_600_000 } as const;
/** The longest sleep: the wall clock may be set meanwhile, and setTimeout counts 24 days at most. */
const LOOK_EVERY_MS = 3_600_000;
const DEADLINE_MS = 30_000;

/**
 * When a certificate is to be renewed (wall time, ms). The authority dates certificates back so that hosts with slow clocks
 * take them; a lifetime that begins long before it was got would make short ones due at once, again and again.
 */
export function renewalDueMs(material: Pick<TlsMaterial, 'notBefore' | 'notAfter'>, obtainedMs: number | null): number {
  const fromMs = Math.max(material.notBefore.getTime(), obtainedMs ?? Number.NEGATIVE_INFINITY);
  return fromMs + (material.notAfter.getTime() - fromMs) * RENEW_AT;
}

/** Keeps a certificate young until the signal aborts. */
export async function keepRenewed(
  deps: {
    readonly current: () => Pick<TlsMaterial, 'serialNumber' | 'notBefore' | 'notAfter'>;
    /** After it, `current` is the new one. */
    readonly renew: (signal: AbortSignal) => Promise<void>;
    readonly clock: Clock;
    readonly logger: Logger;
  },
  signal: AbortSignal,
): Promise<void> {
  const { current, renew, clock, logger } = deps;
  let own: { readonly serialNumber: string; readonly atMs: number } | null = null;
  let retryAtMs = Number.NEGATIVE_INFINITY;
  while (!signal.aborted) {
    const material = current();
    const obtainedMs = own?.serialNumber === material.serialNumber ? own.atMs : null;
    const nowMs = clock.wallTime().getTime();
    const waitMs = Math.max(renewalDueMs(material, obtainedMs) - nowMs, retryAtMs - clock.nowMs());
    if (waitMs > 0) {
      await sleep(clock, Math.min(waitMs, LOOK_EVERY_MS), signal).catch(() => {});
      continue;
    }
    try {
      await withDeadline(clock, DEADLINE_MS, 'renewing the certificate', renew, signal);
      own = { serialNumber: current().serialNumber, atMs: clock.wallTime().getTime() };
    } catch (error) {
      if (signal.aborted) return;
      const leftMs = material.notAfter.getTime() - nowMs;
      const pauseMs = Math.min(Math.max(leftMs * RETRY_PART, RETRY_MS.min), RETRY_MS.max);
      retryAtMs = clock.nowMs() + pauseMs;
      logger.warn(
        { serialNumber: material.serialNumber, notAfter: material.notAfter.toISOString(), err: errorChain(error) },
        `the certificate could not be renewed; next try in ${Math.round(pauseMs / 1_000)} s`,
      );
    }
  }
}

/** The two together, for a daemon. */
export function renewInPlace(deps: RenewalDeps & { readonly clock: Clock }, signal: AbortSignal): Promise<void> {
  const renew = (limit: AbortSignal) => renewOnce(deps, limit);
  return keepRenewed({ current: () => deps.source.current(), renew, clock: deps.clock, logger: deps.logger }, signal);
}

/** One renewal: makes a new key, has it certified, and puts both in place. Throws, and leaves everything as it was, when what comes back is not what was asked for. */
export async function renewOnce(deps: RenewalDeps, signal: AbortSignal): Promise<void> {
  const { source, files, renewer, logger } = deps;
  const former = source.current();
  // Only now: the library takes some MB of memory, and a renewal is made a few times a year.
  const { createRequest } = await import('../csr.ts');
  const { csrPem, keyPem } = await createRequest(subjectOf(former));
  const { certificatePem } = await renewer.renew(csrPem, signal);
  signal.throwIfAborted();
  const text = { ca: former.ca, certificate: Buffer.from(certificatePem), key: Buffer.from(keyPem) };
  const issued = parseTls(text);
  if (!issued.ok) throw wrongAnswer(issued.error);
  if (!isSameHolder(former.names, issued.value.names))
    throw wrongAnswer(`it is for ${issued.value.names || 'nobody'}, not for ${former.names}`);
  if (issued.value.notAfter <= former.notAfter)
    throw wrongAnswer(`it ends at ${issued.value.notAfter.toISOString()}, no later than the present one`);
  await stagePair(files, { certificatePem, keyPem });
  await switchPair(files);
  logger.info(
    { certificate: files.certificate, serialNumber: issued.value.serialNumber, former: former.serialNumber },
    'the certificate was renewed',
  );
  await source.refresh();
  // In place is what counts: the next connection proves it as well.
  await renewer.prove?.(csrPem, signal).catch((error: unknown) => {
    logger.warn(
      { certificate: files.certificate, err: errorChain(error) },
      'the new certificate could not be shown yet',
    );
  });
}

/** Who it speaks for is exactly the same, and it can be reached under every name that it had. */
function isSameHolder(former: string, issued: string): boolean {
  const [before, after] = [former.split(', '), issued.split(', ')];
  const identities = (names: readonly string[]) => names.filter((name) => name.startsWith('URI:'));
  return before.every((name) => after.includes(name)) && identities(after).every((name) => before.includes(name));
}

/** For people who read the request; who issues goes by the connection. */
function subjectOf(material: TlsMaterial): string {
  return /(?:^|, )DNS:([^,"]{1,64})/.exec(material.names)?.[1] ?? 'busbar';
}

function wrongAnswer(why: string): BusbarError {
  return new BusbarError({
    kind: 'internal',
    reason: 'CERTIFICATE_NOT_AS_ASKED',
    message: `what was issued cannot be used: ${why}`,
  });
}
