// SPDX-License-Identifier: Apache-2.0
import { type BoundedLog, boundedLog, type LineSource } from '@busbar/core/bounded-log';
import type { Clock } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import type { Logger } from '@busbar/core/log';
import type { Random } from '@busbar/core/random';
import type {
  AttachRequest,
  AttachResponse,
  DesiredState,
  Hello,
  HostReport,
  SessionRequest,
  SessionResponse,
  StatePosition,
  Welcome,
} from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { HostInventory } from '@busbar/proto/gen/busbar/v1/host';
import { type Boot, DEFAULT_LEASE, describeBoot, type LeaseTimings, sameBoot, type Verdict } from '../lease/granter.ts';
import type { Granting } from '../lease/granting.ts';
import { Attachments, type AttachWish } from './attachments.ts';
import { Bell } from './bell.ts';
import { checkHello, checkInventory, checkReport } from './bounds.ts';
import { firstMessage } from './first-message.ts';
import { Outbox } from './outbox.ts';

/**
 * The sessions of agents with this controller. Every controller has one with every agent, leader or
 * not: heartbeats are acknowledged here at once and touch neither the store nor the leader, so that neither a leader change nor
 * the loss of etcd's quorum ends a host's lease. What agents report is kept in memory only; a new leader has it already.
 *
 * A host speaks for itself alone: the session's host is the one of the client certificate, and whatever it says is filed under it.
 * Of two machines with one certificate, one is heard: the boot that the granter (lease/granter.ts) admits.
 */
export interface HostObservation {
  readonly hello: Hello;
  readonly boot: Boot;
  /** Machines that say at the same time that they are this host; empty when it is one. */
  readonly beside: readonly Boot[];
  /**
   * The lease of every former boot of the host has certainly ended, and no other machine speaks for it: this one holds the lease,
   * which no two boots do at once. Then what it says of what a former boot was given counts.
   */
  readonly isAlone: boolean;
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
  boot: Boot;
  report: HostReport | null;
  inventory: HostInventory | null;
  heardMs: number;
  heardWall: Date;
  openedMs: number;
  reportedMs: number | null;
  blindSinceMs: number | null;
  outbox: Outbox | null;
}

export class SessionRegistry {
  readonly #welcome: Welcome;
  readonly #granting: Granting;
  readonly #clock: Clock;
  readonly #lines: BoundedLog;
  readonly #sessions = new Map<string, Session>();
  readonly #attachments: Attachments;
  readonly #bell: Bell;
  readonly #desired = new Map<string, { readonly desired: DesiredState; readonly sinceMs: number }>();

  constructor(deps: {
    readonly controller: string;
    readonly controllers: readonly string[];
    readonly timings?: LeaseTimings;
    readonly granting: Granting;
    readonly clock: Clock;
    readonly random: Random;
    readonly logger: Logger;
    /** For lines that an agent causes. Default: one of its own. */
    readonly lines?: BoundedLog;
  }) {
    this.#welcome = welcomeOf(deps);
    this.#granting = deps.granting;
    this.#clock = deps.clock;
    this.#bell = new Bell(deps.clock);
    this.#lines = deps.lines ?? boundedLog(deps);
    this.#attachments = new Attachments({ ...deps, outboxOf: (host) => this.#sessions.get(host)?.outbox });
  }

  observed(host: string): HostObservation | null {
    const session = this.#sessions.get(host);
    if (session === undefined) return null;
    const told = this.#desired.get(host);
    const published =
      told?.desired.position === undefined ? null : { position: told.desired.position, sinceMs: told.sinceMs };
    const { admitted, beside, hasListened, ...granted } = this.#granting.seen(host);
    const holdsLease = (session.report?.leaseRemainingMs ?? 0) > 0;
    const isAdmitted = admitted !== null && sameBoot(admitted, session.boot);
    // Heartbeats that did not come through the session count as well, and are heard while this thread stands still.
    const heardMs = isAdmitted ? Math.max(session.heardMs, granted.heardMs) : session.heardMs;
    const isAlone = isAdmitted && holdsLease && hasListened && beside.length === 0;
    const heardWall =
      heardMs === session.heardMs
        ? session.heardWall
        : new Date(this.#clock.wallTime().getTime() - (this.#clock.nowMs() - heardMs));
    return { ...session, heardMs, heardWall, beside, isAlone, connected: session.outbox !== null, published };
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

  /** Has every connected agent remember how far the store is. */
  markStore(revision: bigint): void {
    for (const session of this.#sessions.values()) session.outbox?.markStore(revision);
  }

  /** Leadership is over: nothing is sent any more. */
  clearDesired(): void {
    this.#desired.clear();
  }

  /** Serves one session stream of the agent whose certificate names `host`, at the address that it comes from. */
  async *session(
    host: string,
    address: string,
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
    const boot: Boot = { bootId: hello.value.bootId, address };
    const verdict = await this.#granting.claim(host, boot);
    if (verdict.kind === 'refused') throw this.#anotherBoot(host, boot, verdict);
    const outbox = new Outbox({ message: { $case: 'welcome', value: this.#welcome } });
    const session = this.#open(host, hello.value, boot, outbox);
    const desired = this.#desired.get(host)?.desired;
    if (desired !== undefined && ['', boot.bootId].includes(desired.bootId)) outbox.desire(desired);
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

  #anotherBoot(host: string, boot: Boot, verdict: Verdict & { readonly kind: 'refused' }): BusbarError {
    const { admitted, untilMs } = verdict;
    const waitMs = Math.max(0, Math.ceil(untilMs - this.#clock.nowMs()));
    return new BusbarError({
      kind: 'unavailable',
      reason: 'HOST_BOOT_NOT_ADMITTED',
      message: `${describeBoot(boot)} is not let in as host "${host}": ${describeBoot(admitted)} was heard, and its lease may live for another ${waitMs} ms`,
      hint: `after a reboot this passes by itself; if both machines are on, one is a copy of the other: switch it off`,
    });
  }

  #open(host: string, hello: Hello, boot: Boot, outbox: Outbox): Session {
    const former = this.#sessions.get(host);
    if (former !== undefined) {
      former.outbox?.close();
      // What its reader still gets is of yesterday.
      former.outbox = null;
    }
    const isSame =
      former?.hello.agentInstanceId === hello.agentInstanceId && former !== undefined && sameBoot(former.boot, boot);
    const kept = isSame ? former : undefined;
    const nowMs = this.#clock.nowMs();
    const session: Session = {
      hello,
      boot,
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
    this.#lines.write('info', linesOf(host), { host, ...boot, agentVersion: hello.agentVersion }, 'agent connected');
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
          this.#beat(session, outbox, message.value.number);
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

  #beat(session: Session, outbox: Outbox, number: bigint): void {
    const { host } = session.hello;
    this.#granting.beat(host, session.boot, (verdict) => {
      if (verdict.kind === 'granted') outbox.acknowledge(number);
      else if (verdict.kind === 'refused') {
        const { admitted } = verdict;
        this.#lines.write(
          'warn',
          linesOf(host),
          { host, ...session.boot, admitted },
          'session of a boot ends: another is admitted',
        );
        outbox.close();
      }
    });
  }

  #learned(session: Session): void {
    if (session.report !== null && session.inventory !== null) session.blindSinceMs = null;
    this.#bell.ring(session.hello.host);
  }

  /** Asks a host's agent for a byte stream; see `Attachments`. */
  attach(
    host: string,
    order: AttachWish,
    input: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
  ): Promise<AsyncIterable<Uint8Array>> {
    return this.#attachments.attach(host, order, input, signal);
  }

  /** Serves one attach stream of the agent whose certificate names `host`. */
  attached(host: string, incoming: AsyncIterable<AttachRequest>): AsyncIterable<AttachResponse> {
    return this.#attachments.attached(host, incoming);
  }
}

/** Whoever has the certificate of a host may connect as often as he likes. */
function linesOf(host: string): LineSource {
  return { kind: 'session', name: host, fields: { host } };
}

/** What a controller says to an agent first; the same wherever heartbeats come in. */
export function welcomeOf(of: {
  readonly controller: string;
  readonly controllers: readonly string[];
  readonly timings?: LeaseTimings;
}): Welcome {
  return { controller: of.controller, controllers: [...of.controllers], ...(of.timings ?? DEFAULT_LEASE) };
}
