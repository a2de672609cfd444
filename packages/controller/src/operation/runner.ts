// SPDX-License-Identifier: Apache-2.0

import type { Clock } from '@busbar/core/clock/clock';
import { errorChain } from '@busbar/core/errors';
import type { Revision } from '@busbar/core/ids';
import { type Logger, withFields } from '@busbar/core/log';
import type { OperationRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import type { ErrorInfo } from '@busbar/proto/gen/busbar/v1/common';
import { OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import type { StorageDriver } from '@busbar/storage/driver';
import { toErrorInfo } from '../api/error-info.ts';
import { isTransient, type Leader } from '../leader/leader.ts';
import { putRecord } from '../records/kinds.ts';
import { type Entry, unchanged } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';
import { operationFields } from './log-fields.ts';
import * as progress from './progress.ts';
import { NO_WRITES, type PoolContext, type Saga, type SagaStep, type StepOutcome, type StepWrites } from './saga.ts';
import { ENDED } from './state.ts';

/**
 * Runs the sagas: at most one step of an operation at a time by this leader, operations on one target in the order in which
 * they were accepted, up to MAX_PARALLEL at once of those that touch the pool and of those that do not. Owns every
 * OperationRecord while it leads. Whatever it remembers in memory (retry times) may be lost without harm.
 *
 * Race: a step that a deposed leader began may still run while its successor runs it again. What it would write is
 * fenced and fails; what it does to the pool is idempotent, and storage calls never remove what may be complete.
 *
 * A write that fails its comparison is not an error: somebody (the API: cancellation; the VM reconciler: status)
 * was faster. The step runs again on what the view then shows.
 */

/**
 * Parallel steps: enough to keep the pool and the hosts busy, few enough not to swamp two cores. Steps that touch the pool
 * have slots of their own: Ceph may keep them waiting for minutes, and stopping a VM must not wait for that.
 */
const MAX_PARALLEL = 8;
/** How long a step may fail with "unavailable" or "timeout" before the saga turns around: a Ceph or etcd restart takes tens of seconds. */
export const RETRY_LIMIT_MS = 120_000;
/** First and longest pause between two tries of a step. */
const RETRY_FIRST_MS = 200;
const RETRY_MAX_MS = 5_000;

interface Attempt {
  readonly step: number;
  readonly undoing: boolean;
  readonly firstTryMs: number;
  /** Since when every try of the step failed; null when the last one did not. */
  failingSinceMs: number | null;
  failures: number;
  notBeforeMs: number;
  racesLost: number;
  /** What the step saw when it said that it waits, if it waits for the view alone: it looks again at whatever is newer. */
  waitsSince: Revision | null;
}

export class SagaRunner {
  readonly #sagas: ReadonlyMap<string, Saga>;
  readonly #view: ClusterView;
  readonly #storage: StorageDriver;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #leader: Leader;
  /** The operations under way, and whether they are busy with the pool. */
  readonly #running = new Map<string, { readonly pool: boolean; readonly ended: Promise<void> }>();
  readonly #attempts = new Map<string, Attempt>();
  /** Somebody found no free slot in the last tick. */
  #crowded = false;

  constructor(deps: {
    readonly sagas: readonly Saga[];
    readonly view: ClusterView;
    readonly storage: StorageDriver;
    readonly clock: Clock;
    readonly logger: Logger;
    readonly leader: Leader;
  }) {
    this.#sagas = new Map(deps.sagas.map((saga) => [saga.name, saga]));
    this.#view = deps.view;
    this.#storage = deps.storage;
    this.#clock = deps.clock;
    this.#log = deps.logger;
    this.#leader = deps.leader;
  }

  /** Starts what can be started now; never waits. `wake` is called when a step ended, so that the next can begin. */
  tick(wake: () => void, mayRun: (saga: string) => boolean = () => true): void {
    this.#crowded = false;
    for (const entry of this.#due()) {
      if (!mayRun(entry.record.saga)) continue;
      const pool = this.#touchesPool(entry.record);
      const busy = [...this.#running.values()].filter((other) => other.pool === pool).length;
      if (busy >= MAX_PARALLEL) {
        this.#crowded = true;
        continue;
      }
      const ended = this.#advance(entry)
        .catch((error: unknown) => {
          this.#logOf(entry).warn({ err: error }, 'saga step could not be recorded');
          this.#backOff(entry);
        })
        .finally(() => {
          this.#running.delete(entry.id);
          if (this.#crowded || !this.#hasNothingNew(entry.id)) wake();
        });
      this.#running.set(entry.id, { pool, ended });
    }
  }

  /** Resolves when nothing that was begun is still under way. */
  async settled(): Promise<void> {
    await Promise.all([...this.#running.values()].map(({ ended }) => ended));
  }

  /** Operations whose turn it is: not ended, not running, not backing off, and first in line for their target. */
  #due(): readonly Entry<OperationRecord>[] {
    const now = this.#clock.nowMs();
    const active = [...this.#view.tables.operation.sorted()]
      .filter((entry) => !ENDED.has(progress.operationOf(entry.record).state))
      .sort((a, b) => (a.createRevision < b.createRevision ? -1 : 1));
    const live = new Set(active.map((entry) => entry.id));
    for (const id of this.#attempts.keys()) if (!live.has(id)) this.#attempts.delete(id);
    const targets = new Set<string>();
    return active.filter((entry) => {
      const target = progress.operationOf(entry.record).target?.id ?? entry.id;
      const first = !targets.has(target);
      targets.add(target);
      if (!first || this.#running.has(entry.id)) return false;
      const attempt = this.#attempts.get(entry.id);
      if (attempt === undefined || attempt.notBeforeMs <= now) return true;
      return attempt.waitsSince !== null && !this.#hasNothingNew(entry.id);
    });
  }

  /** It waits for the view, which has not changed since. */
  #hasNothingNew(id: string): boolean {
    const since = this.#attempts.get(id)?.waitsSince ?? null;
    return since !== null && since >= this.#view.revision;
  }

  async #advance(entry: Entry<OperationRecord>): Promise<void> {
    const operation = progress.operationOf(entry.record);
    const saga = this.#sagas.get(entry.record.saga);
    const now = this.#clock.wallTime();
    if (saga === undefined) {
      // Written by a newer version: leave it to a controller that knows it.
      this.#logOf(entry).error({}, 'unknown saga');
      return this.#backOff(entry);
    }
    if (operation.state === OperationState.UNDOING) return this.#undo(entry, saga);
    const begins = operation.state === OperationState.PENDING;
    return this.#do(entry, saga, begins ? progress.begun(entry.record, now) : entry.record);
  }

  /** Does the step that `record` is at, which may be ahead of what is stored by steps that left nothing behind. */
  async #do(entry: Entry<OperationRecord>, saga: Saga, record: OperationRecord): Promise<void> {
    const step = stepOf(saga, record);
    if (step.pool && record !== entry.record) return this.#commit(entry, NO_WRITES, record);
    const attempt = this.#attempt(entry.id, record);
    const tooLate = saga.steps.slice(0, record.step + 1).some((each) => each.onlyForward);
    if (progress.operationOf(record).cancelRequested && !tooLate)
      return this.#turnAround(entry, saga, record, progress.CANCELLED);
    attempt.waitsSince = null;
    const seen = this.#view.revision;
    let outcome: StepOutcome;
    try {
      outcome = await step.do(this.#context(entry, record, attempt));
    } catch (error) {
      return this.#failed(entry, saga, record, attempt, error);
    }
    attempt.failures = 0;
    attempt.failingSinceMs = null;
    if (outcome.kind === 'wait') {
      if (record !== entry.record || outcome.message !== progress.operationOf(record).message)
        return this.#commit(entry, NO_WRITES, progress.waiting(record, outcome.message));
      // Looking at the view costs nothing. Who asks the pool does so in its own time.
      attempt.waitsSince = step.pool ? null : seen;
      attempt.notBeforeMs = this.#clock.nowMs() + RETRY_FIRST_MS;
      return;
    }
    const next = progress.stepDone(record, outcome.facts ?? {}, this.#clock.wallTime());
    const leftNothing = !step.pool && outcome.writes.writes.length === 0 && outcome.writes.compare.length === 0;
    if (leftNothing && next.step < saga.steps.length) return this.#do(entry, saga, next);
    try {
      await this.#commit(entry, outcome.writes, next);
    } catch (error) {
      // What the store cannot take now, or may have taken, says nothing about the step: it is done again on what the
      // view then shows. What the store refuses for good (too large, say) does.
      if (isTransient(error)) throw error;
      await this.#turnAround(entry, saga, record, toErrorInfo(error));
    }
  }

  async #failed(
    entry: Entry<OperationRecord>,
    saga: Saga,
    record: OperationRecord,
    attempt: Attempt,
    error: unknown,
  ): Promise<void> {
    if (this.#leader.signal.aborted) return;
    const now = this.#clock.nowMs();
    attempt.failingSinceMs ??= now;
    // Only failures in a row count: a step may wait for hours before its first one.
    const tooLong = now - attempt.failingSinceMs > RETRY_LIMIT_MS;
    if (!isTransient(error) || tooLong) return this.#turnAround(entry, saga, record, toErrorInfo(error));
    const { name } = stepOf(saga, record);
    this.#logOf(entry).warn({ step: name, err: error }, 'saga step failed; will retry');
    this.#backOff(entry);
    const message = `${name}: ${errorChain(error)}; retrying`;
    if (record !== entry.record || message !== progress.operationOf(record).message)
      await this.#commit(entry, NO_WRITES, progress.waiting(record, message));
  }

  async #undo(entry: Entry<OperationRecord>, saga: Saga): Promise<void> {
    const { record } = entry;
    const step = stepOf(saga, record);
    try {
      const attempt = this.#attempt(entry.id, record);
      const writes = step.undo === null ? NO_WRITES : await step.undo(this.#context(entry, record, attempt));
      await this.#commit(entry, writes, progress.stepUndone(entry.record, saga.steps, this.#clock.wallTime()));
    } catch (error) {
      if (this.#leader.signal.aborted) return;
      // Giving up would leave half a change behind: an undo is retried until it succeeds.
      this.#logOf(entry).warn({ step: step.name, err: error }, 'undo failed; will retry');
      this.#backOff(entry);
    }
  }

  #turnAround(entry: Entry<OperationRecord>, saga: Saga, record: OperationRecord, error: ErrorInfo): Promise<void> {
    const stays = saga.steps.slice(0, record.step + 1).some((step) => step.pointOfNoReturn);
    this.#logOf(entry).warn({ reason: error.reason, problem: error.message, undo: !stays }, 'operation fails');
    const change = stays ? progress.stopped : progress.turnedAround;
    return this.#commit(entry, NO_WRITES, change(record, error, this.#clock.wallTime()));
  }

  async #commit(entry: Entry<OperationRecord>, writes: StepWrites, next: OperationRecord): Promise<void> {
    const result = await this.#leader.txn({
      compare: [unchanged('operation', entry), ...writes.compare],
      writes: [putRecord('operation', entry.id, next), ...writes.writes],
    });
    if (!result.succeeded) return this.#lostRace(entry);
    this.#tellChange(entry, next);
    await this.#view.waitFor(result.revision);
  }

  /** The first race that an operation loses costs it a look at what the others wrote, the next ones a pause besides. */
  async #lostRace(entry: Entry<OperationRecord>): Promise<void> {
    const attempt = this.#attempt(entry.id, entry.record);
    if (attempt.racesLost++ > 0) return this.#backOff(entry);
    await this.#view.fresh();
  }

  /** Where an operation begins, turns around and ends: with the lines about its steps, the story of its id. */
  #tellChange(entry: Entry<OperationRecord>, next: OperationRecord): void {
    const [from, to] = [progress.operationOf(entry.record).state, progress.operationOf(next).state];
    if (from === to) return;
    const { method, createdBy, requestId } = progress.operationOf(next);
    this.#logOf(entry).info({ method, caller: createdBy, requestId, from, to }, 'operation changes state');
  }

  #logOf(entry: Entry<OperationRecord>): Logger {
    return withFields(this.#log, operationFields(entry.id, entry.record));
  }

  /** What is remembered of the step that `record` is at, or of a later one that was tried before it could be recorded. */
  #attempt(id: string, record: OperationRecord): Attempt {
    const { step } = record;
    const undoing = progress.operationOf(record).state === OperationState.UNDOING;
    const known = this.#attempts.get(id);
    if (known?.undoing === undoing && (undoing ? known.step === step : known.step >= step)) return known;
    const fresh: Attempt = {
      step,
      undoing,
      firstTryMs: this.#clock.nowMs(),
      failingSinceMs: null,
      failures: 0,
      notBeforeMs: 0,
      racesLost: 0,
      waitsSince: null,
    };
    this.#attempts.set(id, fresh);
    return fresh;
  }

  #backOff(entry: Entry<OperationRecord>): void {
    const attempt = this.#attempt(entry.id, entry.record);
    const pause = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** attempt.failures);
    attempt.failures++;
    attempt.waitsSince = null;
    attempt.notBeforeMs = this.#clock.nowMs() + pause;
    // The leader's timer calls tick again within a second at most.
  }

  #context(entry: Entry<OperationRecord>, record: OperationRecord, attempt: Attempt): PoolContext {
    return {
      operation: record,
      view: this.#view,
      storage: this.#storage,
      clock: this.#clock,
      logger: this.#logOf(entry),
      stepAgeMs: this.#clock.nowMs() - attempt.firstTryMs,
      signal: this.#leader.signal,
    };
  }

  /** Undoing counts as such: most of it is. */
  #touchesPool(record: OperationRecord): boolean {
    const { state } = progress.operationOf(record);
    // What has not begun only records that it has, before it does so.
    if (state === OperationState.PENDING) return false;
    return state === OperationState.UNDOING || this.#sagas.get(record.saga)?.steps[record.step]?.pool === true;
  }
}

function stepOf(saga: Saga, { step: index, operation }: OperationRecord): SagaStep {
  const step = saga.steps[index];
  if (step === undefined) throw new Error(`operation ${operation?.id}: no step ${index} in ${saga.name}`);
  return step;
}
