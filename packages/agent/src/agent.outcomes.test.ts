// SPDX-License-Identifier: Apache-2.0
// Outcomes that nobody saw: the agent, the host or the hypervisor was away when it mattered.
import { DomainState, EndReason } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { describe, expect, it } from 'vitest';
import { desiredVm, Rig, ready, running, state, vmId } from './agent.fixture.ts';
import { hypervisorTimeout } from './driver/refusals.ts';

describe('agent: outcomes that nobody saw', () => {
  it('adopts what runs when it is restarted', async () => {
    const rig = await running();
    rig.killAgent();
    await rig.clock.advance(10_000);
    rig.startAgent();
    await rig.clock.advance(2000);
    expect(state(rig)).toEqual([[1n, DomainState.RUNNING, EndReason.UNSPECIFIED]]);
    rig.desire([desiredVm(1, 1n)]);
    await rig.clock.advance(10_000);
    expect(rig.starts(1)).toEqual([1n]);
  });

  it('leaves alone what nobody lists', async () => {
    const rig = await running();
    rig.desire([]);
    await rig.clock.advance(30_000);
    expect(state(rig)).toEqual([[1n, DomainState.RUNNING, EndReason.UNSPECIFIED]]);
    rig.desire([], [{ vmId: vmId(1), epochMax: 1n }]);
    await rig.clock.advance(5000);
    expect(state(rig)).toEqual([]);
    expect(rig.machine.domains).toEqual([]);
  });

  it('reports as vanished what ended while it was down, and does not start it again', async () => {
    const rig = await running();
    rig.killAgent();
    rig.machine.crashDomain(vmId(1));
    await rig.clock.advance(1000);
    rig.startAgent();
    await rig.clock.advance(1500);
    rig.desire([desiredVm(1, 1n)]);
    await rig.clock.advance(15_000);
    expect(state(rig)).toEqual([[1n, DomainState.ENDED, EndReason.VANISHED]]);
    expect(rig.starts(1)).toEqual([1n]);
  });

  it('reports as vanished what a reboot ended, at once', async () => {
    const rig = await running();
    rig.killAgent();
    rig.machine.powerOff();
    await rig.clock.advance(30_000);
    rig.machine.powerOn();
    rig.startAgent();
    await rig.clock.advance(1000);
    expect(state(rig)).toEqual([[1n, DomainState.ENDED, EndReason.VANISHED]]);
  });

  it('does not start an epoch again when it died between the record and the start', async () => {
    const rig = new Rig();
    rig.startAgent();
    await rig.clock.advance(1000);
    rig.store.onSaved = (memory) => {
      if ((memory.vms.get(vmId(1))?.startedEpoch ?? 0n) > 0n) rig.killAgent();
    };
    rig.desire([desiredVm(1, 1n)]);
    await rig.clock.advance(1000);
    expect(rig.starts(1)).toEqual([]);
    rig.store.onSaved = () => {};
    rig.startAgent();
    await rig.clock.advance(1000);
    rig.desire([desiredVm(1, 1n)]);
    await rig.clock.advance(500);
    expect(state(rig)).toEqual([[1n, DomainState.STARTING, EndReason.UNSPECIFIED]]);
    await rig.clock.advance(15_000);
    expect(rig.starts(1)).toEqual([]);
    expect(state(rig)).toEqual([[1n, DomainState.ENDED, EndReason.VANISHED]]);
  });

  it('adopts a start whose answer was lost', async () => {
    const rig = await ready();
    const start = rig.driver.startDomain.bind(rig.driver);
    rig.driver.startDomain = async (request) => {
      void start(request).catch(() => {});
      throw hypervisorTimeout('start vm-1', 60_000);
    };
    rig.desire([desiredVm(1, 1n)]);
    await rig.until(() => state(rig)[0]?.[1] === DomainState.RUNNING, 10_000, 'VM 1 running');
    await rig.clock.advance(20_000);
    expect(rig.starts(1)).toEqual([1n]);
  });

  it('waits before it gives up a start that was never seen, and starts nothing newer meanwhile', async () => {
    const rig = await ready();
    const start = rig.driver.startDomain.bind(rig.driver);
    rig.driver.startDomain = () => Promise.reject(hypervisorTimeout('start vm-1', 60_000));
    rig.desire([desiredVm(1, 1n)]);
    await rig.clock.advance(1000);
    rig.driver.startDomain = start;
    expect(state(rig)).toEqual([[1n, DomainState.STARTING, EndReason.UNSPECIFIED]]);
    rig.desire([desiredVm(1, 2n)]);
    await rig.clock.advance(3500);
    expect(rig.starts(1)).toEqual([]);
    await rig.clock.advance(3000);
    expect(rig.starts(1)).toEqual([2n]);
  });

  it('tells of a start that it gave up as failed, and destroys it when it comes up after all', async () => {
    const rig = await ready();
    const start = rig.driver.startDomain.bind(rig.driver);
    let late = () => {};
    rig.driver.startDomain = (request) => {
      late = () => void start(request).catch(() => {});
      return Promise.reject(hypervisorTimeout('start vm-1', 60_000));
    };
    rig.desire([desiredVm(1, 1n)]);
    await rig.clock.advance(10_000);
    expect(state(rig)).toEqual([[1n, DomainState.ENDED, EndReason.START_FAILED]]);
    late();
    await rig.clock.advance(5000);
    expect(rig.starts(1)).toEqual([1n]);
    expect(rig.machine.domains).toEqual([]);
    expect(state(rig)).toEqual([[1n, DomainState.ENDED, EndReason.START_FAILED]]);
  });

  it('goes on with what it knows while the hypervisor hangs', async () => {
    const rig = await running();
    rig.machine.setHypervisor('hung');
    rig.desire([desiredVm(1, 1n), desiredVm(2, 1n)]);
    await rig.clock.advance(30_000);
    expect(rig.cluster.leader.report).toMatchObject({ hypervisorHealthy: false });
    expect(rig.cluster.leader.report?.accepted?.generation).toBe(2n);
    expect(rig.agent.leaseRemainingMs()).toBeGreaterThan(0);
    expect(state(rig)).toEqual([[1n, DomainState.RUNNING, EndReason.UNSPECIFIED]]);
    rig.machine.setHypervisor('up');
    await rig.until(() => rig.reported(2)[0]?.state === DomainState.RUNNING, 10_000, 'VM 2 running');
  });

  it('starts nothing when its memory cannot be read', async () => {
    const rig = new Rig();
    rig.store.load = () => Promise.reject(new Error('unexpected end of JSON'));
    rig.startAgent();
    await rig.clock.advance(1000);
    rig.desire([desiredVm(1, 1n)]);
    await rig.clock.advance(10_000);
    expect(rig.starts(1)).toEqual([]);
    expect(rig.cluster.leader.report?.message).toMatch(/unexpected end of JSON/);
  });
});
