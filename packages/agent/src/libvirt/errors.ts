// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import { nativeCode } from '@busbar/native/errors';

/** libvirt's own errors have no word of ours: the hypervisor did not do it. */
export function inOurWords(error: unknown): unknown {
  if (!(error instanceof BusbarError) || nativeCode(error) === null || error.reason !== 'NATIVE_FAILED') return error;
  return new BusbarError({
    kind: 'unavailable',
    reason: 'HYPERVISOR_UNAVAILABLE',
    message: `libvirt refused: ${error.message}`,
    cause: error,
  });
}
