// SPDX-License-Identifier: Apache-2.0
import { unreachable } from '@busbar/core/assert';
import type { Clock } from '@busbar/core/clock/clock';
import { errorChain } from '@busbar/core/errors';
import type { Pulse } from '@busbar/core/pulse';
import type { AttachOrder, DesiredState, SessionResponse, Welcome } from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { LeaseSession } from '../lease/lease.ts';
import type { SessionDialer } from './link.ts';
import { Outbox, type OutboxSources } from './outbox.ts';
import { unlessAborted } from './unless-aborted.ts';
import { type Terms, verifyWelcome } from './welcome.ts';

/** Until the controller says otherwise. */
const FIRST_HEARTBEAT_INTERVAL_MS = 250;
/** Silence after which a link is suspect, as long as the leader takes to suspect a host. */
const SUSPECT_AFTER_MS = 1000;
/** Heartbeats without an answer that silence takes at least, however long it lasted. */
const UNANSWERED_MIN = 3;
/** A loaded controller may take longer for its first answer (TLS, hello); TCP repeats a lost first packet after 1 s. */
const WELCOME_WITHIN_MS = 2000;
/** Silence after which a link is cut, whether or not a better one is there. */
const CUT_AFTER_MS = 5000;

/** One wording each, so that an outage is logged once. */
export const NO_ANSWER = 'it does not answer';
const NO_ACKNOWLEDGEMENT = 'it does not acknowledge heartbeats; it may have sealed this host';

export interface LinkEvents {
  welcomed(link: ControllerLink): void;
  acknowledged(roundTripMs: number): void;
  /** It was alive and fell silent. Told with every heartbeat until it ends or is alive again. */
  suspect(link: ControllerLink): void;
  desired(state: DesiredState): void;
  /** The cluster store is as far as this. */
  marked(storeRevision: bigint): void;
  attach(order: AttachOrder): void;
  /** Once, at the end, whatever the reason. */
  ended(link: ControllerLink, why: string): void;
}

export interface LinkOptions {
  readonly clock: Clock;
  readonly dialer: SessionDialer;
  readonly controller: { readonly host: string; readonly address: string };
  readonly controllers: readonly string[];
  readonly sources: Omit<OutboxSources, 'nextHeartbeat'>;
  readonly lease: LeaseSession;
  readonly pulse: Pulse;
  readonly events: LinkEvents;
}

/**
 * One session stream, from dialling to its end; never reused. Owns its heartbeats and judges its
 * own liveness: a TCP connection into a cut network looks healthy for minutes, so only fresh
 * acknowledgements count.
 */
export class ControllerLink {
  readonly outbox: Outbox;
  readonly #options: LinkOptions;
  readonly #abort = new AbortController();
  #timer: Disposable | undefined;
  #terms: Terms | undefined;
  #wasAlive = false;
  #heartbeats = 0n;
  #heardAtMs: number;
  #unanswered = 0;
  #ended = false;

  constructor(options: LinkOptions) {
    this.#options = options;
    this.#heardAtMs = options.clock.nowMs();
    this.outbox = new Outbox({ ...options.sources, nextHeartbeat: () => this.#nextHeartbeat() });
  }

  get suspect(): boolean {
    return this.#silentMs() >= SUSPECT_AFTER_MS;
  }

  /** A process that stood still has sent nothing and read nothing: only silence that it listened to counts. */
  #silentMs(): number {
    return this.#unanswered < UNANSWERED_MIN ? 0 : this.#options.clock.nowMs() - this.#heardAtMs;
  }

  start(): void {
    this.#beat();
    this.outbox.mark('inventory');
    this.outbox.mark('report');
    void this.#read();
  }

  close(why: string): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#timer?.[Symbol.dispose]();
    this.outbox.close();
    this.#abort.abort(new Error(why));
    this.#options.events.ended(this, why);
  }

  #nextHeartbeat(): bigint {
    this.#heartbeats++;
    this.#options.lease.sent(this.#heartbeats, this.#options.clock.nowMs());
    return this.#heartbeats;
  }

  #beat(): void {
    const silentMs = this.#silentMs();
    if (silentMs >= (this.#terms === undefined ? WELCOME_WITHIN_MS : CUT_AFTER_MS)) {
      this.close(this.#terms === undefined || this.#wasAlive ? NO_ANSWER : NO_ACKNOWLEDGEMENT);
      return;
    }
    // One that welcomes but never acknowledges (sealed) would only do the same again: that one is left until it is cut.
    if (this.#wasAlive && this.suspect) this.#options.events.suspect(this);
    if (this.#ended) return;
    this.#options.pulse.beat();
    this.outbox.mark('heartbeat');
    this.#unanswered++;
    const intervalMs = this.#terms?.heartbeatIntervalMs ?? FIRST_HEARTBEAT_INTERVAL_MS;
    this.#timer = this.#options.clock.timer(intervalMs, () => this.#beat());
  }

  async #read(): Promise<void> {
    const { dialer, controller } = this.#options;
    const { signal } = this.#abort;
    try {
      const incoming = dialer.session(controller.address, this.outbox, signal)[Symbol.asyncIterator]();
      for (;;) {
        // The dialer promises to end the stream on abort; we do not wait for it to keep that promise.
        const result = await unlessAborted(incoming.next(), signal);
        if (result === undefined || this.#ended) return;
        if (result.done === true) {
          this.close('the controller ended the session');
          return;
        }
        this.#handle(result.value);
      }
    } catch (error) {
      this.close(errorChain(error));
    }
  }

  #handle(response: SessionResponse): void {
    const { events, lease } = this.#options;
    const message = response.message;
    if (message === undefined) return; // of a newer controller: not for us
    // Until the controller proved to be the right one, it has no say.
    if (message.$case !== 'welcome' && this.#terms === undefined) return;
    switch (message.$case) {
      case 'welcome':
        this.#welcome(message.value);
        break;
      case 'heartbeatAck': {
        const sentAtMs = lease.acknowledged(message.value.number);
        if (sentAtMs === null) break;
        this.#hear();
        this.#wasAlive = true;
        events.acknowledged(this.#heardAtMs - sentAtMs);
        break;
      }
      case 'desired':
        events.desired(message.value);
        break;
      case 'storeMark':
        events.marked(message.value.revision);
        break;
      case 'attach':
        events.attach(message.value);
        break;
      default:
        unreachable(message);
    }
  }

  #hear(): void {
    this.#heardAtMs = this.#options.clock.nowMs();
    this.#unanswered = 0;
  }

  #welcome(welcome: Welcome): void {
    const verdict = verifyWelcome(welcome, this.#options.controller.host, this.#options.controllers);
    if (!verdict.ok) {
      this.close(verdict.error);
      return;
    }
    this.#terms = verdict.value;
    this.#hear();
    this.#options.lease.verified(verdict.value.leaseTtlMs);
    this.#options.events.welcomed(this);
  }
}
