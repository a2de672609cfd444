// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import { HOST_DRIVER_REASONS } from './host-driver.ts';

/** The errors that a HostDriver throws, worded once so that every implementation says the same. */

export function hypervisorUnavailable(why: string, cause?: unknown): BusbarError {
  return new BusbarError({
    kind: 'unavailable',
    reason: HOST_DRIVER_REASONS.hypervisorUnavailable,
    message: `the hypervisor cannot be reached: ${why}`,
    cause,
  });
}

export function hypervisorTimeout(what: string, deadlineMs: number, cause?: unknown): BusbarError {
  return new BusbarError({
    kind: 'timeout',
    reason: HOST_DRIVER_REASONS.hypervisorTimeout,
    message: `the hypervisor did not ${what} within ${deadlineMs} ms`,
    cause,
  });
}

export function domainExists(vmId: string, name: string): BusbarError {
  return new BusbarError({
    kind: 'already-exists',
    reason: HOST_DRIVER_REASONS.domainExists,
    message: `a domain of VM ${name} (${vmId}) is there already`,
  });
}

export function domainNotFound(vmId: string): BusbarError {
  return new BusbarError({
    kind: 'not-found',
    reason: HOST_DRIVER_REASONS.domainNotFound,
    message: `no domain of VM ${vmId} is on this host`,
  });
}

export function domainStartFailed(name: string, why: string, cause?: unknown): BusbarError {
  return new BusbarError({
    kind: 'precondition',
    reason: HOST_DRIVER_REASONS.domainStartFailed,
    message: `VM ${name} could not be started: ${why}`,
    cause,
  });
}

export function consoleUnavailable(vmId: string, why: string, cause?: unknown): BusbarError {
  return new BusbarError({
    kind: 'unavailable',
    reason: HOST_DRIVER_REASONS.consoleUnavailable,
    message: `the serial console of VM ${vmId} is not available: ${why}`,
    cause,
  });
}
