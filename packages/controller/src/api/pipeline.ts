// SPDX-License-Identifier: Apache-2.0
import { BusbarError, errorChain } from '@busbar/core/errors';
import type { Logger } from '@busbar/core/log';
import type { z } from 'zod';
import { includesRole, type Role } from '../pki/role.ts';
import type { Call, Caller } from './call.ts';
import type { Access, MethodDefinition } from './service.ts';
import { parse } from './validation.ts';

/**
 * The one way from a transport to a handler: authenticate (the transport proves the caller) → authorise → validate →
 * handle → audit. A transport gets only these wrapped functions, never the handlers.
 */
export interface AnyMethod {
  readonly access: Access;
  readonly schema: z.ZodType;
  readonly handle: (request: never, call: Call) => unknown;
}

export interface Pipeline {
  unary(
    service: string,
    definition: MethodDefinition,
    method: AnyMethod,
  ): (request: unknown, caller: Caller | null, signal: AbortSignal) => Promise<unknown>;
  stream(
    service: string,
    definition: MethodDefinition,
    method: AnyMethod,
  ): (request: unknown, caller: Caller | null, signal: AbortSignal) => AsyncIterable<unknown>;
}

/** The lowest role that may call a method of this access. */
const REQUIRED_ROLE: Readonly<Record<Access, Role>> = { read: 'viewer', write: 'operator', administer: 'admin' };

/** Whether a method wants to know who calls. A transport need not read the body of a call that is refused anyway. */
export function needsCaller(access: Access): boolean {
  return REQUIRED_ROLE[access] !== null;
}

export function pipeline(logger: Logger): Pipeline {
  function audit(
    service: string,
    definition: MethodDefinition,
    method: AnyMethod,
    caller: Caller | null,
    request: unknown,
    error: unknown,
  ): void {
    const entry = {
      audit: true,
      caller: caller?.name ?? 'nobody',
      method: `${service}/${definition.name}`,
      target: targetOf(request),
      result: error === null ? 'ok' : error instanceof BusbarError ? error.reason : 'INTERNAL',
    };
    const refused = error instanceof BusbarError && (error.kind === 'unauthenticated' || error.kind === 'forbidden');
    if (error !== null && !(error instanceof BusbarError))
      logger.error({ ...entry, err: errorChain(error), stack: stackOf(error) }, 'call failed');
    else if (refused) logger.warn(entry, 'call without the right to it');
    else if (method.access !== 'read') logger.info(entry, 'mutating call');
    else if (error !== null) logger.debug(entry, 'call refused');
  }

  return {
    unary: (service, definition, method) => async (request, caller, signal) => {
      try {
        const call = { caller: authorise(caller, method.access, definition), signal };
        parse(method.schema, request);
        const response = await (method.handle(request as never, call) as Promise<unknown>);
        audit(service, definition, method, caller, request, null);
        return response;
      } catch (error) {
        audit(service, definition, method, caller, request, error);
        throw error;
      }
    },
    stream: (service, definition, method) =>
      async function* (request, caller, signal) {
        // Of a request stream, the first message says what it is about.
        let subject = definition.requestStream ? undefined : request;
        // Whoever stops listening ends the stream without an error and without an end: the usual end of a console.
        let outcome: unknown = HUNG_UP;
        try {
          const call = { caller: authorise(caller, method.access, definition), signal };
          let input = request;
          if (definition.requestStream) {
            input = validated(request as AsyncIterable<unknown>, method.schema, (first) => {
              subject = first;
              // A console may be open for days: who opened it must be known before it ends.
              if (method.access !== 'read') audit(service, definition, method, caller, first, BEGUN);
            });
          } else parse(method.schema, request);
          yield* method.handle(input as never, call) as AsyncIterable<unknown>;
          outcome = null;
        } catch (error) {
          outcome = error;
          throw error;
        } finally {
          audit(service, definition, method, caller, subject, outcome);
        }
      },
  };
}

const BEGUN = new BusbarError({ kind: 'cancelled', reason: 'BEGUN', message: 'the stream began' });
const HUNG_UP = new BusbarError({ kind: 'cancelled', reason: 'CALLER_GONE', message: 'the caller ended the stream' });

async function* validated(
  messages: AsyncIterable<unknown>,
  schema: z.ZodType,
  onFirst: (message: unknown) => void,
): AsyncIterable<unknown> {
  let first = true;
  for await (const message of messages) {
    parse(schema, message);
    if (first) onFirst(message);
    first = false;
    yield message;
  }
}

function authorise(caller: Caller | null, access: Access, definition: MethodDefinition): Caller {
  if (caller === null) {
    throw new BusbarError({
      kind: 'unauthenticated',
      reason: 'CLIENT_CERTIFICATE_REQUIRED',
      message: 'the connection carries no client certificate of this cluster with a role',
      hint: 'use a client certificate issued by the cluster (a context of the busbar command names one)',
    });
  }
  const needed = REQUIRED_ROLE[access];
  if (!includesRole(caller.role, needed)) {
    throw new BusbarError({
      kind: 'forbidden',
      reason: 'ROLE_TOO_LOW',
      message: `"${caller.name}" has role ${caller.role}, ${definition.name} needs ${needed}`,
      hint: needed === 'admin' ? 'use a certificate with role admin' : 'use a certificate with role operator or admin',
    });
  }
  return caller;
}

/** What a request is about, for the audit record: never the whole request, which may hold secrets such as cloud-init data. */
function targetOf(request: unknown): string {
  if (request === null || typeof request !== 'object') return '';
  const fields = request as Record<string, unknown>;
  const part = fields.part as { readonly $case?: string; readonly value?: unknown } | undefined;
  if (part?.$case === 'header') return targetOf(part.value);
  for (const key of ['vm', 'volume', 'image', 'network', 'host', 'operation', 'name']) {
    if (typeof fields[key] === 'string') return fields[key].slice(0, 253);
  }
  return '';
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? '') : '';
}
