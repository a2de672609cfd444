// SPDX-License-Identifier: Apache-2.0
import { type Clock, systemClock } from '@busbar/core/clock/clock';
import { BusbarError, errorChain } from '@busbar/core/errors';
import { type Logger, silentLogger } from '@busbar/core/log';
import { type Metrics, noMetrics } from '@busbar/core/metrics';
import { move, type StateTable } from '@busbar/core/state-table';
import { ChildLink } from './child-link.ts';
import { fromWire, NATIVE_REASONS } from './errors.ts';
import { Lane, type LaneConfig } from './lane.ts';
import { type NativeMeter, nativeMeter, type Timing } from './meter.ts';
import type { MethodArgs, MethodName, MethodResult, MethodTable, ToParent } from './protocol.ts';

export interface CallOptions<L extends string> {
  /** From this call to its answer, waiting in the lane and for a child's start included. */
  readonly deadlineMs: number;
  /** Default: the lane `default`. */
  readonly lane?: L | 'default';
}

export interface NativeHostOptions<M, E, L extends string> {
  /** For logs and messages, e.g. `librados`. */
  readonly name: string;
  /** The file whose top level calls `serveNative`. */
  readonly entry: URL;
  readonly env?: Readonly<Record<string, string>>;
  readonly lanes?: Readonly<Record<L, LaneConfig>>;
  /** The lane of calls that name none [8 at once, 256 waiting]. */
  readonly defaultLane?: LaneConfig;
  /**
   * libuv's pool in the child [32]: every blocked native call holds one thread, and with all of them
   * held the child's own file and name look-ups stand still. Keep it above the sum of all lanes.
   */
  readonly threadPoolSize?: number;
  /** From spawn until the library is set up and `onStart` has finished [10 s]. */
  readonly startDeadlineMs?: number;
  /** The child's time to let go of its library at `close` [1 s]. */
  readonly closeGraceMs?: number;
  /** Wait before a respawn; doubles until the child stays up for as long as the maximum [50 ms to 5 s]. */
  readonly backoffMs?: { readonly first: number; readonly max: number };
  /**
   * Runs in every new child before any other call, to bring it into the state that the callers
   * expect. `call` passes by the lanes. A failure counts as a failed start.
   */
  readonly onStart?: (call: NativeCall<M>, generation: number) => Promise<void>;
  /** The child is gone; everything it knew (handles, subscriptions) is void. */
  readonly onLost?: (cause: BusbarError) => void;
  /** In order, synchronously: copy and return. */
  readonly onEvent?: (event: E) => void;
  /** Events were dropped because this process was too slow to read them: list everything anew. */
  readonly onEventsLost?: (count: number) => void;
  readonly clock?: Clock;
  readonly logger?: Logger;
  readonly metrics?: Metrics | undefined;
}

export type NativeCall<M> = <K extends MethodName<M>>(
  method: K,
  args: MethodArgs<M, K>,
  options: { readonly deadlineMs: number },
) => Promise<MethodResult<M, K>>;

type State = 'idle' | 'starting' | 'ready' | 'backoff' | 'closed';
const STATES: StateTable<State> = {
  idle: ['starting', 'closed'],
  starting: ['ready', 'backoff', 'closed'],
  ready: ['backoff', 'closed'],
  backoff: ['starting', 'closed'],
  closed: [],
};

/** So many failed starts in a row are waited out; after more, calls in a backoff are told at once. */
const PATIENT_FAILURES = 3;

/** The lane of calls that pass by the lanes, for whoever counts them. */
const ON_START = 'start';

interface Job {
  readonly id: number;
  readonly method: string;
  readonly args: unknown;
  readonly deadlineMs: number;
  readonly lane: Lane<Job> | null;
  readonly laneName: string;
  readonly timing: Timing;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: BusbarError) => void;
  timer: Disposable | null;
}

/**
 * A child process that hosts a C library, seen from the parent.
 *
 * A C call cannot be cancelled, may crash the process and may never return. Here that costs one
 * process: a call that passes its deadline has its child killed, everything in flight is rejected
 * (with an unknown outcome: callers repeat idempotent calls), and a new child is started after a
 * backoff. Calls made meanwhile wait for it within their own deadlines; when its start fails they
 * are rejected with the reason.
 *
 * The child starts with the first call or `start()`. It never keeps this process alive; pending
 * calls do, by their deadline timers, and so does the backoff until `close()`.
 */
export class NativeHost<M extends MethodTable<M>, E = never, L extends string = never> {
  readonly #options: NativeHostOptions<M, E, L>;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #lanes = new Map<string, Lane<Job>>();
  readonly #running = new Map<number, Job>();
  readonly #meter: NativeMeter;
  #state: State = 'idle';
  #link: ChildLink | null = null;
  #nextId = 1;
  #generation = 0;
  #failures = 0;
  #readyAtMs = 0;
  #timer: Disposable | null = null;
  #startFailure: BusbarError | null = null;

  constructor(options: NativeHostOptions<M, E, L>) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#log = options.logger ?? silentLogger;
    const configs: Record<string, LaneConfig> = {
      default: options.defaultLane ?? { concurrency: 8, queueLimit: 256 },
      ...options.lanes,
    };
    for (const [name, config] of Object.entries(configs)) {
      this.#lanes.set(name, new Lane<Job>(config, (job) => this.#send(job)));
    }
    this.#meter = nativeMeter(options.name, options.metrics ?? noMetrics, this.#clock, {
      lanes: () => [...this.#lanes].map(([name, lane]) => [name, lane.waiting.length] as const),
      running: () => this.#running.size,
      starts: () => this.#generation,
    });
  }

  /** Starts the child without waiting for a first call. */
  start(): void {
    if (this.#state === 'idle') this.#spawn();
  }

  call<K extends MethodName<M>>(
    method: K,
    args: MethodArgs<M, K>,
    options: CallOptions<L>,
  ): Promise<MethodResult<M, K>> {
    const laneName = options.lane ?? 'default';
    const lane = this.#lanes.get(laneName);
    if (lane === undefined) throw new TypeError(`${this.#options.name} has no lane "${laneName}"`);
    return this.#submit(method, args, options.deadlineMs, lane, laneName) as Promise<MethodResult<M, K>>;
  }

  /** Counts the children started so far; what an older one knew is void. */
  get generation(): number {
    return this.#generation;
  }

  /** Process id of the child that serves now; null between two. */
  get pid(): number | null {
    return this.#link?.pid ?? null;
  }

  /** Replaces a child whose library is beyond repair (e.g. its session is blocklisted). */
  restart(why: string): void {
    this.#lose(this.#error('unavailable', NATIVE_REASONS.childLost, `was restarted: ${why}`));
  }

  /** Rejects what is pending, gives the child its grace time, and resolves when it is gone or was killed. */
  async close(): Promise<void> {
    if (this.#state === 'closed') return;
    this.#to('closed');
    this.#timer?.[Symbol.dispose]();
    const link = this.#link;
    this.#link = null;
    this.#rejectAll(this.#error('unavailable', NATIVE_REASONS.closed, 'was closed'));
    await link?.end(this.#clock, this.#options.closeGraceMs ?? 1000);
  }

  #submit(
    method: string,
    args: unknown,
    deadlineMs: number,
    lane: Lane<Job> | null,
    laneName: string,
  ): Promise<unknown> {
    if (this.#state === 'closed') {
      return Promise.reject(this.#error('unavailable', NATIVE_REASONS.closed, 'was closed'));
    }
    const timing = this.#meter.offered();
    if (this.#state === 'backoff' && this.#startFailure !== null && this.#failures > PATIENT_FAILURES) {
      this.#meter.ended(timing, laneName, method, this.#startFailure);
      return Promise.reject(this.#startFailure);
    }
    this.start();
    return new Promise((succeed, fail) => {
      const resolve = (value: unknown) => {
        this.#meter.ended(timing, laneName, method, null);
        succeed(value);
      };
      const reject = (error: BusbarError) => {
        this.#meter.ended(timing, laneName, method, error);
        fail(error);
      };
      const id = this.#nextId++;
      const job: Job = { id, method, args, deadlineMs, lane, laneName, timing, resolve, reject, timer: null };
      job.timer = this.#clock.timer(deadlineMs, () => this.#expire(job));
      if (lane === null) {
        this.#send(job);
        return;
      }
      if (lane.offer(job)) return;
      this.#settle(job);
      reject(this.#error('unavailable', NATIVE_REASONS.queueFull, `takes no more calls: too many wait (${method})`));
    });
  }

  #send(job: Job): void {
    this.#running.set(job.id, job);
    this.#meter.sent(job.timing, job.laneName);
    try {
      this.#link?.post({ t: 'call', id: job.id, method: job.method, args: job.args });
    } catch (cause) {
      // The arguments cannot be cloned: a bug of this caller alone.
      this.#finish(job);
      job.reject(this.#error('internal', NATIVE_REASONS.failed, `cannot pass the arguments of ${job.method}`, cause));
    }
  }

  #expire(job: Job): void {
    const error = this.#error(
      'timeout',
      NATIVE_REASONS.deadline,
      `did not answer ${job.method} within ${job.deadlineMs} ms`,
    );
    if (job.lane?.drop(job)) {
      job.reject(error);
      return;
    }
    // One more turn of the event loop: after a stall of this process (suspend, long GC) the answer
    // may be in the channel already, and killing a healthy child would be wrong.
    setImmediate(() => {
      if (this.#running.get(job.id) !== job) return;
      this.#finish(job);
      job.reject(error);
      this.#lose(error);
    });
  }

  #settle(job: Job): void {
    job.timer?.[Symbol.dispose]();
    job.timer = null;
  }

  #finish(job: Job): void {
    this.#settle(job);
    if (this.#running.delete(job.id)) job.lane?.done();
  }

  #spawn(): void {
    this.#to('starting');
    this.#generation++;
    const startDeadlineMs = this.#options.startDeadlineMs ?? 10_000;
    this.#timer = this.#clock.timer(startDeadlineMs, () =>
      this.#lose(this.#error('unavailable', NATIVE_REASONS.startFailed, `did not start within ${startDeadlineMs} ms`)),
    );
    const link: ChildLink = new ChildLink({
      entry: this.#options.entry,
      env: { ...this.#options.env, UV_THREADPOOL_SIZE: String(this.#options.threadPoolSize ?? 32) },
      onMessage: (message) => {
        if (this.#link === link) this.#receive(message, link);
      },
      onExit: (how) => {
        if (this.#link === link) this.#lose(this.#error('unavailable', NATIVE_REASONS.childLost, how));
      },
      onOutput: (line) => this.#log.warn({ native: this.#options.name, pid: link.pid }, line),
    });
    this.#link = link;
  }

  #receive(message: ToParent, link: ChildLink): void {
    switch (message.t) {
      case 'ready':
        void this.#prepare(link);
        return;
      case 'broken': {
        const cause = fromWire(message.error);
        const what = `cannot start: ${cause.message}`;
        this.#lose(this.#error('unavailable', NATIVE_REASONS.startFailed, what, cause));
        return;
      }
      case 'ok':
      case 'fail': {
        const job = this.#running.get(message.id);
        if (job === undefined) return;
        this.#finish(job);
        if (message.t === 'ok') job.resolve(message.value);
        else job.reject(fromWire(message.error));
        return;
      }
      case 'event':
        this.#options.onEvent?.(message.event as E);
        return;
      case 'lost':
        this.#log.warn({ native: this.#options.name, count: message.count }, 'events were dropped');
        this.#options.onEventsLost?.(message.count);
        return;
    }
  }

  async #prepare(link: ChildLink): Promise<void> {
    const call: NativeCall<M> = (method, args, options) =>
      this.#submit(method, args, options.deadlineMs, null, ON_START) as Promise<MethodResult<M, typeof method>>;
    try {
      await this.#options.onStart?.(call, this.#generation);
    } catch (cause) {
      if (this.#link !== link) return;
      const what = `cannot start: ${errorChain(cause)}`;
      this.#lose(this.#error('unavailable', NATIVE_REASONS.startFailed, what, cause));
      return;
    }
    if (this.#link !== link || this.#state !== 'starting') return;
    this.#timer?.[Symbol.dispose]();
    this.#to('ready');
    this.#readyAtMs = this.#clock.nowMs();
    this.#log.debug({ native: this.#options.name, pid: link.pid, generation: this.#generation }, 'native child ready');
    for (const lane of this.#lanes.values()) lane.open();
  }

  /** Does not wait for the child's death: a process in uninterruptible sleep may take for ever to go. */
  #lose(cause: BusbarError): void {
    const link = this.#link;
    if (link === null) return;
    this.#link = null;
    link.kill();
    this.#timer?.[Symbol.dispose]();
    const backoff = this.#options.backoffMs ?? { first: 50, max: 5000 };
    const stable = this.#state === 'ready' && this.#clock.nowMs() - this.#readyAtMs >= backoff.max;
    this.#failures = stable ? 1 : this.#failures + 1;
    const delayMs = Math.min(backoff.max, backoff.first * 2 ** Math.min(this.#failures - 1, 20));
    this.#startFailure = cause.reason === NATIVE_REASONS.startFailed ? cause : null;
    this.#to('backoff');
    this.#log.warn(
      { native: this.#options.name, pid: link.pid, failures: this.#failures, delayMs, lastOutput: link.lastOutput },
      `native child lost: ${cause.message}`,
    );
    this.#timer = this.#clock.timer(delayMs, () => this.#spawn());
    this.#rejectAll(
      cause.reason === NATIVE_REASONS.deadline
        ? this.#error('unavailable', NATIVE_REASONS.childLost, 'was killed because another call hung', cause)
        : cause,
    );
    this.#options.onLost?.(cause);
  }

  /** Waiting calls too: their arguments may name handles that died with the child. */
  #rejectAll(error: BusbarError): void {
    const jobs = [...this.#running.values()];
    this.#running.clear();
    for (const lane of this.#lanes.values()) {
      lane.shut();
      jobs.push(...lane.waiting);
      for (const job of [...lane.waiting]) lane.drop(job);
    }
    for (const job of jobs) {
      this.#settle(job);
      job.reject(error);
    }
  }

  #error(kind: 'unavailable' | 'timeout' | 'internal', reason: string, what: string, cause?: unknown): BusbarError {
    return new BusbarError({ kind, reason, message: `${this.#options.name} ${what}`, cause });
  }

  #to(state: State): void {
    this.#state = move(STATES, this.#state, state);
  }
}
