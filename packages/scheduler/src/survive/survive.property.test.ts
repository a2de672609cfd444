// SPDX-License-Identifier: Apache-2.0
/**
 * The verdict about losses against a restart in which everything is tried: random states of 3 or 4 hosts.
 * BUSBAR_PROPERTY_RUNS and BUSBAR_SEED as in planner.property.test.ts.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Host, PlacementPolicy, SurvivePolicy } from '../model.ts';
import { createPlanner, type Planner } from '../planner.ts';
import type { ClusterBounds } from '../testing/arbitrary.ts';
import { historyOf, play, runs, TIMEOUT_MS } from '../testing/history.ts';
import { World } from '../testing/oracle.ts';

const BOUNDS: ClusterBounds = { hosts: [3, 4], nodesMax: 2, coresMax: 3, vcpusMax: 3, survive: ['off'] };
const POLICIES: readonly SurvivePolicy[] = ['any-one-host', 'any-one-failure-domain'];

describe('the failover plan', () => {
  it(
    'has a place for every HA VM exactly when a restart that tries everything finds them',
    () => {
      fc.assert(
        fc.property(historyOf(BOUNDS, 9), fc.constantFrom(...POLICIES), (history, survive) => {
          const { placed } = play(history);
          const policy = { ...history.policy, survive };
          const planner = createPlanner({ hosts: history.hosts, placed, policy });
          drillsAreTrue(planner, history.hosts, policy);
        }),
        runs(1000),
      );
    },
    TIMEOUT_MS,
  );

  it(
    'stays so while VMs come and go, whether they are admitted or not',
    () => {
      fc.assert(
        fc.property(historyOf(BOUNDS, 9), fc.constantFrom(...POLICIES), (history, survive) => {
          const policy = { ...history.policy, survive };
          const planner = createPlanner({ hosts: history.hosts, placed: [], policy });
          const known = new Set<string>();
          play(history, ({ placed }) => {
            for (const each of placed) if (!known.has(each.vm.id)) planner.take(each);
            for (const id of known) {
              const still = placed.find(({ vm }) => vm.id === id);
              if (still === undefined) planner.release(id as never);
            }
            known.clear();
            for (const { vm } of placed) known.add(vm.id);
            drillsAreTrue(planner, history.hosts, policy);
          });
        }),
        runs(60),
      );
    },
    TIMEOUT_MS,
  );
});

describe('admission', () => {
  it(
    'lets a VM in exactly when there is a placement with which every loss is survived',
    () => {
      fc.assert(
        fc.property(historyOf({ ...BOUNDS, survive: POLICIES }, 8), (history) => {
          play(history, ({ planner, world, vm, placed }) => {
            const decided = planner.decide(vm);
            const verdicts = planner.explain(vm);
            expect(verdicts.some(({ fits }) => fits)).toBe(decided.ok);
            if (decided.ok) {
              expect(world.complaints(vm, decided.value)).toEqual([]);
              world.put({ vm, placement: decided.value });
              expect(world.survivesAll()).toBe(true);
              world.drop(vm.id);
            } else {
              for (const placement of world.placements(vm)) {
                world.put({ vm, placement });
                const survived = world.survivesAll();
                world.drop(vm.id);
                expect(survived, `${JSON.stringify(placement)} would do: ${decided.error.summary}`).toBe(false);
              }
            }
            const fresh = createPlanner({ hosts: history.hosts, placed, policy: history.policy });
            expect(fresh.decide(vm).ok).toBe(decided.ok);
            drillsAreTrue(planner, history.hosts, history.policy);
          });
        }),
        runs(60),
      );
    },
    TIMEOUT_MS,
  );
});

/** Each plan: its moves can be made one after the other on what is left, and nobody is homeless without need. */
function drillsAreTrue(planner: Planner, hosts: readonly Host[], policy: PlacementPolicy): void {
  const placed = planner.placed();
  const world = new World(hosts, policy, placed);
  const drills = planner.drills();
  const names = (sets: Iterable<Iterable<string>>) => [...sets].map((set) => [...set].toSorted().join(' ')).toSorted();
  expect(names(drills.map((drill) => drill.hosts))).toEqual(names(world.losses()));
  for (const { hosts: lost, moves, homeless } of drills) {
    const gone = new Set<string>(lost);
    const left = new World(
      hosts,
      policy,
      placed.filter(({ placement }) => !gone.has(placement.host)),
    );
    const members = placed.filter(({ vm, placement }) => vm.ha && gone.has(placement.host)).map(({ vm }) => vm.id);
    expect([...moves.map(({ vm }) => vm.id), ...homeless.map(({ id }) => id)].toSorted()).toEqual(members.toSorted());
    for (const { vm, placement } of moves) {
      expect(gone.has(placement.host)).toBe(false);
      expect(left.complaints(vm, placement), `${vm.id} after the loss of ${lost.join(', ')}`).toEqual([]);
      left.put({ vm, placement });
    }
    if (homeless.length > 0) {
      expect(world.survives(gone), `${homeless.map(({ id }) => id).join(', ')} have a place`).toBe(false);
    }
  }
}
