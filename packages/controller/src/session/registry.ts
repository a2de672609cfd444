// SPDX-License-Identifier: Apache-2.0
import { type BoundedLog, boundedLog, type LineSource } from '@busbar/core/bounded-log';
import type { Clock } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import type { Logger } from '@busbar/core/log';
import type { Random } from '@busbar/core/random';
import type {
  AttachOrder,
  AttachRequest,
  AttachResponse,
  DesiredState,
  Hello,
  HostReport,
  SessionRequest,
  SessionResponse,
  StatePosition,
} from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { HostInventory } from '@busbar/proto/gen/busbar/v1/host';
import { Bell } from './bell.ts';
import { checkHello, checkInventory, checkReport } from './bounds.ts';
import { ByteChannel } from './channel.ts';
import { firstMessage } from './first-message.ts';
import { Outbox } from './outbox.ts';

/**
 * The sessions of agents with this controller. Every controller has one with every agent, leader or
 * not: heartbeats are acknowledged here at once and touch neither the store nor the leader, so that neither a leader change nor
 * the loss of etcd's quorum ends a host's lease. What agents report is kept in memory only; a new leader has it already.
 *
 * A host speaks for itself alone: the session's host is the one of the client certificate, and whatever it says is filed under it.
 */
export interface HostObservation {
  readonly hello: Hello;
  readonly report: HostReport | null;
  readonly inventory: HostInventory | null;
  /** Monotonic time of the last message heard. */
  readonly heardMs: number;
  readonly heardWall: Date;
  /** Monotonic time at which the present (or last) session began. */
  readonly openedMs: number;
  /** Monotonic time of the report; null when there is none. */
  readonly reportedMs: number | null;
  /**
   * Since when the host has sessions without a report and an inventory to go by, across all of them: an agent that crashes and
   * comes back does not begin anew. Null while there are both.
   */
  readonly blindSinceMs: number | null;
  readonly connected: boolean;
  /** The newest desired state that this leader has for the host, and since when; null while it has none or does not lead. */
  readonly published: { readonly position: StatePosition; readonly sinceMs: number } | null;
}

interface Session {
  hello: Hello;
  report: HostReport | null;
  inventory: HostInventory | null;
  heardMs: number;
  heardWall: Date;
  openedMs: number;
  reportedMs: number | null;
  blindSinceMs: number | null;
  outbox: Outbox | null;
}

interface Ticket {
  readonly host: string;
  readonly accept: (incoming: AsyncIterable<AttachRequest>) => AsyncIterable<AttachResponse>;
}

/** An agent answers an attach order in milliseconds; after this it is not coming. */
const ATTACH_DEADLINE_MS = 5_000;

export interface LeaseTimings {
  readonly heartbeatIntervalMs: number;
  readonly leaseTtlMs: number;
}

/** The design's defaults: four heartbeats a second, a lease of ten of them. */
export const DEFAULT_LEASE: LeaseTimings = { heartbeatIntervalMs: 250, leaseTtlMs: 2_500 };

export class SessionRegistry {
  readonly #controller: string;
  readonly #controllers: readonly string[];
  readonly #timings: LeaseTimings;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #lines: BoundedLog;
  readonly #sessions = new Map<string, Session>();
  readonly #tickets = new Map<string, Ticket>();
  readonly #bell: Bell;
  readonly #desired = new Map<string, { readonly desired: DesiredState; readonly sinceMs: number }>();

  constructor(deps: {
    readonly controller: string;
    readonly controllers: readonly string[];
    readonly timings?: LeaseTimings;
    readonly clock: Clock;
    readonly random: Random;
    readonly logger: Logger;
    /** For lines that an agent causes. Default: one of its own. */
    readonly lines?: BoundedLog;
  }) {
    this.#controller = deps.controller;
    this.#controllers = deps.controllers;
    this.#timings = deps.timings ?? DEFAULT_LEASE;
    this.#clock = deps.clock;
    this.#bell = new Bell(deps.clock);
    this.#random = deps.random;
    this.#lines = deps.lines ?? boundedLog(deps);
  }

  observed(host: string): HostObservation | null {
    const session = this.#sessions.get(host);
    if (session === undefined) return null;
    const told = this.#desired.get(host);
    const published =
      told?.desired.position === undefined ? null : { position: told.desired.position, sinceMs: told.sinceMs };
    return { ...session, connected: session.outbox !== null, published };
  }

  hosts(): readonly string[] {
    return [...this.#sessions.keys()].sort();
  }

  /** Rings when a report, an inventory or a connection changed; not for heartbeats. */
  onChange(listener: () => void): Disposable {
    return this.#bell.onRing(listener);
  }

  /** Sends a desired state to its host now, and again whenever the host reconnects, until the next one or `clearDesired`. */
  publish(host: string, desired: DesiredState): void {
    this.#desired.set(host, { desired, sinceMs: this.#clock.nowMs() });
    this.#sessions.get(host)?.outbox?.desire(desired);
  }

  published(host: string): DesiredState | null {
    return this.#desired.get(host)?.desired ?? null;
  }

  /** Leadership is over: nothing is sent any more. */
  clearDesired(): void {
    this.#desired.clear();
  }

  /** Serves one session stream of the agent whose certificate names `host`. */
  async *session(
    host: string,
    incoming: AsyncIterable<SessionRequest>,
    signal: AbortSignal,
  ): AsyncIterable<SessionResponse> {
    const iterator = incoming[Symbol.asyncIterator]();
    const first = await firstMessage(this.#clock, iterator, `the hello of host "${host}"`);
    const hello = first.done ? undefined : first.value.message;
    if (hello?.$case !== 'hello' || hello.value.host !== host) {
      const said = hello?.$case === 'hello' ? `host "${hello.value.host}"` : 'no hello';
      throw new BusbarError({
        kind: 'forbidden',
        reason: 'SESSION_HOST_MISMATCH',
        message: `the certificate is of host "${host}", but the session began with ${said}`,
        hint: "make the agent's configured host name the one its certificate was issued for",
      });
    }
    checkHello(hello.value);
    const outbox = new Outbox({
      message: {
        $case: 'welcome',
        value: { controller: this.#controller, controllers: [...this.#controllers], ...this.#timings },
      },
    });
    const session = this.#open(host, hello.value, outbox);
    const desired = this.#desired.get(host)?.desired;
    if (desired !== undefined) outbox.desire(desired);
    const close = () => outbox.close();
    signal.addEventListener('abort', close);
    let refusal = null as BusbarError | null;
    // Handled right here: nobody may be asking for the next message when it breaks. A stream that breaks has ended, no more.
    void this.#read(session, outbox, iterator)
      .catch((error: unknown) => {
        if (error instanceof BusbarError && error.reason === 'SESSION_MESSAGE_TOO_LARGE') refusal = error;
      })
      .finally(close);
    try {
      yield* outbox.messages();
      if (refusal !== null) {
        this.#lines.write('error', linesOf(host), { host, err: refusal }, 'session of an agent ended');
        throw refusal;
      }
    } finally {
      signal.removeEventListener('abort', close);
      close();
      if (session.outbox === outbox) session.outbox = null;
      this.#bell.ring(host);
      // Ends the reader too.
      void iterator.return?.().catch(() => {});
    }
  }

  #open(host: string, hello: Hello, outbox: Outbox): Session {
    const former = this.#sessions.get(host);
    if (former !== undefined) {
      former.outbox?.close();
      // What its reader still gets is of yesterday.
      former.outbox = null;
    }
    const kept = former?.hello.agentInstanceId === hello.agentInstanceId ? former : undefined;
    const nowMs = this.#clock.nowMs();
    const session: Session = {
      hello,
      report: kept?.report ?? null,
      inventory: former?.inventory ?? null,
      heardMs: nowMs,
      heardWall: this.#clock.wallTime(),
      openedMs: nowMs,
      reportedMs: kept?.reportedMs ?? null,
      blindSinceMs: kept?.report != null && former?.inventory != null ? null : (former?.blindSinceMs ?? nowMs),
      outbox,
    };
    this.#sessions.set(host, session);
    const { bootId, agentVersion } = hello;
    this.#lines.write('info', linesOf(host), { host, bootId, agentVersion }, 'agent connected');
    this.#bell.ring(host);
    return session;
  }

  async #read(session: Session, outbox: Outbox, iterator: AsyncIterator<SessionRequest>): Promise<void> {
    for (;;) {
      const next = await iterator.next();
      // A newer session of this host took over: this one is history.
      if (next.done || session.outbox !== outbox) return;
      session.heardMs = this.#clock.nowMs();
      session.heardWall = this.#clock.wallTime();
      const message = next.value.message;
      switch (message?.$case) {
        case 'heartbeat':
          outbox.acknowledge(message.value.number);
          break;
        case 'report':
          if (session.report === null || message.value.sequence > session.report.sequence) {
            checkReport(message.value);
            session.report = message.value;
            session.reportedMs = session.heardMs;
            this.#learned(session);
          }
          break;
        case 'inventory':
          checkInventory(message.value);
          session.inventory = message.value;
          this.#learned(session);
          break;
        case 'hello':
        case undefined:
          // A repeated hello or a message of a newer version: nothing to learn from it.
          break;
      }
    }
  }

  #learned(session: Session): void {
    if (session.report !== null && session.inventory !== null) session.blindSinceMs = null;
    this.#bell.ring(session.hello.host);
  }

  /**
   * Asks a host's agent for a byte stream. `input` is sent to the guest; the returned iterable ends
   * when the agent ends the stream, and throws with its reason when it cannot go on.
   */
  async attach(
    host: string,
    order: Omit<AttachOrder, 'ticket'>,
    input: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
  ): Promise<AsyncIterable<Uint8Array>> {
    const outbox = this.#sessions.get(host)?.outbox;
    // Two UUIDs: 244 random bits that only the agent of this host is told.
    const ticket = `${this.#random.uuid()}${this.#random.uuid()}`;
    const output = new ByteChannel();
    let late = () => {};
    const timer = this.#clock.timer(ATTACH_DEADLINE_MS, () => late());
    const opened = new Promise<void>((resolve, reject) => {
      late = () => reject(unreachableHost(host, 'its agent did not open the stream in time'));
      this.#tickets.set(ticket, {
        host,
        accept: (incoming) => {
          resolve();
          void pump(incoming, output);
          return responses(input, output);
        },
      });
    });
    const hangUp = () => output.end();
    signal.addEventListener('abort', hangUp, { once: true });
    if (signal.aborted) hangUp();
    try {
      if (!outbox?.order({ ...order, ticket }))
        throw unreachableHost(host, 'its agent is not connected to this controller');
      await Promise.race([opened, output.closed]);
    } catch (error) {
      output.end();
      throw error;
    } finally {
      // Given up or taken: nobody may come with it any more.
      timer[Symbol.dispose]();
      this.#tickets.delete(ticket);
    }
    return output.read();
  }

  /** Serves one attach stream of the agent whose certificate names `host`. */
  async *attached(host: string, incoming: AsyncIterable<AttachRequest>): AsyncIterable<AttachResponse> {
    const iterator = incoming[Symbol.asyncIterator]();
    const first = await firstMessage(this.#clock, iterator, 'the ticket');
    const ticket = first.done ? undefined : this.#tickets.get(first.value.ticket);
    if (first.done || ticket === undefined || ticket.host !== host) {
      throw new BusbarError({
        kind: 'forbidden',
        reason: 'ATTACH_TICKET_UNKNOWN',
        message: 'the ticket is unknown, used or of another host',
      });
    }
    this.#tickets.delete(first.value.ticket);
    const head = first.value;
    async function* whole(): AsyncIterable<AttachRequest> {
      yield head;
      yield* { [Symbol.asyncIterator]: () => iterator };
    }
    yield* ticket.accept(whole());
  }
}

async function pump(incoming: AsyncIterable<AttachRequest>, output: ByteChannel): Promise<void> {
  try {
    for await (const message of incoming) {
      if (message.data.length > 0) await output.push(message.data);
      if (message.error !== '') {
        output.end(refusalOf(message));
        return;
      }
    }
    output.end();
  } catch (error) {
    output.end(
      new BusbarError({
        kind: 'unavailable',
        reason: 'ATTACH_BROKEN',
        message: 'the connection to the host broke',
        hint: 'open it again',
        cause: error,
      }),
    );
  }
}

function refusalOf({ error: message, reason, hint }: AttachRequest): BusbarError {
  if (reason !== 'PLACES_TAKEN') return new BusbarError({ kind: 'precondition', reason: 'ATTACH_FAILED', message });
  return new BusbarError({ kind: 'exhausted', reason, message, hint });
}

/**
 * The user's input, and then the wait for the end of the output: a gRPC call whose responses end is over in both
 * directions. Ends with the output even while the input is silent, so that a user who hung up keeps no stream of the agent.
 */
async function* responses(input: AsyncIterable<Uint8Array>, output: ByteChannel): AsyncIterable<AttachResponse> {
  const iterator = input[Symbol.asyncIterator]();
  const closed = output.closed.then(() => null);
  try {
    for (;;) {
      const next = await Promise.race([iterator.next(), closed]);
      if (next === null) return;
      if (next.done) break;
      yield { data: Buffer.from(next.value) };
    }
    await closed;
  } finally {
    // Not awaited: an input that waits for its caller would not let go.
    void iterator.return?.().catch(() => {});
  }
}

/** Whoever has the certificate of a host may connect as often as he likes. */
function linesOf(host: string): LineSource {
  return { kind: 'session', name: host, fields: { host } };
}

function unreachableHost(host: string, why: string): BusbarError {
  return new BusbarError({
    kind: 'unavailable',
    reason: 'HOST_UNREACHABLE',
    message: `host "${host}" cannot be asked: ${why}`,
    hint: `look at "busbar host get ${host}"`,
  });
}
