// SPDX-License-Identifier: Apache-2.0
import { type Clock, sleep, withDeadline } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import type { Revision } from '@busbar/core/ids';
import type { Logger } from '@busbar/core/log';
import { Pulse } from '@busbar/core/pulse';
import type { Random } from '@busbar/core/random';
import { z } from 'zod';
import type { ClusterStore, KeyValue, Read, StoreLease } from '../store/cluster-store.ts';
import { DEFAULT_TIMINGS, decide, type LeadershipTimings, type View } from './plan.ts';
import { HeldTerm, type LeaderTerm } from './term.ts';

export type { LeaderTerm } from './term.ts';

/** The value of the leader key: whom to ask. */
export type LeaderRecord = z.infer<typeof LeaderRecord>;
export const LeaderRecord = z.object({
  host: z.string(),
  address: z.string(),
  /** Wall time, for people. */
  startedAt: z.iso.datetime(),
});

export const LEADER_KEY = 'busbar/leader';
const RESIGN_DEADLINE_MS = 1_000;
/** The create revision of a key that does not exist. */
const NONE = 0n as Revision;

export interface LeadershipOptions {
  readonly store: ClusterStore;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly host: string;
  /** Where the other controllers and the API's clients reach this one. */
  readonly address: string;
  readonly key?: string;
  readonly timings?: Partial<LeadershipTimings>;
}

type Listener = (term: LeaderTerm | null) => void;

/** One controller's part in choosing the leader. Nothing happens before `run`. */
export class Leadership {
  /** Beats with each step of the loop. */
  readonly pulse: Pulse;
  readonly #options: LeadershipOptions;
  readonly #store: ClusterStore;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #key: string;
  readonly #timings: LeadershipTimings;
  readonly #listeners = new Set<Listener>();
  #term: HeldTerm | null = null;
  #running = false;
  /** What is known of the key at `#knownAt`: its create revision, 0n when it does not exist. */
  #keyCreated: Revision | 'unknown' | 'held' = 'unknown';
  #knownAt = 0n as Revision;
  #record: LeaderRecord | null = null;
  #observedMs = Number.NEGATIVE_INFINITY;
  #notBeforeMs = Number.NEGATIVE_INFINITY;
  #wake = () => {};
  #woken = false;

  constructor(options: LeadershipOptions) {
    this.#options = options;
    this.pulse = new Pulse(options.clock);
    this.#store = options.store;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#key = options.key ?? LEADER_KEY;
    this.#timings = { ...DEFAULT_TIMINGS, ...options.timings };
  }

  /** The term, while it is certainly ours. */
  isLeader(): LeaderTerm | null {
    return this.#term?.isValid() ? this.#term : null;
  }

  /** Until when this controller may rely on its term; 0 while it does not lead. */
  remainingMs(): number {
    return Math.max(0, (this.#term?.validUntilMs() ?? 0) - this.#clock.nowMs());
  }

  /** Who leads, as far as this controller has heard; null while nobody does. */
  leader(): LeaderRecord | null {
    return this.#record;
  }

  /** Tells when a term of this controller begins, and when it ends (null). */
  onChange(listener: Listener): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
  }

  /** Takes part until `signal` aborts; then resigns and returns. Never rejects because of the store. */
  async run(signal: AbortSignal): Promise<void> {
    const following = new AbortController();
    const followed = this.#follow(following.signal);
    const wake = () => this.#wakeUp();
    signal.addEventListener('abort', wake, { once: true });
    this.#running = true;
    try {
      while (!signal.aborted) {
        this.pulse.beat();
        const step = this.#step();
        if (step !== undefined) await settledOrAborted(step, signal);
      }
    } finally {
      signal.removeEventListener('abort', wake);
      this.#running = false;
      this.pulse.rest();
      following.abort();
      await this.resign();
      await followed;
    }
  }

  /**
   * Gives leadership up at once: ends the term, then releases the key, so that another controller
   * leads within milliseconds. This one does not campaign for `standDownMs`.
   */
  async resign(standDownMs = this.#timings.ttlMs + 1_000): Promise<void> {
    this.#notBeforeMs = this.#clock.nowMs() + standDownMs;
    const lease = this.#term?.lease;
    if (lease === undefined) return;
    this.#endTerm('resigned');
    await this.#release(lease);
  }

  #step(): Promise<void> | undefined {
    const decision = decide(this.#view(), this.#timings);
    switch (decision.do) {
      case 'wait':
        return this.#wait(decision.untilMs);
      case 'renew':
        this.#renew();
        return;
      case 'observe':
        this.#observe();
        return;
      case 'campaign':
        return this.#campaign();
      case 'step-down': {
        const lease = this.#term?.lease;
        this.#endTerm(decision.why === 'expired' ? 'the lease was not renewed in time' : 'the leader key is gone');
        // Not awaited: the store may be the reason, and the lease dies without help, too.
        if (lease !== undefined) void this.#release(lease);
        this.#observedMs = Number.NEGATIVE_INFINITY;
        return;
      }
    }
  }

  #view(): View {
    const term = this.#term;
    return {
      nowMs: this.#clock.nowMs(),
      term: term && {
        validUntilMs: term.validUntilMs(),
        renewalSentMs: term.renewalSentMs,
        renewal: term.renewal,
        lost: term.lost,
      },
      key: this.#keyState(),
      observedMs: this.#observedMs,
      notBeforeMs: this.#notBeforeMs,
    };
  }

  #wait(untilMs: number): Promise<void> {
    if (this.#woken) {
      this.#woken = false;
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      const timer = this.#clock.timer(Math.max(0, untilMs - this.#clock.nowMs()), () => this.#wakeUp());
      this.#wake = () => {
        timer[Symbol.dispose]();
        this.#woken = false;
        this.#wake = () => {};
        resolve();
      };
    });
  }

  /** Also remembered when nobody waits, so that no news is slept through. */
  #wakeUp(): void {
    this.#woken = true;
    this.#wake();
  }

  /** Starts a renewal without waiting for it: the next one must not be held up by a silent store. */
  #renew(): void {
    const term = this.#term;
    if (term === null) return;
    const sentMs = this.#clock.nowMs();
    term.renewalSentMs = sentMs;
    term.renewal = 'pending';
    const answered = (renewal: 'acknowledged' | 'failed') => {
      if (term.renewalSentMs === sentMs) term.renewal = renewal;
      this.#wakeUp();
    };
    term.lease.renew().then(
      () => answered('acknowledged'),
      (error: unknown) => {
        if (error instanceof BusbarError && error.kind === 'precondition') term.lost = true;
        this.#log.warn({ err: error }, 'leader lease not renewed');
        answered('failed');
      },
    );
  }

  /** Not waited for either: the watch may bring the news first. */
  #observe(): void {
    this.#observedMs = this.#clock.nowMs();
    this.#store.get(this.#key).then(
      (read) => this.#learn(read.value?.createRevision ?? NONE, read),
      (error: unknown) => this.#log.debug({ err: error }, 'leader key not readable'),
    );
  }

  async #campaign(): Promise<void> {
    let lease: StoreLease | undefined;
    const grantSentMs = this.#clock.nowMs();
    try {
      lease = await this.#store.grantLease(this.#timings.ttlMs);
      const record: LeaderRecord = {
        host: this.#options.host,
        address: this.#options.address,
        startedAt: this.#clock.wallTime().toISOString(),
      };
      const result = await this.#store.txn({
        compare: [{ target: 'create', key: this.#key, revision: NONE }],
        writes: [{ kind: 'put', key: this.#key, value: JSON.stringify(record), lease: lease.id }],
      });
      if (result.succeeded) {
        this.#learn(result.revision, { value: record, revision: result.revision });
        if (this.#beginTerm(result.revision, lease, grantSentMs)) return;
      } else {
        this.#learn('held', { value: null, revision: result.revision });
      }
    } catch (error) {
      this.#log.info({ err: error }, 'campaign for leadership failed');
      // Unequal waits, so that two candidates with a slow store do not run in step.
      this.#notBeforeMs = Math.max(this.#notBeforeMs, this.#clock.nowMs() + 100 + this.#options.random.next() * 400);
      this.#keyCreated = 'unknown';
    }
    this.#observedMs = Number.NEGATIVE_INFINITY;
    // Lost, or unknown: without its lease the key cannot stay even if it was written, or still will be.
    if (lease !== undefined) void this.#release(lease);
  }

  /** False when the victory came too late: lease run out, key gone again, stood down or stopped meanwhile. */
  #beginTerm(createRevision: Revision, lease: StoreLease, grantSentMs: number): boolean {
    const nowMs = this.#clock.nowMs();
    const wanted = this.#running && nowMs >= this.#notBeforeMs;
    if (!wanted || this.#keyCreated !== createRevision || nowMs >= lease.validUntilMs()) return false;
    const term = new HeldTerm(this.#key, createRevision, lease, grantSentMs, this.#clock);
    this.#term = term;
    this.#log.info({ createRevision: String(createRevision) }, 'became the leader');
    this.#tell(term);
    return true;
  }

  #endTerm(why: string): void {
    const term = this.#term;
    if (term === null) return;
    this.#term = null;
    term.end(why);
    this.#log.warn({ createRevision: String(term.createRevision), why }, 'no longer the leader');
    this.#tell(null);
    this.#wakeUp();
  }

  #tell(term: LeaderTerm | null): void {
    for (const listener of [...this.#listeners]) listener(term);
  }

  async #release(lease: StoreLease): Promise<void> {
    try {
      await withDeadline(this.#clock, RESIGN_DEADLINE_MS, 'revoking the leader lease', () => lease.revoke());
    } catch (error) {
      this.#log.debug({ err: error }, 'leader lease not revoked; it will expire');
    }
  }

  /** Keeps an eye on the key. Its news only wake the loop; a watch that fails starts again after a pause. */
  async #follow(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        const read = await this.#store.get(this.#key);
        this.#learn(read.value?.createRevision ?? NONE, read);
        for await (const batch of this.#store.watch(this.#key, read.revision, signal)) {
          if (batch.kind !== 'events') continue;
          // The watch is by prefix; keep to the key itself.
          const last = batch.events.findLast(
            (event) => (event.kind === 'put' ? event.kv.key : event.key) === this.#key,
          );
          if (last !== undefined) {
            const kv = last.kind === 'put' ? last.kv : null;
            this.#learn(kv?.createRevision ?? NONE, { value: kv, revision: batch.revision });
          }
        }
      } catch (error) {
        this.#log.debug({ err: error }, 'watch of the leader key failed');
        await sleep(this.#clock, 500, signal).catch(() => {});
      }
    }
  }

  /** News of the key, from a read, the watch or a campaign; older ones than known are dropped. */
  #learn(created: Revision | 'held', news: Read<KeyValue | LeaderRecord | null>): void {
    if (news.revision < this.#knownAt) return;
    this.#knownAt = news.revision;
    this.#keyCreated = created;
    this.#observedMs = this.#clock.nowMs();
    const { value } = news;
    this.#record = value === null || 'host' in value ? value : parseRecord(value.value);
    const term = this.#term;
    if (term !== null && created !== term.createRevision && news.revision >= term.createRevision) term.lost = true;
    this.#wakeUp();
  }

  #keyState(): View['key'] {
    if (this.#keyCreated === 'unknown') return 'unknown';
    return this.#keyCreated === NONE ? 'free' : 'held';
  }
}

/**
 * A campaign that a silent store holds up must not hold up the end. Not a race against one long-lived promise: that
 * would keep a reaction of every step, for as long as the controller runs.
 */
function settledOrAborted(step: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => resolve();
    signal.addEventListener('abort', stop, { once: true });
    step.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}

function parseRecord(text: string): LeaderRecord | null {
  try {
    return LeaderRecord.parse(JSON.parse(text));
  } catch {
    // Somebody else's writing under our key: there is a leader, but nobody to ask.
    return null;
  }
}
