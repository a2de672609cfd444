// SPDX-License-Identifier: Apache-2.0

/**
 * How many things of one source are told one by one: some at once, then one now and then. The rest is counted, so that whoever
 * makes them by the thousand is told of in a few words, and nobody is told of not at all.
 */
export interface Allowance {
  readonly burst: number;
  readonly refillMs: number;
}

interface Account<Who> {
  readonly who: Who;
  left: number;
  refilledMs: number;
  /** Not told one by one, and not counted out yet. */
  further: number;
}

/** The allowances of many sources. Of more sources than `sourcesMax` the last ones share one, that of `others`. */
export class Allowances<Who> {
  readonly #allowance: Allowance;
  readonly #sourcesMax: number;
  readonly #others: Who;
  readonly #accounts = new Map<string, Account<Who>>();

  constructor(options: Allowance & { readonly sourcesMax: number; readonly others: Who }) {
    this.#allowance = options;
    this.#sourcesMax = options.sourcesMax;
    this.#others = options.others;
  }

  /** Whether one more of this source may be told by itself. If not, it is counted. */
  take(key: string, who: Who, nowMs: number): boolean {
    const account = this.#account(key, who, nowMs);
    if (account.left === 0) {
      account.further++;
      return false;
    }
    account.left--;
    return true;
  }

  /** Counts one that cannot be told by itself for another reason. */
  count(key: string, who: Who, nowMs: number): void {
    this.#account(key, who, nowMs).further++;
  }

  /** Tells what was counted; what `tell` does not take stays counted. Forgets sources that have used none of theirs. */
  countOut(nowMs: number, tell: (who: Who, further: number) => boolean): void {
    for (const [key, account] of this.#accounts) {
      this.#refill(account, nowMs);
      if (account.further === 0) {
        if (account.left === this.#allowance.burst) this.#accounts.delete(key);
      } else if (tell(account.who, account.further)) account.further = 0;
    }
  }

  /** Sources that are remembered. */
  get size(): number {
    return this.#accounts.size;
  }

  #account(key: string, who: Who, nowMs: number): Account<Who> {
    const known = this.#accounts.get(key);
    if (known !== undefined) {
      this.#refill(known, nowMs);
      return known;
    }
    // No key of a source has a NUL: it is of names and addresses.
    if (this.#accounts.size >= this.#sourcesMax && key !== OTHERS) return this.#account(OTHERS, this.#others, nowMs);
    const account: Account<Who> = { who, left: this.#allowance.burst, refilledMs: nowMs, further: 0 };
    this.#accounts.set(key, account);
    return account;
  }

  #refill(account: Account<Who>, nowMs: number): void {
    const { burst, refillMs } = this.#allowance;
    const earned = Math.floor((nowMs - account.refilledMs) / refillMs);
    if (earned <= 0) return;
    account.left = Math.min(burst, account.left + earned);
    account.refilledMs += earned * refillMs;
  }
}

const OTHERS = '\0others';
