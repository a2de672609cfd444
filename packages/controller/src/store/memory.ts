// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import type { Revision } from '@busbar/core/ids';
import type { Random } from '@busbar/core/random';
import { BatchQueue } from './batch-queue.ts';
import type {
  ClusterStore,
  KeyValue,
  LeaseId,
  Read,
  StoreHistory,
  StoreLease,
  StoreUsage,
  Transaction,
  TransactionResult,
  WatchBatch,
} from './cluster-store.ts';
import { outcomeUnknown, storeClosed, storeUnavailable } from './errors.ts';
import { LeaseClaim } from './lease-claim.ts';
import { MemoryTruth } from './memory-truth.ts';
import { checkKey, checkLeaseTtl, checkPrefix, checkTransaction } from './request.ts';

export interface MemoryStoreOptions {
  /** The client's own clock: its rate may differ from the server's. */
  readonly clock: Clock;
  readonly random: Random;
  /** One way; a pair is drawn from uniformly. Default 0: calls take no time at all. */
  readonly latencyMs?: number | readonly [number, number];
  /** As EtcdStore's. */
  readonly callDeadlineMs?: number;
  readonly maxBufferedEvents?: number;
  /** At most this often a quiet watch tells how far it is. */
  readonly progressIntervalMs?: number;
}

/** Chance that a message vanishes, 0 to 1. */
export interface Loss {
  readonly request: number;
  readonly answer: number;
}

/** The cluster store of a simulated cluster or of a test: one truth, one client per controller. */
export class MemoryStoreServer extends MemoryTruth {
  client(options: MemoryStoreOptions): MemoryStore {
    return new MemoryStore(this, options);
  }
}

interface Call {
  /** The request left this client; from here on a write's outcome may be unknown. */
  sent: boolean;
  settled: boolean;
}

/**
 * A client as far from the truth as a real one: requests and answers take time and get lost, the
 * link can be cut, and the member it talks to can freeze, in which case requests lie in its socket
 * and are carried out after the thaw, when their caller has long given up. Deterministic: all
 * chance comes from `random`, all time from `clock`.
 */
export class MemoryStore implements ClusterStore {
  readonly #truth: MemoryTruth;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #latencyMs: readonly [number, number];
  readonly #callDeadlineMs: number;
  readonly #maxBufferedEvents: number;
  readonly #progressIntervalMs: number;
  #loss: Loss = { request: 0, answer: 0 };
  #reachable = true;
  #frozen = false;
  #closed = false;
  /** Messages that lie in the frozen member's sockets, in order. */
  #held: (() => void)[] = [];
  /** Calls that have not found a member yet. */
  readonly #unsent = new Set<() => void>();
  readonly #failures = new Set<(error: Error) => void>();
  readonly #watchWakes = new Set<() => void>();

  constructor(truth: MemoryTruth, options: MemoryStoreOptions) {
    this.#truth = truth;
    this.#clock = options.clock;
    this.#random = options.random;
    const latencyMs = options.latencyMs ?? 0;
    this.#latencyMs = typeof latencyMs === 'number' ? [latencyMs, latencyMs] : latencyMs;
    this.#callDeadlineMs = options.callDeadlineMs ?? 3_500;
    this.#maxBufferedEvents = options.maxBufferedEvents ?? 10_000;
    this.#progressIntervalMs = options.progressIntervalMs ?? 1_000;
  }

  get(key: string): Promise<Read<KeyValue | null>> {
    return this.#call(
      'get',
      'read',
      () => checkKey(key),
      () => this.#truth.get(key),
    );
  }

  list(
    prefix: string,
    options: { readonly limit?: number; readonly startAfter?: string } = {},
  ): Promise<Read<readonly KeyValue[]>> {
    const limit = options.limit ?? Number.POSITIVE_INFINITY;
    return this.#call(
      'list',
      'read',
      () => checkPrefix(prefix),
      () => this.#truth.list(prefix, limit, options.startAfter),
    );
  }

  txn(transaction: Transaction): Promise<TransactionResult> {
    return this.#call(
      'txn',
      'write',
      () => checkTransaction(transaction),
      () => this.#truth.txn(transaction),
    );
  }

  async grantLease(ttlMs: number): Promise<StoreLease> {
    const claim = new LeaseClaim(ttlMs);
    const sentAtMs = this.#clock.nowMs();
    const id = await this.#call(
      'grant lease',
      'write',
      () => checkLeaseTtl(ttlMs),
      () => this.#truth.grantLease(ttlMs),
    );
    claim.acknowledge(sentAtMs);
    return {
      id,
      ttlMs,
      validUntilMs: () => claim.validUntilMs(),
      renew: () => this.#renew(id, claim),
      revoke: async () => {
        claim.end();
        await this.#call(
          'revoke lease',
          'write',
          () => {},
          () => this.#truth.revokeLease(id),
        );
      },
    };
  }

  async *watch(prefix: string, after: Revision, signal: AbortSignal): AsyncGenerator<WatchBatch, void> {
    checkPrefix(prefix);
    if (this.#closed) throw storeClosed();
    const queue = new BatchQueue(this.#maxBufferedEvents);
    let position = after;
    let lastTellMs = this.#clock.nowMs();
    let scheduled = false;
    const pump = () => {
      scheduled = false;
      if (queue.closed || !this.#reachable || this.#frozen) return;
      const changes = this.#truth.changesSince(prefix, position);
      if (changes.kind === 'compacted') {
        queue.push(changes);
        return;
      }
      if (changes.revision === position) return;
      const nowMs = this.#clock.nowMs();
      position = changes.revision;
      if (changes.events.length > 0) {
        queue.push({ kind: 'events', revision: position, events: changes.events });
      } else if (nowMs - lastTellMs < this.#progressIntervalMs) {
        return;
      } else {
        queue.push({ kind: 'progress', revision: position });
      }
      lastTellMs = nowMs;
    };
    const wake = () => {
      if (scheduled) return;
      scheduled = true;
      this.#after(this.#drawLatency(), pump);
    };
    const fail = (error: Error) => queue.fail(error);
    const abort = () => queue.abort();
    using _ = this.#truth.onChange(wake);
    this.#watchWakes.add(wake);
    this.#failures.add(fail);
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
    else wake();
    try {
      yield* queue.drain();
    } finally {
      queue.abort();
      this.#watchWakes.delete(wake);
      this.#failures.delete(fail);
      signal.removeEventListener('abort', abort);
    }
  }

  history(): Promise<StoreHistory> {
    return this.#call(
      'history',
      'read',
      () => {},
      () => this.#truth.history(),
    );
  }

  usage(): Promise<StoreUsage> {
    return this.#call(
      'usage',
      'read',
      () => {},
      () => this.#truth.usage(),
    );
  }

  compact(revision: Revision): Promise<void> {
    return this.#call(
      'compact',
      'write',
      () => {},
      () => this.#truth.compact(revision),
    );
  }

  async ping(deadlineMs: number): Promise<void> {
    await this.#call(
      'ping',
      'read',
      () => {},
      () => {},
      deadlineMs,
    );
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const fail of [...this.#failures]) fail(storeClosed());
  }

  /** Cuts or restores the link. What is under way at the cut is lost, before or after it was carried out. */
  setReachable(reachable: boolean): void {
    this.#reachable = reachable;
    this.#resume();
  }

  /** Freezes or thaws the member that this client talks to. */
  setFrozen(frozen: boolean): void {
    this.#frozen = frozen;
    if (!frozen) {
      const held = this.#held;
      this.#held = [];
      for (const deliver of held) deliver();
    }
    this.#resume();
  }

  setLoss(loss: Loss): void {
    this.#loss = loss;
  }

  async #renew(id: LeaseId, claim: LeaseClaim): Promise<void> {
    const sentAtMs = this.#clock.nowMs();
    try {
      await this.#call(
        'renew lease',
        'read',
        () => {},
        () => this.#truth.renewLease(id),
      );
      claim.acknowledge(sentAtMs);
    } catch (error) {
      if (error instanceof BusbarError && error.kind === 'precondition') claim.end();
      throw error;
    }
  }

  /** `kind` says what an unanswered call means: a read did nothing, a write may have been carried out. */
  #call<T>(
    what: string,
    kind: 'read' | 'write',
    check: () => void,
    carryOut: () => T,
    deadlineMs = this.#callDeadlineMs,
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      check();
      if (this.#closed) throw storeClosed();
      const call: Call = { sent: false, settled: false };
      const finish = (settle: () => void) => {
        if (call.settled) return;
        call.settled = true;
        deadline[Symbol.dispose]();
        this.#failures.delete(fail);
        this.#unsent.delete(send);
        settle();
      };
      const fail = (error: Error) => finish(() => reject(kind === 'write' && call.sent ? outcomeUnknown(what) : error));
      const deadline = this.#clock.timer(deadlineMs, () => fail(storeUnavailable(what)));
      const send = () => {
        if (!this.#reachable) {
          this.#unsent.add(send);
          return;
        }
        call.sent = true;
        this.#transmit(call, carryOut, (outcome) =>
          finish(() => ('error' in outcome ? reject(outcome.error) : resolve(outcome.value))),
        );
      };
      this.#failures.add(fail);
      send();
    });
  }

  /** One request and its answer across the simulated network. */
  #transmit<T>(call: Call, carryOut: () => T, answer: (outcome: Outcome<T>) => void): void {
    const requestLost = this.#random.next() < this.#loss.request;
    const answerLost = this.#random.next() < this.#loss.answer;
    const requestMs = this.#drawLatency();
    const answerMs = this.#drawLatency();
    const outlivesItsCaller = this.#random.next() < 0.5;
    const handle = () => {
      const lacksQuorum = !this.#truth.hasQuorum;
      // Without quorum the member's client tries again until its deadline; but the entry may already
      // be in a log and be committed when the quorum is back, whether or not anybody still waits.
      this.#truth.whenQuorum(() => {
        if (call.settled && lacksQuorum && !outlivesItsCaller) return;
        const outcome = attempt(carryOut);
        if (!answerLost) this.#after(answerMs, () => this.#arrive(() => answer(outcome)));
      });
    };
    if (!requestLost) this.#after(requestMs, () => this.#arrive(handle));
  }

  /** A message reaches the other end: unless the link is cut meanwhile; a frozen member leaves it unread. */
  #arrive(step: () => void): void {
    if (!this.#reachable) return;
    if (this.#frozen) this.#held.push(step);
    else step();
  }

  #after(delayMs: number, step: () => void): void {
    if (delayMs > 0) this.#clock.timer(delayMs, step);
    else queueMicrotask(step);
  }

  #drawLatency(): number {
    const [min, max] = this.#latencyMs;
    return max > min ? min + this.#random.next() * (max - min) : min;
  }

  #resume(): void {
    if (!this.#reachable) return;
    for (const send of [...this.#unsent]) {
      this.#unsent.delete(send);
      send();
    }
    for (const wake of [...this.#watchWakes]) wake();
  }
}

type Outcome<T> = { readonly value: T } | { readonly error: Error };

function attempt<T>(step: () => T): Outcome<T> {
  try {
    return { value: step() };
  } catch (error) {
    return { error: error as Error };
  }
}
