// SPDX-License-Identifier: Apache-2.0
import { LEADER_KEY } from '@busbar/controller/leadership/leadership';
import type { Transaction, TransactionResult } from '@busbar/controller/store/cluster-store';
import { seededRandom } from '@busbar/core/random';
import { OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import { describe, expect, it } from 'vitest';
import { ended, outcomeOf, STORIES } from './sagas.ts';
import { World } from './world.ts';

/**
 * Goal: of two that both sent what leaders send, only the newer one's writes count. Method: the etcd member beside the
 * leader freezes in the middle of a VM's creation, at a moment drawn from the seed, so that what the leader sends lies there
 * unread; another one leads; then the member thaws and carries the old leader's writes out, late. Every transaction that
 * reaches the store is written down, with the term that it carries.
 */
interface Sent {
  readonly term: bigint;
  readonly succeeded: boolean;
  /** All that it compares besides the term held: the term alone refused it. */
  readonly restHeld: boolean;
  /** The newest term of the store when it arrived. */
  readonly newest: bigint;
}

function writeDown(world: World): readonly Sent[] {
  const sent: Sent[] = [];
  const { truth } = world;
  const carryOut = truth.txn.bind(truth);
  let newest = 0n;
  truth.txn = (transaction: Transaction): TransactionResult => {
    newest = truth.get(LEADER_KEY).value?.createRevision ?? newest;
    const fence = transaction.compare.find(({ key, revision }) => key === LEADER_KEY && revision !== 0n);
    const restHeld = transaction.compare.every(({ key, target, revision }) => {
      const { value } = truth.get(key);
      const is = (target === 'mod' ? value?.modRevision : value?.createRevision) ?? 0n;
      return key === LEADER_KEY || is === revision;
    });
    const result = carryOut(transaction);
    if (fence !== undefined) sent.push({ term: fence.revision, succeeded: result.succeeded, restHeld, newest });
    return result;
  };
  return sent;
}

async function play(seed: number): Promise<{ readonly late: readonly Sent[]; readonly trace: readonly string[] }> {
  const world = new World({ seed });
  const random = seededRandom(seed * 31);
  const story = STORIES['create-vm'];
  if (story === undefined) throw new Error('no story');
  const sent = writeDown(world);
  const hosts = () => world.controller('host1').view.tables['host-status'].sorted();
  const ready = () => hosts().filter(({ record }) => record.state === 'HOST_STATE_READY').length === 3;
  await world.until(() => world.leaderName() !== null && ready(), 40_000, 'a ready cluster');
  await story.prepare(world);
  const old = world.leaderName() ?? '';
  await story.call(world);
  await world.clock.advance(random.next() * 150);
  world.freezeStore(old, true);
  await world.until(() => ![null, old].includes(world.leaderName()), 20_000, 'another leader');
  // At once: the new leader has hardly begun, so that what is late may still fit but for its term.
  await world.clock.advance(random.next() * 20);
  const before = sent.length;
  const deposed = world.truth.get(LEADER_KEY).value?.createRevision ?? 0n;
  world.freezeStore(old, false);
  await ended(world);
  await world.clock.advance(15_000);
  expect(outcomeOf(world)).toMatchObject({
    vms: [{ name: 'relay-1', epoch: 1n, runs: 1, whereItShould: true }],
    volumes: [{ inPool: expect.anything() }, { inPool: expect.anything() }],
    lost: { keys: [], missing: [], volumes: [], images: [] },
  });
  const operations = world.controller('host1').view.tables.operation.sorted();
  expect(operations.map(({ record }) => record.operation?.state)).toEqual([OperationState.SUCCEEDED]);
  return { late: sent.slice(before).filter(({ term }) => term < deposed), trace: world.trace };
}

describe('a leader that was frozen while another took over', { timeout: 60_000 }, () => {
  const refused = { all: 0, byTheTermAlone: 0 };

  it.each(Array.from({ length: 30 }, (_, i) => i + 1))('seed %i: writes nothing when it thaws', async (seed) => {
    const { late } = await play(seed);
    expect(late.filter(({ succeeded }) => succeeded)).toEqual([]);
    refused.all += late.length;
    refused.byTheTermAlone += late.filter(({ restHeld }) => restHeld).length;
  });

  it('did send such writes, and the term alone refused some of them', () => {
    expect(refused.all).toBeGreaterThan(0);
    expect(refused.byTheTermAlone).toBeGreaterThan(0);
  });
});
