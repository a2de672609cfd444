// SPDX-License-Identifier: Apache-2.0
import type { DomainEnd, DomainObservation } from '../driver/host-driver.ts';

/** libvirt's numbers in our words. Pure tables; numbers as in libvirt-domain.h. */

export const STATE = { running: 1, blocked: 2, paused: 3, shutdown: 4, crashed: 6, pmSuspended: 7 } as const;

/** virDomainPausedReason. */
export const PAUSED = [
  'paused',
  'paused by a person',
  'paused for a migration',
  'paused while it is saved',
  'paused for a memory dump',
  'I/O error on a disk',
  'paused by its watchdog',
  'paused after a snapshot was restored',
  'paused while it shuts down',
  'paused for a snapshot',
  'the guest crashed',
  'starting up',
  'paused in the second phase of a migration',
  'paused because a migration failed',
  'paused after a failed operation',
];
export const PAUSED_SHUTTING_DOWN = 8;

export const EVENT = { stopped: 5, shutdown: 6, crashed: 8 } as const;
/** virDomainEventStoppedDetailType. */
export const STOPPED = { shutdown: 0, destroyed: 1, crashed: 2, migrated: 3, saved: 4, failed: 5 } as const;
/** virDomainEventShutdownDetailType. */
export const SHUTDOWN_BY_HOST = 2;

export function stateOf(state: number, reason: number): Pick<DomainObservation, 'state' | 'message'> {
  switch (state) {
    case STATE.running:
    case STATE.blocked:
      return { state: 'running', message: '' };
    case STATE.shutdown:
      return { state: 'shutting-down', message: '' };
    case STATE.paused:
      if (reason === PAUSED_SHUTTING_DOWN) return { state: 'shutting-down', message: '' };
      return { state: 'paused', message: PAUSED[reason] ?? 'paused' };
    case STATE.crashed:
      return { state: 'paused', message: 'the guest crashed' };
    case STATE.pmSuspended:
      return { state: 'paused', message: 'the guest put itself to sleep' };
    default:
      return { state: 'paused', message: `in an unknown state (${state})` };
  }
}

/** What preceded the end of a domain. */
export interface EndContext {
  /** Detail of the shutdown event that came before, if one did. */
  readonly shutdownDetail: number | null;
  /** A guest panic was told before. */
  readonly panicked: boolean;
}

export function endOf(detail: number, context: EndContext): Pick<DomainEnd, 'reason' | 'message'> {
  if (context.panicked) return { reason: 'crashed', message: "the guest's kernel panicked" };
  switch (detail) {
    case STOPPED.destroyed:
      return { reason: 'destroyed', message: 'its power was taken' };
    case STOPPED.shutdown:
      // QEMU ends in good order on a signal, too; that was not the guest's wish.
      return context.shutdownDetail === SHUTDOWN_BY_HOST
        ? { reason: 'crashed', message: 'QEMU was terminated by a signal' }
        : { reason: 'guest-shutdown', message: 'the guest powered off' };
    case STOPPED.migrated:
      return { reason: 'destroyed', message: 'it moved to another host' };
    case STOPPED.saved:
      return { reason: 'destroyed', message: 'it was saved to a file' };
    default:
      return { reason: 'crashed', message: 'QEMU died' };
  }
}
