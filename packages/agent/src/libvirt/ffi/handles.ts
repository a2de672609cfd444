// SPDX-License-Identifier: Apache-2.0
import type { Brand } from '@busbar/core/ids';

/**
 * koffi's pointers are plain bigints: passing a network where a domain is wanted crashes the
 * process. The brands let the compiler refuse it.
 */
export type ConnectPtr = Brand<bigint, 'virConnectPtr'>;
export type DomainPtr = Brand<bigint, 'virDomainPtr'>;
export type SecretPtr = Brand<bigint, 'virSecretPtr'>;
export type ErrorPtr = Brand<bigint, 'virErrorPtr'>;
/** A C array of virDomainPtr. */
export type DomainArrayPtr = Brand<bigint, 'virDomainPtr[]'>;
/** A C function, ours (registered) or a library's. */
export type FunctionPtr = Brand<bigint, 'function'>;
