// SPDX-License-Identifier: Apache-2.0
/**
 * One folder for each rule, one file for each scenario: hosts, then what happens one after the other, each with the answer that an
 * engineer expects. Hosts and VMs are written as in testing/build.ts; what is not said is plain. BUSBAR_RECORD=1 writes the
 * answers of a new scenario, to be read before they are kept.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import type { NetworkId } from '@busbar/core/ids';
import { describe, expect, it } from 'vitest';
import type { Host, Placement, PlacementPolicy, Vm } from '../model.ts';
import { createPlanner } from '../planner.ts';
import { type HostShape, host, PLAIN, vm } from '../testing/build.ts';

interface Scenario {
  readonly about: string;
  readonly policy?: Partial<PlacementPolicy>;
  readonly hosts: Record<string, WrittenHost>;
  readonly steps: readonly Event[];
}

type WrittenHost = Omit<HostShape, 'rest'> & {
  readonly rest?: Omit<Partial<Host>, 'networks' | 'domains'> & { readonly domains?: Partial<Host['domains']> };
  readonly networks?: readonly string[];
};

/** Exactly one of the first four; `answer` is what is expected. */
interface Event {
  readonly place?: string;
  readonly release?: string;
  /** Hosts are now like this; nothing else changes. */
  readonly hosts?: Record<string, WrittenHost>;
  /** "problems", or "drill HOST". */
  readonly ask?: string;
  readonly vm?: Partial<Vm>;
  answer?: string | Record<string, string>;
}

const build = (written: Record<string, WrittenHost>): readonly Host[] =>
  Object.entries(written).map(([id, { rest, networks = [], ...shape }]) =>
    host(id, {
      ...shape,
      rest: {
        ...rest,
        domains: { rack: '', powerFeed: '', ringSegment: '', ...rest?.domains },
        networks: new Set(networks.map((name) => name as NetworkId)),
      },
    }),
  );

/** "h1: node 0: 4 vCPUs on 2, 3, 6, 7, 4096 MiB; emulator 0; devices 0000:01:00.0". */
function written({ host: id, cells, emulatorCpus, ioThreadCpus, devices }: Placement): string {
  const parts = cells.map(({ numaNode, vcpus, cpus, memoryMib }) => {
    const on = cpus.length === 0 ? '' : ` on ${cpus.join(', ')}`;
    return `node ${numaNode}: ${vcpus} vCPUs${on}, ${memoryMib} MiB`;
  });
  if (emulatorCpus.length > 0) parts.push(`emulator ${emulatorCpus.join(', ')}`);
  if (ioThreadCpus.length > 0) parts.push(`I/O threads ${ioThreadCpus.join(', ')}`);
  if (devices.length > 0) parts.push(`devices ${devices.map(({ address }) => address).join(', ')}`);
  return `${id}: ${parts.join('; ')}`;
}

/** Plays the scenario and returns the answer to each event. */
function answers({ policy, hosts, steps }: Scenario): readonly (string | Record<string, string>)[] {
  let planner = createPlanner({ hosts: build(hosts), placed: [], policy: { ...PLAIN, ...policy } });
  return steps.map(({ place, release, hosts: changed, ask = '', vm: rest }) => {
    if (place !== undefined) {
      const request = vm(place, rest);
      const placed = planner.place(request);
      if (placed.ok) return written(placed.value);
      return Object.fromEntries(
        planner
          .explain(request)
          .map(({ host: id, refusals }) => [
            id,
            refusals.map(({ checker, reason }) => `${checker}: ${reason}`).join(', '),
          ]),
      );
    }
    if (release !== undefined) return planner.release(release as Vm['id']) ? 'released' : 'not here';
    if (changed !== undefined) {
      planner = createPlanner({
        hosts: build(changed),
        placed: planner.placed(),
        policy: { ...PLAIN, ...policy },
      });
      return 'changed';
    }
    if (ask === 'problems') {
      return Object.fromEntries(planner.problems().map(({ vm: { name }, what }) => [name, what.join(', ')]));
    }
    const drill = planner.drills().find(({ loss }) => `drill ${loss}` === ask);
    if (drill === undefined) throw new Error(`no such event: ${ask}`);
    return Object.fromEntries([
      ...drill.moves.map(({ vm: { name }, placement }) => [name, written(placement)] as const),
      ...drill.homeless.map(({ name }) => [name, 'homeless'] as const),
    ]);
  });
}

const here = import.meta.dirname;
const files = readdirSync(here, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.json'))
  .toSorted();

describe('scenarios', () => {
  it.each(files)('%s', (file) => {
    const path = join(here, file);
    const scenario = JSON.parse(readFileSync(path, 'utf8')) as Scenario;
    const given = answers(scenario);
    if (process.env['BUSBAR_RECORD'] !== undefined) {
      scenario.steps.forEach((step, i) => {
        const answer = given[i];
        if (answer !== undefined) step.answer ??= answer;
      });
      writeFileSync(path, `${JSON.stringify(scenario, null, 2)}\n`);
    }
    scenario.steps.forEach((step, i) => {
      expect(given[i], `${relative(here, path)}, step ${i + 1}: ${scenario.about}`).toEqual(step.answer);
    });
  });
});
