// SPDX-License-Identifier: Apache-2.0
import type { PoolContext, SagaStep, StepOutcome } from './saga.ts';

/** The step with something before, after or instead of what it does. */
export function around(
  step: SagaStep,
  work: (run: () => Promise<StepOutcome>, context: PoolContext) => Promise<StepOutcome>,
): SagaStep {
  // The runner gives every step the same context; only the type of one that looks at the view hides the pool.
  return { ...step, do: (context: PoolContext) => work(() => step.do(context), context) } as SagaStep;
}
