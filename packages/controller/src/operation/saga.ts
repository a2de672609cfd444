// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import type { Logger } from '@busbar/core/log';
import type { OperationRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import type { StorageDriver } from '@busbar/storage/driver';
import type { Compare, Write } from '../store/cluster-store.ts';
import type { ClusterView } from '../view/view.ts';

/**
 * A saga is a change that a user asked for, as a table of steps {do, undo}. Its progress is an
 * OperationRecord: a leader that dies is continued by the next, at the step that was not yet recorded as done.
 * Hence the ground rules:
 *  - `do` and `undo` may run more than once, also after they succeeded: both are idempotent;
 *  - effects outside the store come first, what `do` returns as `writes` is committed in one fenced
 *    transaction with the step's completion: either both are seen or neither;
 *  - a step that waits for the world returns `wait` and is asked again; it blocks nothing;
 *  - a step that neither touches the pool nor writes leaves nothing behind: the next one begins at once, and both are
 *    recorded together;
 *  - a thrown error of kind unavailable or timeout is retried for RETRY_LIMIT_MS in a row; any other error, or the
 *    limit, or a cancellation, turns the saga around: undo of every step begun, last first;
 *  - `undo: null` needs a reason beside it in the table.
 */
export type SagaStep = ViewStep | PoolStep;

/** Looks at the view and at nothing else: its context has no way to the pool. */
export interface ViewStep extends AnyStep {
  readonly pool?: never;
  do(context: SagaContext): Promise<StepOutcome>;
}

/** May take minutes, or hang with the pool. That it has begun is recorded before. */
export interface PoolStep extends AnyStep {
  readonly pool: true;
  do(context: PoolContext): Promise<StepOutcome>;
}

interface AnyStep {
  readonly name: string;
  /** Returns what to write when the step's effect is gone. Retried until it succeeds. */
  readonly undo: ((context: PoolContext) => Promise<StepWrites>) | null;
  /** Once this step has begun, what was done stays: failure or cancellation ends the operation without undoing. */
  readonly pointOfNoReturn?: boolean;
  /** Once this step has begun, cancellation comes too late and is ignored: to stop here would leave half of something. */
  readonly onlyForward?: boolean;
}

export interface Saga {
  readonly name: string;
  readonly steps: readonly SagaStep[];
}

export interface StepWrites {
  readonly compare: readonly Compare[];
  readonly writes: readonly Write[];
}

export const NO_WRITES: StepWrites = { compare: [], writes: [] };

export type StepOutcome =
  | { readonly kind: 'done'; readonly writes: StepWrites; readonly facts?: Readonly<Record<string, string>> }
  | { readonly kind: 'wait'; readonly message: string };

export const DONE: StepOutcome = { kind: 'done', writes: NO_WRITES };

export function done(writes: StepWrites, facts?: Readonly<Record<string, string>>): StepOutcome {
  return facts === undefined ? { kind: 'done', writes } : { kind: 'done', writes, facts };
}

export interface SagaContext {
  readonly operation: OperationRecord;
  readonly view: ClusterView;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Monotonic milliseconds since this leader first tried the present step. */
  readonly stepAgeMs: number;
  /** Aborts when leadership ends. */
  readonly signal: AbortSignal;
}

export interface PoolContext extends SagaContext {
  readonly storage: StorageDriver;
}
