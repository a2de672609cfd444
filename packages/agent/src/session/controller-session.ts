// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import type { Logger } from '@busbar/core/log';
import type { Metrics } from '@busbar/core/metrics';
import type { Pulse } from '@busbar/core/pulse';
import type { Random } from '@busbar/core/random';
import type { AttachOrder, DesiredState } from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { Lease } from '../lease/lease.ts';
import { AGENT_METRICS } from '../telemetry/metrics.ts';
import { ControllerLink, NO_ANSWER } from './controller-link.ts';
import type { SessionDialer } from './link.ts';
import type { OutboxSources } from './outbox.ts';

/**
 * A healed network is to be noticed within about a second, so attempts begin at most that far apart.
 * The floor keeps a controller that hangs up at once from being dialled in a circle.
 */
const REDIAL_MS = { first: 100, max: 1000, floor: 20 } as const;

export interface SessionOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly dialer: SessionDialer;
  readonly logger: Logger;
  readonly controller: { readonly host: string; readonly address: string };
  readonly controllers: readonly string[];
  readonly lease: Lease;
  readonly sources: Omit<OutboxSources, 'nextHeartbeat'>;
  /** Beats with every dial and every heartbeat that is due. */
  readonly pulse: Pulse;
  readonly metrics: Metrics;
  onAcknowledged(): void;
  onDesired(state: DesiredState): void;
  onStoreMark(revision: bigint): void;
  onAttach(order: AttachOrder): void;
}

/**
 * Keeps a session with one controller for as long as the agent lives.
 *
 * At most two links exist: the current one and a candidate. A suspect link is not cut at once: a
 * controller that was only slow still answers what it has, and those acknowledgements count. A
 * candidate is dialled beside it and takes over when it is welcomed. The controller keeps the
 * newest session of a host, so both ends agree on which one lives.
 * There is a log line per change, not per attempt.
 */
export class ControllerSession {
  readonly #options: SessionOptions;
  readonly #roundTrip: (ms: number) => void;
  #current: ControllerLink | undefined;
  #candidate: ControllerLink | undefined;
  #pause: Disposable | undefined;
  #failures = 0;
  #dialledAtMs = 0;
  #problem = 'not connected yet';
  #stopped = false;

  constructor(options: SessionOptions) {
    this.#options = options;
    const seconds = options.metrics.histogram(AGENT_METRICS.roundTrip);
    const labels = { controller: options.controller.host };
    this.#roundTrip = (ms) => seconds.observe(labels, ms / 1000);
  }

  /** Why this controller cannot be talked to now, for people; empty when it can. */
  get problem(): string {
    return this.#problem;
  }

  start(): void {
    this.#dial();
  }

  mark(kind: 'inventory' | 'report'): void {
    this.#current?.outbox.mark(kind);
    this.#candidate?.outbox.mark(kind);
  }

  stop(): void {
    this.#stopped = true;
    this.#options.pulse.rest();
    this.#pause?.[Symbol.dispose]();
    this.#candidate?.close('the agent stops');
    this.#current?.close('the agent stops');
  }

  #dial(): void {
    if (this.#stopped || this.#candidate !== undefined || this.#pause !== undefined) return;
    const { controller, lease } = this.#options;
    const link = new ControllerLink({
      ...this.#options,
      lease: lease.openSession(controller.host),
      events: {
        welcomed: (welcomed) => this.#welcomed(welcomed),
        acknowledged: (roundTripMs) => {
          this.#roundTrip(roundTripMs);
          this.#failures = 0;
          this.#note('');
          this.#options.onAcknowledged();
        },
        suspect: (suspect) => this.#suspect(suspect),
        desired: (state) => this.#options.onDesired(state),
        marked: (revision) => this.#options.onStoreMark(revision),
        attach: (order) => this.#options.onAttach(order),
        ended: (ended, why) => this.#ended(ended, why),
      },
    });
    this.#candidate = link;
    this.#dialledAtMs = this.#options.clock.nowMs();
    this.#options.pulse.beat();
    link.start();
  }

  #welcomed(link: ControllerLink): void {
    if (link !== this.#candidate) return; // welcomed twice: nothing new
    const former = this.#current;
    this.#candidate = undefined;
    this.#current = link;
    former?.close('replaced by a newer link');
  }

  #suspect(link: ControllerLink): void {
    if (link !== this.#current) return;
    this.#note(NO_ANSWER);
    this.#dial();
  }

  #ended(link: ControllerLink, why: string): void {
    if (link === this.#candidate) this.#candidate = undefined;
    else if (link === this.#current) this.#current = undefined;
    else return; // it was replaced
    if (this.#stopped) return;
    this.#note(why);
    if (this.#candidate === undefined) this.#redialLater();
  }

  #redialLater(): void {
    if (this.#pause !== undefined) return;
    const ceilingMs = Math.min(REDIAL_MS.max, REDIAL_MS.first * 2 ** this.#failures++);
    // Half of it is chance: hosts that lost a controller together must not come back together.
    const sinceDialMs = ceilingMs * (0.5 + this.#options.random.next() / 2);
    const spentMs = this.#options.clock.nowMs() - this.#dialledAtMs;
    const delayMs = Math.max(REDIAL_MS.floor, sinceDialMs - spentMs);
    this.#pause = this.#options.clock.timer(delayMs, () => {
      this.#pause = undefined;
      // A current link that recovered meanwhile needs no second one.
      if (this.#current === undefined || this.#current.suspect) this.#dial();
    });
  }

  #note(problem: string): void {
    if (problem === this.#problem) return;
    this.#problem = problem;
    const { logger, controller } = this.#options;
    const fields = { controller: controller.host, address: controller.address };
    if (problem === '') logger.info(fields, 'controller connected');
    else logger.warn({ ...fields, problem }, 'controller not usable');
  }
}
