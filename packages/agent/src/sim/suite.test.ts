// SPDX-License-Identifier: Apache-2.0
import { systemClock } from '@busbar/core/clock/clock';
import { seededRandom } from '@busbar/core/random';
import { describe } from 'vitest';
import { hostDriverConformance } from '../driver/conformance.ts';
import { fileDisk } from '../driver/domain.fixture.ts';
import { SimHostDriver } from './driver.ts';
import type { SimLatencies } from './faults.ts';
import { SimMachine } from './machine.ts';

/** Short, because this suite runs on real time: it is the same for libvirt. */
const QUICK: SimLatencies = {
  connect: [1, 3],
  call: [0, 2],
  start: [2, 10],
  destroy: [1, 5],
  guestShutdown: [5, 20],
  teardown: [1, 3],
  hint: [0, 2],
};

describe('SimHostDriver', () => {
  hostDriverConformance(async () => {
    const machine = new SimMachine({ clock: systemClock, random: seededRandom(7), latencies: QUICK });
    return {
      open: () => new SimHostDriver(machine, systemClock),
      guest: {},
      failingStart: async (request) => {
        machine.faults.failNextStarts.push('the disk is missing');
        return { request, words: 'the disk is missing' };
      },
      crash: async (vmId) => machine.crashDomain(vmId),
      linksUp: async (vmId) => machine.domain(vmId)?.linksUp === true,
      disk: async (volumeId) => fileDisk('/volumes/data.raw', { volumeId }),
      close: async () => {},
    };
  });
});
