// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import type { ClusterStore, Compare, Transaction, TransactionResult } from './cluster-store.ts';
import { storeUnavailable } from './errors.ts';
import { MAX_TRANSACTION_OPERATIONS } from './request.ts';

/**
 * Group commit, as databases do it: what arrives while a transaction is under way goes to the store together, in one
 * transaction. One consensus round and one flush of three disks then serve many callers; a caller alone waits for nobody.
 *
 * Transactions share one only if none writes what another compares or writes: then one after the other would end the same.
 * When a comparison of the joint one fails, nobody knows whose: each is sent by itself, and has its own result.
 */
export type Commit = (transaction: Transaction) => Promise<TransactionResult>;

/**
 * One is being agreed upon by the members while the next is being put together. The second one goes only when half as
 * many as lately went together are waiting: each costs the three members the same, and callers whom one transaction has
 * answered come back one after the other. Without that, 16 callers went as 1, 1 and 14.
 */
const IN_FLIGHT_MAX = 2;
/** Records are a few KB; far below the store's 768 KiB, and small enough not to delay a heartbeat of etcd. */
const JOINT_BYTES_MAX = 256 * 1024;
/** A backlog of seconds: who comes later is better told at once. */
const WAITING_MAX = 4_096;

interface Waiting {
  readonly transaction: Transaction;
  readonly bytes: number;
  readonly resolve: (result: TransactionResult) => void;
  readonly reject: (error: unknown) => void;
}

export function groupCommit(store: Pick<ClusterStore, 'txn'>): Commit {
  let waiting: Waiting[] = [];
  let inFlight = 0;
  /** How many went together lately; halved by each smaller group. */
  let usual = 1;

  const isWorthIt = () => inFlight === 0 || (inFlight < IN_FLIGHT_MAX && waiting.length >= usual / 2);

  function next(): void {
    while (waiting.length > 0 && isWorthIt()) {
      const { group, rest } = gather(waiting);
      waiting = rest;
      inFlight++;
      usual = Math.max(group.length, usual / 2);
      void send(group).finally(() => {
        inFlight--;
        next();
      });
    }
  }

  async function send(group: readonly Waiting[]): Promise<void> {
    const [first] = group;
    if (group.length === 1 && first !== undefined) return alone(first);
    let joint: TransactionResult;
    try {
      joint = await store.txn(join(group));
    } catch (error) {
      if (isStoreTrouble(error)) return giveUp(group, error);
      // It is about one of them (a lease that is gone, a value that the store refuses): which one, it says by itself.
      await Promise.all(group.map(alone));
      return;
    }
    if (joint.succeeded) for (const { resolve } of group) resolve(joint);
    else await Promise.all(group.map(alone));
  }

  async function alone({ transaction, resolve, reject }: Waiting): Promise<void> {
    try {
      resolve(await store.txn(transaction));
    } catch (error) {
      if (isStoreTrouble(error)) giveUp([], error);
      reject(error);
    }
  }

  /** Those that wait behind a store that does not answer would each wait a deadline more; nothing of theirs was sent. */
  function giveUp(sent: readonly Waiting[], error: unknown): void {
    for (const { reject } of sent) reject(error);
    for (const { reject } of waiting) reject(storeUnavailable('the writes before this one', error));
    waiting = [];
  }

  return (transaction) =>
    new Promise((resolve, reject) => {
      if (waiting.length >= WAITING_MAX) {
        reject(
          new BusbarError({
            kind: 'exhausted',
            reason: 'TOO_MANY_WRITES',
            message: `${waiting.length} changes wait for the cluster store; nothing was changed`,
            hint: 'send it again in a few seconds',
          }),
        );
        return;
      }
      waiting.push({ transaction, bytes: sizeOf(transaction), resolve, reject });
      // In a microtask, so that callers which wake together go together.
      queueMicrotask(next);
    });
}

/** The first in line, and whoever can go with it. */
function gather(waiting: readonly Waiting[]): { readonly group: readonly Waiting[]; readonly rest: Waiting[] } {
  const group: Waiting[] = [];
  const rest: Waiting[] = [];
  const touched = new Set<string>();
  const written = new Set<string>();
  let [bytes, compares, writes] = [0, 0, 0];
  for (const each of waiting) {
    const { compare, writes: own } = each.transaction;
    const fits =
      group.length === 0 ||
      (bytes + each.bytes <= JOINT_BYTES_MAX &&
        compares + compare.length <= MAX_TRANSACTION_OPERATIONS &&
        writes + own.length <= MAX_TRANSACTION_OPERATIONS &&
        own.every(({ key }) => !touched.has(key)) &&
        compare.every(({ key }) => !written.has(key)));
    if (fits) {
      group.push(each);
      bytes += each.bytes;
      compares += compare.length;
      writes += own.length;
    } else rest.push(each);
    // Also of those left behind: who comes after them must not overtake them on the same key.
    for (const { key } of own) {
      written.add(key);
      touched.add(key);
    }
    for (const { key } of compare) touched.add(key);
  }
  return { group, rest };
}

function join(group: readonly Waiting[]): Transaction {
  // What several compare, the leader's fence for one, is compared once.
  const compare = new Map<string, Compare>();
  for (const { transaction } of group)
    for (const each of transaction.compare) compare.set(`${each.target} ${each.revision} ${each.key}`, each);
  return {
    compare: [...compare.values()],
    writes: group.flatMap(({ transaction }) => transaction.writes),
  };
}

function sizeOf({ writes }: Transaction): number {
  return writes.reduce((sum, write) => sum + (write.kind === 'put' ? write.value.length : 0), 0);
}

/** Not about what was asked: nothing answered, or nobody knows what became of it. */
function isStoreTrouble(error: unknown): boolean {
  return error instanceof BusbarError && (error.kind === 'unavailable' || error.kind === 'timeout');
}
