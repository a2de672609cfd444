// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import type { Logger } from '@busbar/core/log';
import { includesRole, type Role } from '@busbar/pki/role';
import type { z } from 'zod';
import { labelsOf, refusalOf, targetOf } from '../audit/record.ts';
import type { AuditTrail } from '../audit/trail.ts';
import type { Admission } from '../certificate/admission.ts';
import { type Call, type CallAudit, type Caller, NOBODY } from './call.ts';
import type { Access, MethodDefinition } from './service.ts';
import { untilRevoked } from './until-revoked.ts';
import { parse } from './validation.ts';

/**
 * The one way from a transport to a handler: authenticate (the transport proves the caller) → authorise → validate →
 * handle → audit. A transport gets only these wrapped functions, never the handlers.
 *
 * The audit record of a change is written in its transaction (mutate.ts and the image import say so by `settled`). Of every
 * other mutating call – refused, dry run, failed, opened console – the trail takes note here, so that no method can be
 * forgotten.
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
  ): (request: unknown, caller: Caller | null, signal: AbortSignal, connection?: string) => AsyncIterable<unknown>;
}

/** Who may call a method of this access: the lowest role, any certificate of the cluster, or anybody. */
const ADMITS: Readonly<Record<Access, Role | 'certificate' | 'anybody'>> = {
  read: 'viewer',
  write: 'operator',
  administer: 'admin',
  renew: 'certificate',
  join: 'anybody',
};

/** Whether a method wants to know who calls. A transport need not read the body of a call that is refused anyway. */
export function needsCaller(access: Access): boolean {
  return ADMITS[access] !== 'anybody';
}

/** What the pipeline stands on. */
export interface Gate {
  readonly logger: Logger;
  readonly trail: Pick<AuditTrail, 'note'>;
  readonly admission: Admission;
  readonly clock: Clock;
}

/** How often the event loop goes round until an answer and the end of its call are on their way to the client. */
const ANSWER_TURNS = 3;

export function pipeline({ logger, trail, admission, clock }: Gate): Pipeline {
  function authorise(caller: Caller | null, access: Access, definition: MethodDefinition): Caller {
    const admits = ADMITS[access];
    if (admits === 'anybody') return NOBODY;
    if (caller?.certificate == null || (caller.role === null && admits !== 'certificate')) throw noCertificate();
    admission.check(caller.certificate);
    if (admits !== 'certificate' && caller.role !== null) assertRole(caller.name, caller.role, admits, definition);
    return caller;
  }

  function log(
    service: string,
    { method: name }: CallAudit,
    method: AnyMethod,
    caller: Caller | null,
    request: unknown,
    error: unknown,
  ): void {
    const entry = {
      audit: true,
      caller: caller?.name ?? 'nobody',
      method: name,
      target: targetOf(service, request)?.name ?? '',
      result: error === null ? 'ok' : error instanceof BusbarError ? error.reason : 'INTERNAL',
    };
    const refused = error instanceof BusbarError && (error.kind === 'unauthenticated' || error.kind === 'forbidden');
    if (error !== null && !(error instanceof BusbarError)) logger.error({ ...entry, err: error }, 'call failed');
    else if (refused) logger.warn(entry, 'call without the right to it');
    else if (method.access !== 'read') logger.info(entry, 'mutating call');
    else if (error !== null) logger.debug(entry, 'call refused');
  }

  function note(service: string, audit: CallAudit, caller: Caller | null, request: unknown, error: unknown): void {
    if (audit.settled) return;
    audit.settled = true;
    const details = { target: targetOf(service, request), ...labelsOf(request), ...refusalOf(error) };
    trail.note({ method: audit.method, caller, id: audit.id, details });
  }

  function ended(
    service: string,
    audit: CallAudit,
    method: AnyMethod,
    caller: Caller | null,
    request: unknown,
    error: unknown,
  ): void {
    log(service, audit, method, caller, request, error);
    if (method.access !== 'read') note(service, audit, caller, request, error);
  }

  /** A line of the log is no reason to wait for an answer. The audit record, which is one, is written by now. */
  async function answered(...call: [string, CallAudit, AnyMethod, Caller | null, unknown]): Promise<void> {
    const [service, audit, method, caller, request] = call;
    if (method.access === 'read') return; // no line and no record
    note(service, audit, caller, request, null);
    for (let turn = 0; turn < ANSWER_TURNS; turn++) await clock.turn();
    log(...call, null);
  }

  function begin(service: string, definition: MethodDefinition, caller: Caller | null, subject: () => unknown) {
    const audit: CallAudit = {
      method: `${service}/${definition.name}`,
      id: null,
      settled: false,
      accepted: () => note(service, audit, caller, subject(), null),
    };
    return audit;
  }

  return {
    unary: (service, definition, method) => async (request, caller, signal) => {
      const audit = begin(service, definition, caller, () => request);
      try {
        const call = { caller: authorise(caller, method.access, definition), audit, signal, connection: '' };
        parse(method.schema, request);
        const response = await (method.handle(request as never, call) as Promise<unknown>);
        void answered(service, audit, method, caller, request);
        return response;
      } catch (error) {
        ended(service, audit, method, caller, request, error);
        throw error;
      }
    },
    stream: (service, definition, method) =>
      async function* (request, caller, signal, connection = '') {
        // Of a request stream, the first message says what it is about.
        let subject = definition.requestStream ? undefined : request;
        // Whoever stops listening ends the stream without an error and without an end: the usual end of a console.
        let outcome: unknown = HUNG_UP;
        const audit = begin(service, definition, caller, () => subject);
        try {
          const call = { caller: authorise(caller, method.access, definition), audit, signal, connection };
          let input = request;
          if (definition.requestStream) {
            input = validated(request as AsyncIterable<unknown>, method.schema, (first) => {
              subject = first;
              // A console may be open for days: who opened it must be known before it ends.
              if (method.access !== 'read') log(service, audit, method, caller, first, BEGUN);
            });
          } else parse(method.schema, request);
          const open = (until: AbortSignal) =>
            method.handle(input as never, { ...call, signal: until }) as AsyncIterable<unknown>;
          yield* call.caller.certificate === null
            ? open(signal)
            : untilRevoked(admission, call.caller.certificate, signal, open);
          outcome = null;
        } catch (error) {
          outcome = error;
          throw error;
        } finally {
          ended(service, audit, method, caller, subject, outcome);
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

function noCertificate(): BusbarError {
  return new BusbarError({
    kind: 'unauthenticated',
    reason: 'CLIENT_CERTIFICATE_REQUIRED',
    message: 'the connection carries no client certificate of this cluster with a role',
    hint: 'use a client certificate issued by the cluster (a context of the busbar command names one)',
  });
}

function assertRole(name: string, held: Role, needed: Role, definition: MethodDefinition): void {
  if (includesRole(held, needed)) return;
  throw new BusbarError({
    kind: 'forbidden',
    reason: 'ROLE_TOO_LOW',
    message: `"${name}" has role ${held}, ${definition.name} needs ${needed}`,
    hint: needed === 'admin' ? 'use a certificate with role admin' : 'use a certificate with role operator or admin',
  });
}
