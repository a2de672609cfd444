// SPDX-License-Identifier: Apache-2.0
import { type Clock, sleep } from '@busbar/core/clock/clock';
import { errorChain } from '@busbar/core/errors';
import type { Logger } from '@busbar/core/log';
import type { TlsFeed } from '@busbar/pki/tls/source';
import { storeUnavailable } from '../errors.ts';
import { CallFailure } from './failure.ts';
import { Member } from './member.ts';
import { STATUS, type StatusResponse } from './messages.ts';

/** A member heard this recently is used without asking; the window in which it may have frozen unnoticed. */
const FRESH_MS = 500;
/** A silent member costs this much before the others are asked, too. */
const HEDGE_MS = 250;
const RETRY_MS = 100;

/** Chooses the member to talk to: the first that is alive and knows a leader, and then stays with it unless it is slow. */
export class MemberPool {
  readonly #members: readonly Member[];
  readonly #clock: Clock;
  readonly #log: Logger;
  #current: Member;

  constructor(addresses: readonly [string, ...string[]], tls: TlsFeed | null, clock: Clock, log: Logger) {
    const [first, ...rest] = addresses;
    this.#current = new Member(first, tls, clock);
    this.#members = [this.#current, ...rest.map((address) => new Member(address, tls, clock))];
    this.#clock = clock;
    this.#log = log;
  }

  /**
   * A member that answered a moment ago. Rejects with kind 'unavailable' when none does before
   * `endMs`, and with the signal's reason when that aborts.
   */
  async pick(endMs: number, signal: AbortSignal): Promise<Member> {
    const failures = new Map<Member, unknown>();
    for (;;) {
      signal.throwIfAborted();
      const isFresh = this.#clock.nowMs() - this.#current.servedMs <= FRESH_MS;
      if (isFresh && !this.#isOvertaken(this.#current)) return this.#current;
      const member = await this.#race(endMs, signal, failures);
      if (member !== undefined) {
        if (member !== this.#current) this.#log.info({ etcd: member.address }, 'moved to another etcd member');
        this.#current = member;
        return member;
      }
      if (this.#clock.nowMs() + RETRY_MS >= endMs) {
        const causes = this.#members
          .map((member) => errorChain(failures.get(member) ?? `${member.address}: no answer yet`))
          .join('; ');
        throw storeUnavailable('no etcd member is alive and knows a leader', causes);
      }
      await sleep(this.#clock, RETRY_MS, signal);
    }
  }

  /** Of every member that answers in time; asks nothing of the quorum, and thinks no worse of who does not answer. */
  async statuses(deadlineMs: number): Promise<readonly StatusResponse[]> {
    const answers = await Promise.allSettled(
      this.#members.map(async (member) => {
        const call = member.unary(STATUS, {});
        using _ = this.#clock.timer(deadlineMs, () => call.cancel());
        return await call.answer;
      }),
    );
    return answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
  }

  hasQuicker(member: Member): boolean {
    return this.#members.some((other) => other !== member && !other.isSlow && !other.suspected);
  }

  #isOvertaken(member: Member): boolean {
    return member.isSlow && this.hasQuicker(member);
  }

  close(): void {
    for (const member of this.#members) member.close();
  }

  /** The first member to pass a probe. The current one has a head start unless it is under suspicion; if it is slow, the others have. */
  #race(endMs: number, signal: AbortSignal, failures: Map<Member, unknown>): Promise<Member | undefined> {
    return new Promise((resolve) => {
      const timers: Disposable[] = [];
      let pending = 0;
      let othersAsked = false;
      const finish = (member: Member | undefined) => {
        for (const timer of timers) timer[Symbol.dispose]();
        signal.removeEventListener('abort', onAbort);
        resolve(member);
      };
      const onAbort = () => finish(undefined);
      const asked = new Set<Member>();
      const ask = (member: Member) => {
        asked.add(member);
        pending++;
        member.probe().then(
          (status) => {
            pending--;
            if (status.leader !== 0n && !status.isLearner) return finish(member);
            failed(member, new CallFailure('not-applied', `${member.address}: knows no leader`));
          },
          (error: unknown) => {
            pending--;
            failed(member, error);
          },
        );
      };
      const failed = (member: Member, error: unknown) => {
        failures.set(member, error);
        if (pending === 0) askOthers();
        if (pending === 0) finish(undefined);
      };
      const askOthers = () => {
        if (othersAsked) return;
        othersAsked = true;
        for (const member of this.#members) if (!asked.has(member)) ask(member);
      };
      signal.addEventListener('abort', onAbort, { once: true });
      timers.push(this.#clock.timer(Math.max(0, endMs - this.#clock.nowMs()), () => finish(undefined)));
      const isOvertaken = this.#isOvertaken(this.#current);
      const ahead = isOvertaken ? this.#members.filter((member) => !member.isSlow) : [this.#current];
      for (const member of ahead) ask(member);
      if (this.#current.suspected && !isOvertaken) askOthers();
      else timers.push(this.#clock.timer(HEDGE_MS, askOthers));
    });
  }
}
