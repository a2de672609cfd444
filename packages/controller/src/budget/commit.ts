// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import { showBytes } from '@busbar/storage/errors';
import type { Transaction, TransactionResult } from '../store/cluster-store.ts';
import type { Commit } from '../store/group-commit.ts';
import { isEssential } from './essential.ts';
import type { Fill } from './fill.ts';
import { isNearlyFull, NEARLY_FULL_PERCENT, storeLevel } from './level.ts';
import { costOf, type WriteBudget } from './write-budget.ts';

/** Who writes, by which method. */
export interface Writer {
  readonly caller: { readonly name: string };
  readonly audit: { readonly method: string };
}

export type BudgetedCommit = (writer: Writer, transaction: Transaction) => Promise<TransactionResult>;

/**
 * The only way by which a call of the API writes: within its caller's budget, and while the store is nearly full only what
 * saves the plant. Throws WRITE_BUDGET_SPENT or STORE_NEARLY_FULL.
 */
export function budgetedCommit(deps: {
  readonly commit: Commit;
  readonly budget: Pick<WriteBudget, 'spend'>;
  readonly fill: () => Fill;
  readonly refused?: (reason: string) => void;
}): BudgetedCommit {
  const { commit, budget, fill, refused = () => {} } = deps;
  function admit({ caller, audit }: Writer, transaction: Transaction): () => void {
    try {
      const { store, quotaBytes } = fill();
      if (store !== null && isNearlyFull(storeLevel(store, quotaBytes)) && !isEssential(audit.method)) {
        throw nearlyFull(audit.method, store.inUseBytes, store.fileBytes, quotaBytes);
      }
      return budget.spend(caller.name, costOf(transaction));
    } catch (error) {
      if (error instanceof BusbarError) refused(error.reason);
      throw error;
    }
  }
  return async (writer, transaction) => {
    const giveBack = admit(writer, transaction);
    try {
      const result = await commit(transaction);
      if (!result.succeeded) giveBack();
      return result;
    } catch (error) {
      // Of unknown outcome: it may be written.
      if (!(error instanceof BusbarError && error.kind === 'timeout')) giveBack();
      throw error;
    }
  };
}

function nearlyFull(method: string, inUseBytes: number, fileBytes: number, quotaBytes: number): BusbarError {
  const show = (bytes: number) => showBytes(BigInt(bytes));
  return new BusbarError({
    kind: 'exhausted',
    reason: 'STORE_NEARLY_FULL',
    message:
      `the cluster store uses ${show(inUseBytes)} of its quota of ${show(quotaBytes)} (its file has ${show(fileBytes)}); ` +
      `from ${NEARLY_FULL_PERCENT} % on only what keeps the plant running is written, and ${method.replace(/^.*\//, '')} is not`,
    hint: 'delete what nobody needs (deleting, stopping and starting go on), or see "When etcd is full" in docs/operations.md',
  });
}
