// SPDX-License-Identifier: Apache-2.0
import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

/**
 * unit: fast, needs no root and no daemon.
 * conformance: drivers and stores against the real etcd, Ceph and libvirt, started by the tests themselves; and what is
 * slow because processes, sockets or certificates that live for seconds are what is tried.
 * container: the same suites on containers, of whatever versions are asked for.
 * e2e: a whole cluster in the lab.
 * attack: a lab with a hypervisor that has no vote, and whoever wants more than he may have. All but the first run one file at a time: two labs do not fit on two cores.
 */
export default defineConfig({
  test: {
    // vitest's default is one worker less than there are cores. Unit tests wait a lot (for child processes, for sockets):
    // on 2 cores one worker took 67 s when two took 36 s and three 33 s; four are no faster.
    maxWorkers: Math.max(3, availableParallelism()),
    projects: [
      {
        test: {
          name: 'unit',
          // Properties are tried hundreds of times; on a busy machine the default of 5 s is no sign of a hang.
          testTimeout: 30_000,
          hookTimeout: 30_000,
          // One module graph per worker instead of one per file: a third of the time went into loading the same modules
          // again. Tests take their clocks, stores and random numbers as arguments and leave nothing behind in modules.
          isolate: false,
          include: ['{packages,deploy,e2e,bench,tools}/**/*.test.ts'],
          exclude: ['**/*.{conformance,container,e2e,attack,attack-long}.test.ts', '**/node_modules/**'],
        },
      },
      {
        test: {
          name: 'conformance',
          include: ['{packages,deploy,e2e,tools}/**/*.conformance.test.ts'],
          exclude: ['**/node_modules/**'],
          fileParallelism: false,
          testTimeout: 60_000,
          hookTimeout: 180_000,
        },
      },
      {
        test: {
          name: 'container',
          globalSetup: ['packages/controller/src/testing/containers/setup.ts'],
          include: ['{packages,deploy,e2e}/**/*.container.test.ts'],
          exclude: ['**/node_modules/**'],
          fileParallelism: false,
          testTimeout: 60_000,
          hookTimeout: 120_000,
        },
      },
      {
        test: {
          name: 'e2e',
          globalSetup: ['e2e/setup.ts'],
          include: ['{e2e,deploy,packages}/**/*.e2e.test.ts'],
          exclude: ['**/node_modules/**'],
          fileParallelism: false,
          testTimeout: 180_000,
          hookTimeout: 300_000,
        },
      },
      {
        test: {
          name: 'attack',
          globalSetup: ['e2e/attack/setup.ts'],
          // The long ones only where they are asked for: `npm run attack`.
          include: [
            'e2e/attack/**/*.attack.test.ts',
            ...(process.env['BUSBAR_ATTACK'] === 'all' ? ['e2e/attack/**/*.attack-long.test.ts'] : []),
          ],
          exclude: ['**/node_modules/**'],
          fileParallelism: false,
          testTimeout: 120_000,
          hookTimeout: 300_000,
        },
      },
    ],
  },
});
