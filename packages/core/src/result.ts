// SPDX-License-Identifier: Apache-2.0
/**
 * Expected refusals are values: a caller must look at them. A broken world throws instead
 * (see errors.ts), and a bug asserts.
 */
export type Result<T, E> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: E };

export function ok<T>(value: T): { readonly ok: true; readonly value: T } {
  return { ok: true, value };
}

export function refuse<E>(error: E): { readonly ok: false; readonly error: E } {
  return { ok: false, error };
}
