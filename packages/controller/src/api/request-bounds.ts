// SPDX-License-Identifier: Apache-2.0
import type { Limits } from '../bounds/limits.ts';
import { scanWire, type WireShape } from '../bounds/scan-wire.ts';
import type { ServiceDefinition } from './service.ts';
import { invalid } from './validation.ts';

/** What a request message of a method may be, on the wire. */
export interface RequestBounds {
  readonly limits: Limits;
  readonly shape: WireShape;
}

/** A request that was not decoded, in its place: grpc-js would call whatever a decoder throws an internal error. */
export class Unreadable {
  readonly error: unknown;

  constructor(error: unknown) {
    this.error = error;
  }
}

interface RequestType {
  decode(bytes: Uint8Array): unknown;
}

/** Decodes what is worth it: what that would take of memory and time is counted first. */
export function boundedDecode(type: RequestType, { limits, shape }: RequestBounds): (bytes: Uint8Array) => unknown {
  return (bytes) => {
    const excess = scanWire(bytes, shape, limits);
    if (excess !== null) return new Unreadable(invalid([excess]));
    try {
      return type.decode(bytes);
    } catch (error) {
      return new Unreadable(
        invalid([
          {
            field: 'the request',
            problem: `cannot be decoded (${error instanceof Error ? error.message.slice(0, 120) : ''})`,
            expected: 'a protobuf message of the type that the method takes',
          },
        ]),
      );
    }
  };
}

/** The same service, whose requests are bounded. */
export function boundingRequests<D extends ServiceDefinition>(
  definition: D,
  boundsOf: (key: string) => RequestBounds,
): D {
  const methods = Object.entries(definition.methods).map(([key, rpc]) => {
    const requestType = { ...rpc.requestType, decode: boundedDecode(rpc.requestType, boundsOf(key)) };
    return [key, { ...rpc, requestType }];
  });
  return { ...definition, methods: Object.fromEntries(methods) as D['methods'] };
}

/** The message type of a method's requests; buf's lint makes its name a rule. */
export function requestTypeName(service: string, method: string): string {
  return `${service.replace(/\.[^.]*$/, '')}.${method}Request`;
}
