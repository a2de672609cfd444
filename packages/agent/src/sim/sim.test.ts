// SPDX-License-Identifier: Apache-2.0
import { VirtualClock } from '@busbar/core/clock/virtual';
import { seededRandom } from '@busbar/core/random';
import { describe, expect, test, vi } from 'vitest';
import { rbdDisk, startRequest } from '../driver/domain.fixture.ts';
import { type DomainEnd, HOST_DRIVER_REASONS } from '../driver/host-driver.ts';
import type { SimChange } from './domain.ts';
import { SimHostDriver } from './driver.ts';
import { SimMachine, type SimMachineOptions } from './machine.ts';
import { simInventory } from './topology.ts';

async function host(options: Partial<SimMachineOptions> = {}, seed = 1) {
  const clock = new VirtualClock();
  const machine = new SimMachine({ clock, random: seededRandom(seed), ...options });
  const driver = new SimHostDriver(machine, clock);
  driver.start();
  if (options.mode === 'stepped') machine.effects.step('connect');
  else await clock.advance(100);
  /** Lets virtual time pass until the promise settles. */
  const run = async <T>(promise: Promise<T>, limitMs = 120_000): Promise<T> => {
    let settled = false;
    const done = () => {
      settled = true;
    };
    promise.then(done, done);
    if (!(await clock.advanceUntil(() => settled, limitMs))) throw new Error('did not settle');
    return promise;
  };
  return { clock, machine, driver, run };
}

const one = startRequest(1);

describe('faults', () => {
  test('failNextStarts: the reason reaches the caller, nothing is left, the next start works', async () => {
    const { driver, run } = await host({ faults: { failNextStarts: ['no such image'] } });
    await expect(run(driver.startDomain(one))).rejects.toMatchObject({
      reason: HOST_DRIVER_REASONS.domainStartFailed,
      message: expect.stringContaining('no such image'),
    });
    expect(await run(driver.listDomains())).toEqual([]);
    expect(driver.takeEnds()).toEqual([]);
    await run(driver.startDomain(one));
    expect(await run(driver.listDomains())).toMatchObject([{ state: 'running', epoch: 1n, specRevision: 7n }]);
  });

  test('hangStarts: the call times out, the domain is listed, destroying it clears up', async () => {
    const { driver, run } = await host({ faults: { hangStarts: true } });
    await expect(run(driver.startDomain(one))).rejects.toMatchObject({ reason: HOST_DRIVER_REASONS.hypervisorTimeout });
    expect(await run(driver.listDomains())).toMatchObject([{ state: 'paused', message: 'starting up' }]);
    await run(driver.destroyDomain(one.vmId));
    expect(await run(driver.listDomains())).toEqual([]);
  });

  test('crashAfterMs: the end is told once, with a hint after it', async () => {
    const { driver, run, clock } = await host({ faults: { crashAfterMs: 500 } });
    await run(driver.startDomain(one));
    const ends: DomainEnd[] = [];
    driver.onHint(() => ends.push(...driver.takeEnds()));
    await clock.advance(510);
    expect(ends).toMatchObject([{ vmId: one.vmId, epoch: 1n, reason: 'crashed' }]);
    expect(driver.takeEnds()).toEqual([]);
  });

  test('ignoreShutdown: the guest goes on; others end', async () => {
    const { driver, run, clock, machine } = await host({ faults: { ignoreShutdown: new Set([one.vmId]) } });
    const two = startRequest(2);
    await run(driver.startDomain(one));
    await run(driver.startDomain(two));
    await run(Promise.all([driver.shutdownDomain(one.vmId), driver.shutdownDomain(two.vmId)]));
    await clock.advance(20_000);
    expect(machine.domains.map(({ name }) => name)).toEqual(['vm-1']);
    expect(driver.takeEnds()).toMatchObject([{ vmId: two.vmId, reason: 'guest-shutdown' }]);
  });

  test('hypervisor down or hung: calls reject, domains go on, destroying still works, all recovers', async () => {
    const { driver, run, clock, machine } = await host();
    const two = startRequest(2);
    await run(driver.startDomain(one));
    await run(driver.startDomain(two));
    machine.setHypervisor('down');
    expect(driver.health().healthy).toBe(false);
    await expect(run(driver.listDomains())).rejects.toMatchObject({
      reason: HOST_DRIVER_REASONS.hypervisorUnavailable,
    });
    machine.setHypervisor('up');
    await clock.advance(100);
    expect(await run(driver.listDomains())).toHaveLength(2);

    machine.setHypervisor('hung');
    await expect(run(driver.listDomains())).rejects.toMatchObject({ reason: HOST_DRIVER_REASONS.hypervisorTimeout });
    expect(driver.health().healthy).toBe(false);
    await run(driver.destroyDomain(one.vmId));
    expect(driver.takeEnds()).toMatchObject([{ vmId: one.vmId, reason: 'destroyed' }]);
    expect(machine.domain(two.vmId)?.state).toBe('running');
    machine.setHypervisor('up');
    await clock.advance(100);
    expect(await run(driver.listDomains())).toHaveLength(1);
  });

  test('a storage fence pauses guests at once and lets none write', async () => {
    const { driver, run, machine } = await host();
    const request = startRequest(1, { disks: [rbdDisk('busbar', 'v1')] });
    await run(driver.startDomain(request));
    expect(machine.canWrite(request.vmId)).toBe(true);
    machine.fenceStorage();
    expect(machine.canWrite(request.vmId)).toBe(false);
    expect(await run(driver.listDomains())).toMatchObject([{ state: 'paused', message: 'I/O error on a disk' }]);
  });

  test('a frozen machine does nothing, then everything', async () => {
    const { driver, clock, machine } = await host();
    const start = driver.startDomain(one);
    machine.freeze();
    await clock.advance(10_000);
    expect(machine.domains).toEqual([]);
    machine.thaw();
    await clock.advance(5000);
    await start;
    expect(machine.domain(one.vmId)?.state).toBe('running');
  });
});

test('power-off takes everything and the drivers of that boot; power-on is a new boot', async () => {
  const { driver, run, clock, machine } = await host();
  await run(driver.startDomain(one));
  const { bootId } = machine;
  const pending = driver.startDomain(startRequest(2)).catch((error: unknown) => error);
  machine.powerOff();
  expect(await pending).toMatchObject({ reason: HOST_DRIVER_REASONS.hypervisorUnavailable });
  machine.powerOn();
  expect(machine.bootId).not.toBe(bootId);
  await clock.advance(1000);
  await expect(run(driver.listDomains())).rejects.toMatchObject({ message: expect.stringContaining('power') });
  const next = new SimHostDriver(machine, clock);
  next.start();
  await clock.advance(100);
  expect(await run(next.listDomains())).toEqual([]);
});

test('stepped mode: nothing happens unless told, in the order of the test', async () => {
  const { driver, machine } = await host({ mode: 'stepped' });
  const starts = [driver.startDomain(one), driver.startDomain(startRequest(2))];
  expect(machine.effects.pending).toEqual(['hint', 'start vm-1', 'start vm-2'].slice(1));
  machine.effects.step('start vm-2');
  await vi.waitFor(() => expect(machine.domains).toHaveLength(1));
  machine.effects.step('start vm-2');
  await starts[1];
  expect(machine.domains.map(({ name, state }) => [name, state])).toEqual([['vm-2', 'running']]);
  machine.effects.step('start vm-1');
  await vi.waitFor(() => expect(machine.domains).toHaveLength(2));
  machine.effects.step('start vm-1');
  await starts[0];
});

test('the same seed gives the same story', async () => {
  const story = async (seed: number) => {
    const { driver, clock, machine } = await host({ faults: { crashAfterMs: 3000 } }, seed);
    const seen: string[] = [];
    machine.observe((change: SimChange) => {
      seen.push(`${clock.nowMs()} ${change.domain.name} ${change.kind} ${change.domain.state}`);
    });
    for (const n of [1, 2, 3]) {
      const { vmId } = startRequest(n);
      void driver.startDomain(startRequest(n)).then(() => driver.shutdownDomain(vmId));
    }
    await clock.advance(60_000);
    return [machine.bootId, ...seen];
  };
  expect(await story(42)).toEqual(await story(42));
  expect(await story(42)).not.toEqual(await story(43));
});

test('topologies number CPUs as Linux does', () => {
  const { numaNodes, cpu } = simInventory({ numaNodes: 2, coresPerNumaNode: 4, threadsPerCore: 2 });
  expect(cpu?.onlineCpus).toBe(16);
  expect(numaNodes.map(({ cpus }) => cpus)).toEqual([
    [0, 1, 2, 3, 8, 9, 10, 11],
    [4, 5, 6, 7, 12, 13, 14, 15],
  ]);
  expect(numaNodes[1]?.smtSiblingSets).toEqual(['4,12', '5,13', '6,14', '7,15']);
});
