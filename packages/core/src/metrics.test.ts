// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { sleep } from './clock/clock.ts';
import { VirtualClock } from './clock/virtual.ts';
import { BusbarError } from './errors.ts';
import { measured, outcomeOf } from './metrics.ts';
import { Pulse } from './pulse.ts';

class Driver {
  readonly kind = 'test';
  readonly #clock: VirtualClock;
  constructor(clock: VirtualClock) {
    this.#clock = clock;
  }
  async slow(ms: number): Promise<number> {
    await sleep(this.#clock, ms);
    return ms;
  }
  fails(): Promise<never> {
    return Promise.reject(new BusbarError({ kind: 'exhausted', reason: 'FULL', message: 'full' }));
  }
  other(): VirtualClock {
    return this.#clock;
  }
}

describe('measured calls', () => {
  it('are told with time and outcome, and are otherwise the same', async () => {
    const clock = new VirtualClock();
    const told: unknown[] = [];
    const driver = measured(new Driver(clock), ['slow', 'fails'], clock, (method, seconds, error) =>
      told.push([method, seconds, outcomeOf(error)]),
    );
    const answer = driver.slow(250);
    await clock.advance(250);
    expect(await answer).toBe(250);
    await expect(driver.fails()).rejects.toMatchObject({ reason: 'FULL' });
    expect(told).toEqual([
      ['slow', 0.25, 'ok'],
      ['fails', 0, 'exhausted'],
    ]);
    expect([driver.kind, driver.other()]).toEqual(['test', clock]);
  });
});

describe('a pulse', () => {
  it('shows since when a loop stands still, and that one at rest does not', async () => {
    const clock = new VirtualClock();
    const pulse = new Pulse(clock);
    expect(pulse.ageMs()).toBeNull();
    pulse.beat();
    await clock.advance(300);
    expect(pulse.ageMs()).toBe(300);
    pulse.beat();
    expect(pulse.ageMs()).toBe(0);
    pulse.rest();
    await clock.advance(300);
    expect(pulse.ageMs()).toBeNull();
  });
});
