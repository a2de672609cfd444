// SPDX-License-Identifier: Apache-2.0
import type { z } from 'zod';
import type { Call } from './call.ts';
import type { PlaceKind } from './places.ts';

/**
 * A service is a table: for each RPC of its proto definition, who may call it, what a request must look like, and the
 * handler. The type makes a missing RPC a compile error, and the pipeline is the only way from a
 * transport to a handler.
 */
export interface MethodDefinition {
  readonly name: string;
  readonly requestType: {
    decode(bytes: Uint8Array): unknown;
    encode(value: never): { finish(): Uint8Array };
    fromJSON(json: unknown): unknown;
  };
  readonly requestStream: boolean;
  readonly responseType: {
    decode(bytes: Uint8Array): unknown;
    readonly encode: (message: never) => { finish(): Uint8Array };
    toJSON(message: never): unknown;
  };
  readonly responseStream: boolean;
}

export interface ServiceDefinition {
  readonly name: string;
  readonly fullName: string;
  readonly methods: Readonly<Record<string, MethodDefinition>>;
}

type Request<M extends MethodDefinition> = ReturnType<M['requestType']['decode']>;
type Response<M extends MethodDefinition> = ReturnType<M['responseType']['decode']>;

type Incoming<M extends MethodDefinition> = M['requestStream'] extends true ? AsyncIterable<Request<M>> : Request<M>;
type Outgoing<M extends MethodDefinition> = M['responseStream'] extends true
  ? AsyncIterable<Response<M>>
  : Promise<Response<M>>;

/**
 * What a method does, and thereby who may call it: see ADMITS in pipeline.ts.
 * read: changes nothing. write: changes what runs. administer: changes who may do what.
 * renew: renews the certificate it is called with. join: takes a token instead of a certificate.
 */
export type Access = 'read' | 'write' | 'administer' | 'renew' | 'join';

/** Does the work of a call from this address, when there is a place for it. */
export type CallGuard = <T>(address: string, work: () => Promise<T>) => Promise<T>;

export type Method<M extends MethodDefinition> = {
  readonly access: Access;
  /** Of one request message; for request streams of each. What it allows bounds what is read at all (bounds/limits.ts). */
  readonly schema: z.ZodType;
  /** Bytes of one request message, where the sum of all that the schema allows says nothing about what is needed. */
  readonly bytesMax?: number;
  /** Between a caller who has proven nothing and the reading of its request. */
  readonly guard?: CallGuard;
  readonly handle: (request: Incoming<M>, call: Call) => Outgoing<M>;
} & (M extends { readonly requestStream: false; readonly responseStream: false } ? Partial<Placed> : Placed);

/** What lasts needs a place while it does: every stream, and calls that wait. */
interface Placed {
  readonly place: PlaceKind;
}

export type Service<D extends ServiceDefinition> = { readonly [K in keyof D['methods']]: Method<D['methods'][K]> };
