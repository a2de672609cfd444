// SPDX-License-Identifier: Apache-2.0
import { type Clock, sleep } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import { invalidRequest, leaseGone, outcomeUnknown, storeClosed, storeFull, storeUnavailable } from '../errors.ts';
import { CallFailure } from './failure.ts';
import type { Cancellable } from './member.ts';

/** A call unanswered for so long makes the store ask whether the member is alive at all. */
const SILENCE_MS = 400;
const RETRY_MS = 50;

export interface CallOptions {
  readonly what: string;
  readonly deadlineMs: number;
  /** read: does nothing. write: at most once. repeatable write: a second sending does no harm (see mayRepeat). */
  readonly kind: 'read' | 'write' | 'repeatable write';
}

/** What the caller needs of a Member. */
export interface Candidate {
  readonly address: string;
  probe(): Promise<{ readonly leader: bigint }>;
  suspect(): void;
  keptWaiting(): void;
}

/** What the caller needs of a MemberPool. */
export interface Chooser<M> {
  pick(endMs: number, signal: AbortSignal): Promise<M>;
  /** Whether some other member is neither slow nor under suspicion. */
  hasQuicker(member: M): boolean;
}

export interface Answered<T> {
  readonly value: T;
  /** When the request that was answered had been sent. */
  readonly sentMs: number;
  /** Another sending of the same request may have been applied as well. */
  readonly repeated: boolean;
}

/** Nothing is wrong with the member but its pace. */
class Slow extends CallFailure {}

/**
 * Carries one call to whichever member can answer it, under one deadline. A call that certainly was
 * not applied, or may be applied twice, goes on to the next member; any other ends in 'timeout' as
 * soon as its member is known to be silent. A silent member costs SILENCE_MS and a probe, once; so does one that is
 * alive and slow, as long as there is a quicker one.
 */
export class Caller<M extends Candidate> {
  readonly #pool: Chooser<M>;
  readonly #clock: Clock;
  readonly #closing: AbortSignal;

  constructor(pool: Chooser<M>, clock: Clock, closing: AbortSignal) {
    this.#pool = pool;
    this.#clock = clock;
    this.#closing = closing;
  }

  async call<T>(options: CallOptions, start: (member: M) => Cancellable<T>): Promise<Answered<T>> {
    const { what, kind } = options;
    const endMs = this.#clock.nowMs() + options.deadlineMs;
    let inDoubt: unknown;
    for (;;) {
      if (this.#closing.aborted) throw inDoubt === undefined || kind === 'read' ? storeClosed() : outcomeUnknown(what);
      let member: M;
      let sentMs: number;
      try {
        member = await this.#pool.pick(endMs, this.#closing);
        sentMs = this.#clock.nowMs();
        return { value: await this.#attempt(member, start, kind, endMs), sentMs, repeated: inDoubt !== undefined };
      } catch (error) {
        if (this.#closing.aborted && !(error instanceof CallFailure)) continue;
        if (!(error instanceof CallFailure)) {
          throw inDoubt === undefined || kind === 'read' ? error : outcomeUnknown(what, inDoubt);
        }
        if (error.kind === 'unknown') {
          if (kind === 'write') throw outcomeUnknown(what, error);
          inDoubt = error;
        } else if (error.kind !== 'not-applied') {
          throw inDoubt === undefined || kind === 'read' ? error : outcomeUnknown(what, error);
        }
        if (this.#clock.nowMs() + RETRY_MS >= endMs) {
          throw inDoubt === undefined || kind === 'read' ? storeUnavailable(what, error) : outcomeUnknown(what, error);
        }
        await sleep(this.#clock, RETRY_MS, this.#closing).catch(() => {});
      }
    }
  }

  /** One sending to one member. Rejects with CallFailure. */
  async #attempt<T>(
    member: M,
    start: (member: M) => Cancellable<T>,
    kind: CallOptions['kind'],
    endMs: number,
  ): Promise<T> {
    const call = start(member);
    call.answer.catch(() => {});
    const giveUp = (why: string): never => {
      call.cancel();
      member.suspect();
      throw new CallFailure('unknown', `${member.address}: ${why}`);
    };
    try {
      for (;;) {
        if (this.#closing.aborted) return giveUp('closed');
        const leftMs = endMs - this.#clock.nowMs();
        if (leftMs <= 0) return giveUp('no answer in time');
        const answer = await this.#first(call.answer, Math.min(SILENCE_MS, leftMs));
        if (answer !== null) return answer.value;
        const probeMs = endMs - this.#clock.nowMs();
        if (this.#closing.aborted || probeMs <= 0) continue;
        const probe = member.probe().then(
          (status) => (status.leader === 0n ? 'without a leader' : 'alive'),
          () => 'silent',
        );
        const first = await this.#first(Promise.race([call.answer.then((value) => ({ value })), probe]), probeMs);
        if (typeof first?.value === 'object') return first.value.value;
        if (first?.value === 'silent') return giveUp('silent');
        if (first?.value === 'alive' && this.#pool.hasQuicker(member)) {
          member.keptWaiting();
          if (kind === 'read') {
            call.cancel();
            throw new Slow('not-applied', `${member.address}: alive, and slow`);
          }
        }
        // A write that may not be repeated has nothing to gain elsewhere: it waits for its answer.
        if (first?.value === 'without a leader' && kind !== 'write') return giveUp('without a leader');
      }
    } catch (error) {
      // It cannot serve, or the connection broke: look around before the next try.
      const isAway = error instanceof CallFailure && (error.kind === 'not-applied' || error.kind === 'unknown');
      if (isAway && !(error instanceof Slow)) member.suspect();
      throw error;
    }
  }

  /** The value of `promise`, or null when `limitMs` pass or the store closes before it settles. */
  #first<T>(promise: Promise<T>, limitMs: number): Promise<{ readonly value: T } | null> {
    return new Promise((resolve, reject) => {
      const finish = (settle: () => void) => {
        timer[Symbol.dispose]();
        this.#closing.removeEventListener('abort', onClosing);
        settle();
      };
      const onClosing = () => finish(() => resolve(null));
      const timer = this.#clock.timer(limitMs, onClosing);
      this.#closing.addEventListener('abort', onClosing, { once: true });
      promise.then(
        (value) => finish(() => resolve({ value })),
        (error: unknown) => finish(() => reject(error as Error)),
      );
    });
  }
}

/** What a caller of the store is told about a failure that no other member could cure. */
export function toStoreError(what: string, error: unknown): unknown {
  if (!(error instanceof CallFailure)) return error;
  switch (error.kind) {
    case 'lease-gone':
      return leaseGone(what, error);
    case 'invalid':
      return invalidRequest(`etcd refuses the request (${what}): ${error.message}`);
    case 'forbidden':
      return new BusbarError({
        kind: 'forbidden',
        reason: 'STORE_FORBIDDEN',
        message: `etcd does not permit this controller to ${what}`,
        hint: 'The controller needs a client certificate that etcd trusts, and a role if etcd authentication is on.',
        cause: error,
      });
    case 'no-space':
      return storeFull(error);
    case 'compacted':
    case 'answer-too-large':
    case 'not-applied':
    case 'unknown':
      return storeUnavailable(what, error);
  }
}
