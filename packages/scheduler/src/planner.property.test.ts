// SPDX-License-Identifier: Apache-2.0
/**
 * Random small clusters are filled and emptied, and every answer of the planner is held against the rules as the oracle knows
 * them. BUSBAR_PROPERTY_RUNS=20000 runs longer; BUSBAR_SEED=… another sequence. A failure prints its seed and its smallest case.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Ledger } from './capacity/ledger.ts';
import { topologyOf } from './capacity/topology.ts';
import { CHECKER_NAMES, type Host, type PlacedVm, type PlacementPolicy, type Snapshot, type Vm } from './model.ts';
import { createPlanner } from './planner.ts';
import { type ClusterBounds, named } from './testing/arbitrary.ts';
import { historyOf, play, runs, TIMEOUT_MS } from './testing/history.ts';
import { World } from './testing/oracle.ts';

const SMALL: ClusterBounds = { hosts: [1, 4], nodesMax: 3, coresMax: 3, vcpusMax: 4, survive: ['off'] };

const jsonHosts = (hosts: readonly Host[]): readonly Host[] =>
  hosts.map((host) => ({
    ...JSON.parse(JSON.stringify(host)),
    networks: new Set(JSON.parse(JSON.stringify([...host.networks]))),
  }));

const freeOf = (snapshot: Snapshot): readonly number[] => {
  const ledger = new Ledger(topologyOf(snapshot.hosts, snapshot.policy), snapshot.policy);
  for (const { vm, placement } of snapshot.placed) ledger.take(vm, placement);
  return [...ledger.free];
};

describe('every decision', () => {
  it(
    'is allowed by every rule, or there is no placement at all',
    () => {
      fc.assert(
        fc.property(historyOf(SMALL, 10), (history) => {
          play(history, ({ planner, world, vm }) => {
            const decided = planner.decide(vm);
            if (decided.ok) {
              expect(world.complaints(vm, decided.value)).toEqual([]);
            } else {
              const [possible] = world.placements(vm);
              expect(possible, `refused: ${decided.error.summary}`).toBeUndefined();
            }
          });
        }),
        runs(80),
      );
    },
    TIMEOUT_MS,
  );

  it(
    'is on one NUMA node if any node of the cluster takes the VM whole',
    () => {
      fc.assert(
        fc.property(historyOf(SMALL, 8), (history) => {
          play(history, ({ planner, world, vm }) => {
            // With wishes, the wish counts more: see the table of weights.
            if (vm.preferredHosts.length > 0 || vm.rules.length > 0 || vm.guestNuma === 'explicit') return;
            const decided = planner.decide(vm);
            if (!decided.ok || decided.value.cells.length === 1) return;
            const [whole] = world.placements({ ...vm, oneNodeRequired: true });
            expect(whole).toBeUndefined();
          });
        }),
        runs(150),
      );
    },
    TIMEOUT_MS,
  );

  it(
    'is the same for the same input, in whatever order and form it comes',
    () => {
      fc.assert(
        fc.property(historyOf(SMALL, 8), (history) => {
          const { hosts, policy } = history;
          play(history, ({ vm, placed }) => {
            const decided = createPlanner({ hosts, placed, policy }).decide(vm);
            const again = createPlanner({
              hosts: jsonHosts(hosts).toReversed(),
              placed: (JSON.parse(JSON.stringify(placed)) as readonly PlacedVm[]).toReversed(),
              policy: JSON.parse(JSON.stringify(policy)) as PlacementPolicy,
            });
            expect(again.decide(JSON.parse(JSON.stringify(vm)) as Vm)).toEqual(decided);
            expect(again.decide(vm)).toEqual(decided);
          });
        }),
        runs(80),
      );
    },
    TIMEOUT_MS,
  );

  it(
    'does not depend on what came and went, as far as there is room',
    () => {
      fc.assert(
        fc.property(historyOf(SMALL, 12), (history) => {
          const { hosts, policy } = history;
          play(history, ({ planner, vm, placed }) => {
            const fresh = createPlanner({ hosts, placed, policy });
            expect(planner.decide(vm).ok).toBe(fresh.decide(vm).ok);
            expect(planner.explain(vm).map(({ host, fits, refusals }) => ({ host, fits, refusals }))).toEqual(
              fresh.explain(vm).map(({ host, fits, refusals }) => ({ host, fits, refusals })),
            );
            expect(planner.problems()).toEqual([]);
          });
        }),
        runs(80),
      );
    },
    TIMEOUT_MS,
  );
});

describe('what is held', () => {
  it(
    'is free again after release, exactly as before',
    () => {
      fc.assert(
        fc.property(historyOf(SMALL, 10), fc.boolean(), ({ hosts, policy, steps }, forced) => {
          const topology = topologyOf(hosts, policy);
          const ledger = new Ledger(topology, policy);
          const planner = createPlanner({ hosts, placed: [], policy });
          const placed: PlacedVm[] = [];
          steps.forEach(({ vm: random }, index) => {
            const vm = named(random, `v${index}`);
            // Forced: what a planner that knows of nobody decides, so that much is given twice.
            const decided = forced ? createPlanner({ hosts, placed: [], policy }).decide(vm) : planner.place(vm);
            if (decided.ok) placed.push({ vm, placement: decided.value });
          });
          placed.forEach(({ vm, placement }, index) => {
            const before = [...ledger.free];
            ledger.take(vm, placement);
            ledger.release(vm, placement);
            expect([...ledger.free]).toEqual(before);
            ledger.take(vm, placement);
            expect([...ledger.free]).toEqual(freeOf({ hosts, policy, placed: placed.slice(0, index + 1) }));
          });
          // First come, first gone.
          placed.forEach(({ vm, placement }, index) => {
            ledger.release(vm, placement);
            expect([...ledger.free]).toEqual(freeOf({ hosts, policy, placed: placed.slice(index + 1) }));
          });
        }),
        runs(80),
      );
    },
    TIMEOUT_MS,
  );

  it(
    'by somebody else is not given, even where things were given twice',
    () => {
      fc.assert(
        fc.property(historyOf(SMALL, 10), ({ hosts, policy, steps }) => {
          const planner = createPlanner({ hosts, placed: [], policy });
          const world = new World(hosts, policy);
          steps.forEach(({ vm: random, release }, index) => {
            const forced = named(random, `f${index}`);
            const taken = createPlanner({ hosts, placed: [], policy }).decide(forced);
            if (taken.ok) {
              planner.take({ vm: forced, placement: taken.value });
              world.put({ vm: forced, placement: taken.value });
            }
            const ids = [...world.vms.keys()];
            const gone = release < 0 ? undefined : ids[release % Math.max(1, ids.length)];
            if (gone !== undefined) {
              planner.release(gone);
              world.drop(gone);
            }
            const vm = named(random, `v${index}`);
            const decided = planner.decide(vm);
            if (decided.ok) {
              const complaints = world.complaints(vm, decided.value).filter((line) => !/ of node /.test(line));
              expect(complaints).toEqual([]);
            }
            const fresh = createPlanner({ hosts, policy, placed: [...world.vms.values()] });
            expect(planner.problems()).toEqual(fresh.problems());
            expect(decided.ok).toBe(fresh.decide(vm).ok);
          });
        }),
        runs(80),
      );
    },
    TIMEOUT_MS,
  );
});

describe('an explanation', () => {
  it(
    'agrees with the decision, and its numbers are true',
    () => {
      fc.assert(
        fc.property(historyOf(SMALL, 8), (history) => {
          play(history, ({ planner, world, vm }) => {
            const decided = planner.decide(vm);
            const verdicts = planner.explain(vm);
            expect(verdicts.map(({ host }) => host)).toEqual(history.hosts.map(({ id }) => id).toSorted());
            expect(verdicts.some(({ fits }) => fits)).toBe(decided.ok);
            if (decided.ok) expect(verdicts.find(({ host }) => host === decided.value.host)?.fits).toBe(true);
            for (const { host, fits, refusals } of verdicts) {
              expect(fits).toBe(refusals.length === 0);
              for (const { checker, reason } of refusals) {
                expect(CHECKER_NAMES).toContain(checker);
                expect(reason).not.toBe('');
                expect(reason).not.toMatch(/undefined|NaN|: ;|: $/);
                numbersAreTrue(reason, host, world);
              }
            }
          });
        }),
        runs(120),
      );
    },
    TIMEOUT_MS,
  );
});

/** Counts again what the reason says is free. */
function numbersAreTrue(reason: string, hostId: string, world: World): void {
  const machine = world.machine(hostId);
  const host = machine?.host;
  if (machine === undefined || host === undefined) throw new Error(`no host ${hostId}`);
  let node = host.numaNodes[0]?.id ?? 0;
  for (const part of reason.replace('no NUMA node has all that is needed: ', '').split(/; |, (?=needs )/)) {
    const named = /^NUMA node (\d+): /.exec(part);
    if (named !== null) node = Number(named[1]);
    const text = part.replace(/^NUMA node \d+: /, '');
    const memory = /^needs (\d+) MiB, (\d+) MiB free$/.exec(text);
    if (memory !== null) {
      expect(Number(memory[2]), reason).toBe(Math.max(0, machine.memoryFree(node)));
      expect(Number(memory[1]), reason).toBeGreaterThan(Number(memory[2]));
    }
    const pages = /^needs (\d+) pages of (\d) .iB, (\d+) free$/.exec(text);
    if (pages !== null) {
      expect(Number(pages[3]), reason).toBe(machine.pagesFree(node, pages[2] === '2' ? 2 : 1024));
      expect(Number(pages[1]), reason).toBeGreaterThan(Number(pages[3]));
    }
    const shared = /^needs (\d+) shared vCPUs, (\d+) free/.exec(text);
    if (shared !== null) {
      expect(Number(shared[2]), reason).toBe(Math.floor(machine.sharedFree(node)));
      expect(Number(shared[1]), reason).toBeGreaterThan(Number(shared[2]));
    }
    const own = /^needs (\d+) (CPUs of its own|isolated CPUs), (\d+) free(?:: ([\d, …]+))?$/.exec(text);
    if (own !== null) {
      const free = machine.freeCpus(node, own[2] === 'isolated CPUs');
      expect(Number(own[3]), reason).toBe(free.length);
      expect(Number(own[1]), reason).toBeGreaterThan(Number(own[3]));
      expect(own[4] ?? '', reason).toBe(free.toSorted((a, b) => a - b).join(', '));
    }
  }
}
