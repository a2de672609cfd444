// SPDX-License-Identifier: Apache-2.0
import type { RawError } from './signatures.ts';

/** virErrorNumber; only those that Busbar tells apart. */
export const VIR_ERR = {
  noSupport: 3,
  domExist: 28,
  noDomain: 42,
  operationInvalid: 55,
  noSecret: 66,
  noDomainMetadata: 80,
} as const;

/** virErrorDomain of what the client library itself says about its connection: RPC and remote driver. */
export const TRANSPORT_DOMAINS: readonly number[] = [7, 13];

/** Codes of our own, in the place where libvirt's error number is; text, so that they cannot collide. */
export const CHILD_CODES = { connectionLost: 'BUSBAR_CONNECTION_LOST', softDeadline: 'BUSBAR_SOFT_DEADLINE' } as const;

/** A libvirt call failed. `code` crosses to the parent (see nativeCode). */
export class LibvirtError extends Error {
  override readonly name = 'LibvirtError';
  readonly code: string | number;

  constructor(message: string, code: string | number) {
    super(message);
    this.code = code;
  }
}

export function toLibvirtError(what: string, raw: RawError | null): LibvirtError {
  if (raw === null) return new LibvirtError(`${what} failed and libvirt does not say why`, 0);
  const lost = TRANSPORT_DOMAINS.includes(raw.domain);
  return new LibvirtError(raw.message, lost ? CHILD_CODES.connectionLost : raw.code);
}
