// SPDX-License-Identifier: Apache-2.0
import { type BoundedLog, boundedLog, MANY } from '@busbar/core/bounded-log';
import type { Clock } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import type { Logger } from '@busbar/core/log';
import { includesRole, type Role } from '@busbar/pki/role';
import type { AuditRecord } from '@busbar/proto/gen/busbar/v1/audit';
import type { z } from 'zod';
import { labelsOf, refusalOf, targetOf } from '../audit/record.ts';
import type { AuditTrail } from '../audit/trail.ts';
import type { Admission } from '../certificate/admission.ts';
import { type Arrival, INSIDE } from './arrival.ts';
import { type Call, type CallAudit, type Caller, NOBODY } from './call.ts';
import type { Access, CallGuard, MethodDefinition } from './service.ts';
import { untilEnded } from './until-ended.ts';
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
  /** Takes the place that what lasts needs (places.ts); null for what does not. */
  readonly enter: (caller: Caller) => Disposable | null;
  readonly bytesMax?: number;
  readonly guard?: CallGuard;
  readonly handle: (request: never, call: Call) => unknown;
}

export interface Pipeline {
  /**
   * Throws the refusal of a caller who may not make this call. A transport asks before it reads the request: who may not call
   * costs its headers alone. The record of such a call has no target, which nobody has read.
   */
  admit(
    service: string,
    definition: MethodDefinition,
    method: AnyMethod,
  ): (caller: Caller | null, arrival?: Arrival) => void;
  unary(
    service: string,
    definition: MethodDefinition,
    method: AnyMethod,
  ): (request: unknown, caller: Caller | null, signal: AbortSignal, arrival?: Arrival) => Promise<unknown>;
  stream(
    service: string,
    definition: MethodDefinition,
    method: AnyMethod,
  ): (request: unknown, caller: Caller | null, signal: AbortSignal, arrival?: Arrival) => AsyncIterable<unknown>;
}

/** Who may call a method of this access: the lowest role, any certificate of the cluster, or anybody. */
const ADMITS: Readonly<Record<Access, Role | 'certificate' | 'anybody'>> = {
  read: 'viewer',
  write: 'operator',
  administer: 'admin',
  renew: 'certificate',
  join: 'anybody',
};

/** What the pipeline stands on. */
export interface Gate {
  readonly logger: Logger;
  readonly trail: Pick<AuditTrail, 'note' | 'admit'>;
  readonly admission: Admission;
  readonly clock: Clock;
  /** For lines that callers cause. Default: one of its own. */
  readonly lines?: BoundedLog;
}

/** How often the event loop goes round until an answer and the end of its call are on their way to the client. */
const ANSWER_TURNS = 3;

export function pipeline({ logger, trail, admission, clock, lines = boundedLog({ logger, clock }) }: Gate): Pipeline {
  function authorise(caller: Caller | null, access: Access, definition: MethodDefinition): Caller {
    const admits = ADMITS[access];
    if (admits === 'anybody') return NOBODY;
    if (caller?.certificate == null || (caller.role === null && admits !== 'certificate')) throw noCertificate();
    admission.check(caller.certificate);
    if (admits !== 'certificate' && caller.role !== null) assertRole(caller.name, caller.role, admits, definition);
    return caller;
  }

  function log({ service, audit, method, caller, arrival }: Begun, request: unknown, error: unknown): void {
    const who = caller === null ? { caller: 'nobody', address: arrival.address } : { caller: caller.name };
    const entry = {
      audit: true,
      caller: who.caller,
      serial: caller?.certificate?.serial ?? '',
      address: arrival.address,
      transport: arrival.transport,
      method: audit.method,
      target: targetOf(service, request)?.name ?? '',
      result: error === null ? 'ok' : error instanceof BusbarError ? error.reason : 'INTERNAL',
    };
    const told = { name: Object.values(who).join(' '), fields: { audit: true, ...who } };
    const refused = { ...told, kind: 'refused' };
    const forbidden = error instanceof BusbarError && (error.kind === 'unauthenticated' || error.kind === 'forbidden');
    if (error !== null && !(error instanceof BusbarError))
      lines.write('error', { ...told, kind: 'failed' }, { ...entry, err: error }, 'call failed');
    else if (forbidden) lines.write('warn', refused, entry, 'call without the right to it');
    else if (method.access === 'read') {
      if (error !== null) logger.debug(entry, 'call refused');
    } else if (error === null || error === BEGUN || error === HUNG_UP)
      lines.write('info', { ...told, kind: 'changed', allowance: MANY }, entry, 'mutating call');
    else lines.write('info', refused, entry, 'mutating call');
  }

  function note(call: Begun, request: unknown, error: unknown, end?: StreamEnd): string | null {
    const { service, audit, caller, arrival, beganTime } = call;
    const details = {
      target: targetOf(service, request),
      ...labelsOf(request),
      ...refusalOf(error),
      ...(beganTime === null ? {} : { streamBeginTime: beganTime }),
      ...end,
    };
    return trail.note({ method: audit.method, caller, arrival, id: end === undefined ? audit.id : null, details });
  }

  function settle(call: Begun, request: unknown, error: unknown): void {
    if (call.audit.settled) return;
    call.audit.settled = true;
    note(call, request, error);
  }

  function ended(call: Begun, request: unknown, error: unknown): void {
    log(call, request, error);
    if (call.method.access === 'read') return;
    const streamBeginId = call.acceptedAs;
    if (streamBeginId === null) settle(call, request, error);
    // Whoever closes a console has done nothing that was refused.
    else note(call, request, error === HUNG_UP ? null : error, { streamBeginId, streamEndTime: clock.wallTime() });
  }

  /** A line of the log is no reason to wait for an answer. The audit record, which is one, is written by now. */
  async function answered(call: Begun, request: unknown): Promise<void> {
    if (call.method.access === 'read') return; // no line and no record
    settle(call, request, null);
    for (let turn = 0; turn < ANSWER_TURNS; turn++) await clock.turn();
    log(call, request, null);
  }

  function begin(
    of: Pick<Begun, 'service' | 'method' | 'caller' | 'arrival' | 'beganTime'>,
    definition: MethodDefinition,
    subject: () => unknown,
  ): Begun {
    const accepted = () => {
      call.audit.settled = true;
      call.acceptedAs = note(call, subject(), null);
    };
    const method = `${of.service}/${definition.name}`;
    const audit = { method, id: null, settled: false, accepted, beganTime: of.beganTime };
    const call: Begun = { ...of, audit, acceptedAs: null };
    return call;
  }

  return {
    admit:
      (service, definition, method) =>
      (caller, arrival = INSIDE) => {
        try {
          authorise(caller, method.access, definition);
        } catch (error) {
          const call = begin({ service, method, caller, arrival, beganTime: null }, definition, () => undefined);
          ended(call, undefined, error);
          throw error;
        }
      },
    unary:
      (service, definition, method) =>
      async (request, caller, signal, arrival = INSIDE) => {
        const begun = begin({ service, method, caller, arrival, beganTime: null }, definition, () => request);
        const { audit } = begun;
        try {
          const call = { caller: authorise(caller, method.access, definition), audit, signal, arrival };
          if (method.access !== 'read') trail.admit(caller, audit.method);
          using _place = method.enter(call.caller);
          parse(method.schema, request);
          const response = await (method.handle(request as never, call) as Promise<unknown>);
          void answered(begun, request);
          return response;
        } catch (error) {
          ended(begun, request, error);
          throw error;
        }
      },
    stream: (service, definition, method) =>
      async function* (request, caller, signal, arrival = INSIDE) {
        // Of a request stream, the first message says what it is about.
        let subject = definition.requestStream ? undefined : request;
        // Whoever stops listening ends the stream without an error and without an end: the usual end of a console.
        let outcome: unknown = HUNG_UP;
        const beganTime = clock.wallTime();
        const begun = begin({ service, method, caller, arrival, beganTime }, definition, () => subject);
        try {
          const { audit } = begun;
          const call = { caller: authorise(caller, method.access, definition), audit, signal, arrival };
          if (method.access !== 'read') trail.admit(caller, audit.method);
          using _place = method.enter(call.caller);
          let input = request;
          if (definition.requestStream) {
            input = validated(request as AsyncIterable<unknown>, method.schema, (first) => {
              subject = first;
              // A console may be open for days: who opened it must be known before it ends.
              if (method.access !== 'read') log(begun, first, BEGUN);
            });
          } else parse(method.schema, request);
          const open = (until: AbortSignal) =>
            method.handle(input as never, { ...call, signal: until }) as AsyncIterable<unknown>;
          const { certificate } = call.caller;
          yield* certificate === null
            ? open(signal)
            : untilEnded((told) => admission.onEnd(certificate, told), signal, open);
          outcome = null;
        } catch (error) {
          outcome = error;
          throw error;
        } finally {
          ended(begun, subject, outcome);
        }
      },
  };
}

/** What is told of a call, in the log and in the trail. */
interface Begun {
  readonly service: string;
  readonly method: AnyMethod;
  readonly caller: Caller | null;
  readonly arrival: Arrival;
  readonly beganTime: Date | null;
  readonly audit: CallAudit;
  /** Id of the record that tells of the beginning of a stream. */
  acceptedAs: string | null;
}

type StreamEnd = Pick<AuditRecord, 'streamBeginId' | 'streamEndTime'>;

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
