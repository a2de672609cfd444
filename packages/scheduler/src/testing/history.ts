// SPDX-License-Identifier: Apache-2.0
/** VMs that come and go on a random cluster. */
import { numRuns } from '@busbar/core/testing/runs.fixture';
import fc from 'fast-check';
import type { Host, PlacedVm, PlacementPolicy, Vm } from '../model.ts';
import { createPlanner, type Planner } from '../planner.ts';
import { type ClusterBounds, clusterOf, named, policyOf, type RandomVm, vmOf } from './arbitrary.ts';
import { World } from './oracle.ts';

const RUNS = process.env['BUSBAR_PROPERTY_RUNS'];
const SEED = Number(process.env['BUSBAR_SEED'] ?? 20_261_124);
/** For fc.assert: as many runs as usual, or as BUSBAR_PROPERTY_RUNS says, from the seed BUSBAR_SEED. */
export const runs = (usual: number) => ({ numRuns: Number(RUNS ?? numRuns(usual)), seed: SEED });
/** More runs take longer than a unit test may. */
export const TIMEOUT_MS = RUNS === undefined ? 30_000 : 3_600_000;

export interface Step {
  /** Of those placed: this one goes before the VM comes. -1: none. */
  readonly release: number;
  readonly vm: RandomVm;
}

export interface History {
  readonly hosts: readonly Host[];
  readonly policy: PlacementPolicy;
  readonly steps: readonly Step[];
}

export const historyOf = (bounds: ClusterBounds, steps: number): fc.Arbitrary<History> =>
  fc.record({
    hosts: clusterOf(bounds),
    policy: policyOf(bounds),
    steps: fc.array(
      fc.record({
        release: fc.oneof({ weight: 3, arbitrary: fc.constant(-1) }, { weight: 1, arbitrary: fc.nat(20) }),
        vm: vmOf(bounds),
      }),
      { minLength: Math.ceil(steps / 2), maxLength: steps, size: 'max' },
    ),
  });

export interface Moment {
  readonly planner: Planner;
  readonly world: World;
  readonly vm: Vm;
  readonly placed: readonly PlacedVm[];
}

/** Plays the history; `judge` sees every request before it is placed. Returns what is there at the end. */
export function play(
  { hosts, policy, steps }: History,
  judge: (moment: Moment) => void = () => {},
): Omit<Moment, 'vm'> {
  const planner = createPlanner({ hosts, placed: [], policy });
  const world = new World(hosts, policy);
  steps.forEach((step, index) => {
    const ids = [...world.vms.keys()];
    const gone = step.release < 0 ? undefined : ids[step.release % Math.max(1, ids.length)];
    if (gone !== undefined) {
      planner.release(gone);
      world.drop(gone);
    }
    const vm = named(step.vm, `v${index}`);
    judge({ planner, world, vm, placed: [...world.vms.values()] });
    const decided = planner.place(vm);
    if (decided.ok) world.put({ vm, placement: decided.value });
  });
  return { planner, world, placed: [...world.vms.values()] };
}
