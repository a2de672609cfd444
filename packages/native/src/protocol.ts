// SPDX-License-Identifier: Apache-2.0
/**
 * What parent and child say to each other over Node's IPC channel with `serialization: 'advanced'`
 * (V8's structured clone), so that bigint and Buffer pass unchanged. Both ends are always the same
 * build, hence no version in it.
 */
export type ToChild =
  | { readonly t: 'call'; readonly id: number; readonly method: string; readonly args: unknown }
  | { readonly t: 'close' };

export type ToParent =
  | { readonly t: 'ready' }
  /** The library could not be loaded or set up; the child ends after saying why. */
  | { readonly t: 'broken'; readonly error: WireError }
  | { readonly t: 'ok'; readonly id: number; readonly value: unknown }
  | { readonly t: 'fail'; readonly id: number; readonly error: WireError }
  | { readonly t: 'event'; readonly event: unknown }
  /** Events dropped because the parent did not read fast enough: it has to list everything anew. */
  | { readonly t: 'lost'; readonly count: number };

export interface WireError {
  readonly name: string;
  readonly message: string;
  /** errno, libvirt's error number, or Node's code; null when there is none. */
  readonly code: string | number | null;
  /** Both set when the child threw a BusbarError. */
  readonly kind: string | null;
  readonly reason: string | null;
  readonly hint: string;
}

/**
 * The methods that a child offers: each takes one argument and answers with one value, both
 * structured-cloneable. Written as an interface, it types both ends.
 */
export type MethodTable<M> = { readonly [K in keyof M]: (args: never) => unknown };
export type MethodName<M> = Extract<keyof M, string>;
export type MethodArgs<M, K extends keyof M> = M[K] extends (args: infer A) => unknown ? A : never;
export type MethodResult<M, K extends keyof M> = M[K] extends (args: never) => infer R ? Awaited<R> : never;
