// SPDX-License-Identifier: Apache-2.0
import type { BootId } from '@busbar/core/ids';
import { silentLogger } from '@busbar/core/log';
import { seededRandom } from '@busbar/core/random';
import { DesiredRun, DomainState, EndReason } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { describe, expect, it } from 'vitest';
import { desiredVm, Rig, running, state, TestStore, vmId } from './agent.fixture.ts';
import { createAgent } from './agent.ts';
import { simInventory } from './sim/topology.ts';

describe('agent: sessions and reports', () => {
  it('tells every controller the same: the inventory when it is whole, reports on change and each 5 s', async () => {
    const rig = await running();
    for (const controller of rig.cluster.all) {
      // One before the hypervisor answered, one with its version: what has not changed is not said again.
      expect(controller.inventories.map((inventory) => inventory.versions?.libvirt !== '')).toEqual([false, true]);
      expect(controller.inventories[0]?.managementAddress).toBe('10.0.0.1');
      expect(controller.report?.accepted).toEqual({ term: 1n, generation: 1n });
      expect(controller.report?.leaseRemainingMs).toBeGreaterThan(1500);
      const sequences = controller.reports.map((report) => report.sequence);
      expect(sequences).toEqual([...sequences].sort((a, b) => Number(a - b)));
    }
    const before = rig.cluster.leader.reports.length;
    await rig.clock.advance(20_000);
    expect(rig.cluster.leader.reports.length - before).toBe(4);
  });

  it('reports at once on a new link, and the inventory when it changed', async () => {
    const rig = await running();
    rig.cluster.get('h2').hangUp();
    const before = rig.cluster.get('h2').reports.length;
    await rig.clock.advance(300);
    expect(rig.cluster.get('h2').reports.length).toBe(before + 1);
    const told = rig.cluster.leader.inventories.length;
    rig.machine.inventory = { ...rig.machine.inventory, memoryBytes: 1n };
    await rig.clock.advance(31_000);
    expect(rig.cluster.leader.inventories.at(-1)?.memoryBytes).toBe(1n);
    expect(rig.cluster.leader.inventories).toHaveLength(told + 1);
  });

  it('holds the lease with two of three controllers, loses it with one, and says so', async () => {
    const rig = await running();
    rig.cluster.get('h2').cut = true;
    await rig.clock.advance(10_000);
    expect(rig.agent.leaseRemainingMs()).toBeGreaterThan(1500);
    expect(rig.cluster.leader.report?.message).toMatch(/controller h2/);
    rig.cluster.get('h3').cut = true;
    await rig.clock.advance(3000);
    expect(rig.agent.leaseRemainingMs()).toBe(0);
    expect(rig.cluster.leader.report).toMatchObject({ leaseRemainingMs: 0 });
    expect(rig.cluster.leader.report?.message).toMatch(/no lease/);
    rig.cluster.get('h3').cut = false;
    await rig.until(() => rig.agent.leaseRemainingMs() > 0, 4000, 'the lease back');
  });

  it('runs as a witness without a hypervisor', async () => {
    const { clock, cluster } = new Rig();
    const agent = createAgent({
      clock,
      random: seededRandom(1),
      logger: silentLogger,
      dialer: cluster,
      driver: undefined,
      readInventory: async () => simInventory(),
      store: new TestStore(),
      bootId: 'boot' as BootId,
      version: '1',
      config: { host: 'w', managementAddress: '10.0.0.9', storageAddress: '10.0.0.9', controllers: cluster.config },
    });
    agent.start();
    await clock.advance(1000);
    expect(cluster.leader.report).toMatchObject({ hypervisorHealthy: true, domains: [] });
    expect(cluster.leader.inventories[0]?.versions?.agent).toBe('1');
    await agent.stop();
  });
});

describe('agent: starting', () => {
  it('starts nothing without a lease, and starts when it comes', async () => {
    const rig = new Rig();
    rig.startAgent();
    rig.cluster.get('h2').mute = true;
    rig.cluster.get('h3').mute = true;
    await rig.clock.advance(1000);
    rig.desire([desiredVm(1, 1n)]);
    await rig.clock.advance(20_000);
    expect(rig.starts(1)).toEqual([]);
    expect(rig.cluster.leader.report?.message).toMatch(/not started: vm-1/);
    rig.cluster.get('h2').mute = false;
    await rig.until(() => state(rig)[0]?.[1] === DomainState.RUNNING, 15_000, 'VM 1 running');
  });

  it('starts an epoch once: when it ends, it is reported until it is not listed any more', async () => {
    const rig = await running();
    rig.machine.crashDomain(vmId(1), 'QEMU was killed');
    await rig.clock.advance(60_000);
    expect(state(rig)).toEqual([[1n, DomainState.ENDED, EndReason.CRASHED]]);
    expect(rig.reported(1)[0]?.message).toBe('QEMU was killed');
    expect(rig.starts(1)).toEqual([1n]);
    rig.desire([desiredVm(1, 2n)]);
    await rig.clock.advance(10_000);
    expect(state(rig)).toEqual([[2n, DomainState.RUNNING, EndReason.UNSPECIFIED]]);
    expect(rig.starts(1)).toEqual([1n, 2n]);
  });

  it('reports a start that failed with the reason, and does not repeat it', async () => {
    const rig = new Rig({ faults: { failNextStarts: ['no such bridge'] } });
    rig.startAgent();
    await rig.clock.advance(1000);
    rig.desire([desiredVm(1, 1n)]);
    await rig.clock.advance(30_000);
    expect(state(rig)).toEqual([[1n, DomainState.ENDED, EndReason.START_FAILED]]);
    expect(rig.reported(1)[0]?.message).toMatch(/no such bridge/);
    expect(rig.starts(1)).toEqual([1n]);
  });

  it('starts several at a time, but not all at once', async () => {
    const rig = new Rig();
    rig.startAgent();
    await rig.clock.advance(1000);
    let most = 0;
    rig.machine.observe(() => {
      most = Math.max(most, rig.machine.domains.filter((domain) => domain.state === 'starting').length);
    });
    rig.desire(Array.from({ length: 12 }, (_, n) => desiredVm(n, 1n)));
    await rig.until(
      () => rig.machine.domains.filter((domain) => domain.state === 'running').length === 12,
      20_000,
      '12 VMs',
    );
    expect(most).toBe(4);
  });

  it('refuses an older state and an older epoch', async () => {
    const rig = await running();
    rig.desire([desiredVm(1, 1n)], [], 3n);
    await rig.clock.advance(1000);
    rig.desireAt({ term: 2n, generation: 99n }, [desiredVm(1, 1n, { run: DesiredRun.POWER_OFF })]);
    await rig.clock.advance(10_000);
    expect(state(rig)[0]?.[1]).toBe(DomainState.RUNNING);
    expect(rig.cluster.leader.report?.accepted?.term).toBe(3n);
    expect(rig.cluster.leader.report?.message).toMatch(/older than the accepted/);
    rig.desire([desiredVm(1, 5n)], [], 3n);
    await rig.clock.advance(10_000);
    rig.desire([desiredVm(1, 4n)], [], 3n);
    await rig.clock.advance(10_000);
    expect(rig.starts(1)).toEqual([1n, 5n]);
    expect(state(rig)).toEqual([[5n, DomainState.RUNNING, EndReason.UNSPECIFIED]]);
    expect(rig.cluster.leader.report?.message).toMatch(/epoch 4 of vm-1 is older than 5/);
  });

  it('destroys the older epoch before it starts the newer', async () => {
    const rig = await running();
    rig.desire([desiredVm(1, 2n)]);
    await rig.clock.advance(10_000);
    const seen = rig.changes.filter((change) => change.kind === 'state').map((change) => change.domain.epoch);
    expect(seen).toEqual([...seen].sort((a, b) => Number(a - b)));
    expect(state(rig)).toEqual([[2n, DomainState.RUNNING, EndReason.UNSPECIFIED]]);
  });

  it('starts nothing when its memory cannot be written, says so, and goes on when it can', async () => {
    const rig = new Rig();
    rig.store.full = true;
    rig.startAgent();
    await rig.clock.advance(1000);
    rig.desire([desiredVm(1, 1n)]);
    await rig.clock.advance(10_000);
    expect(rig.starts(1)).toEqual([]);
    expect(rig.cluster.leader.report?.message).toMatch(/memory cannot be written.*ENOSPC/);
    rig.store.full = false;
    await rig.until(() => state(rig)[0]?.[1] === DomainState.RUNNING, 15_000, 'VM 1 running');
  });

  it('does not issue a start when the lease ended while the record was written', async () => {
    const rig = new Rig();
    rig.startAgent();
    await rig.clock.advance(1000);
    const save = rig.store.save.bind(rig.store);
    rig.store.save = async (memory) => {
      await save(memory);
      await new Promise<void>((resolve) => rig.clock.timer(6000, resolve));
    };
    rig.desire([desiredVm(1, 1n)]);
    await rig.clock.advance(500);
    rig.cluster.cut(true);
    await rig.clock.advance(30_000);
    expect(rig.starts(1)).toEqual([]);
    rig.store.save = save;
    rig.cluster.cut(false);
    await rig.until(() => rig.starts(1).length === 1, 30_000, 'the start');
  });
});

describe('agent: stopping', () => {
  it('asks the guest to shut down and reports how it ended', async () => {
    const rig = await running();
    rig.desire([desiredVm(1, 1n, { run: DesiredRun.SHUTDOWN })]);
    await rig.clock.advance(500);
    expect(state(rig)).toEqual([[1n, DomainState.STOPPING, EndReason.UNSPECIFIED]]);
    await rig.clock.advance(10_000);
    expect(state(rig)).toEqual([[1n, DomainState.ENDED, EndReason.GUEST_SHUTDOWN]]);
  });

  it('presses again for a guest that missed it', async () => {
    const rig = await running({ faults: { ignoreShutdown: true } });
    rig.desire([desiredVm(1, 1n, { run: DesiredRun.SHUTDOWN })]);
    await rig.clock.advance(5000);
    rig.machine.faults.ignoreShutdown = false;
    await rig.clock.advance(15_000);
    expect(state(rig)).toEqual([[1n, DomainState.ENDED, EndReason.GUEST_SHUTDOWN]]);
  });

  it('takes the power after the timeout', async () => {
    const rig = await running({ faults: { ignoreShutdown: true } });
    rig.desire([desiredVm(1, 1n, { run: DesiredRun.SHUTDOWN })]);
    await rig.clock.advance(59_000);
    expect(state(rig)[0]?.[1]).toBe(DomainState.STOPPING);
    await rig.clock.advance(4000);
    expect(state(rig)).toEqual([[1n, DomainState.ENDED, EndReason.DESTROYED]]);
    expect(rig.reported(1)[0]?.message).toMatch(/did not shut down within 60000 ms/);
  });

  it('takes the power at once when told, also of a guest that was asked before', async () => {
    const rig = await running({ faults: { ignoreShutdown: true } });
    rig.desire([desiredVm(1, 1n, { run: DesiredRun.SHUTDOWN })]);
    await rig.clock.advance(3000);
    rig.desire([desiredVm(1, 1n, { run: DesiredRun.POWER_OFF })]);
    await rig.clock.advance(1000);
    expect(state(rig)).toEqual([[1n, DomainState.ENDED, EndReason.DESTROYED]]);
  });

  it('reports as ended what is to be off and was never started', async () => {
    const rig = new Rig();
    rig.startAgent();
    await rig.clock.advance(1000);
    rig.desire([desiredVm(1, 1n, { run: DesiredRun.POWER_OFF })]);
    await rig.clock.advance(1000);
    expect(state(rig)).toEqual([[1n, DomainState.ENDED, EndReason.DESTROYED]]);
    rig.desire([desiredVm(1, 1n)]);
    await rig.clock.advance(5000);
    expect(rig.starts(1)).toEqual([]);
  });

  it('leaves guests alone when the agent stops', async () => {
    const rig = await running();
    await rig.agent.stop();
    await rig.clock.advance(30_000);
    expect(rig.machine.domains.map((domain) => domain.state)).toEqual(['running']);
  });
});

describe('agent: how far the cluster store was', () => {
  const known = (rig: Rig) => rig.cluster.leader.report?.storeRevision;
  const mark = (rig: Rig, revision: bigint) =>
    rig.cluster.leader.send({ message: { $case: 'storeMark', value: { revision } } });

  it('is remembered over its life, from marks and from orders, and never falls', async () => {
    const rig = await running();
    mark(rig, 40n);
    await rig.clock.advance(6_000);
    expect(known(rig)).toBe(40n);
    mark(rig, 7n);
    // A leader of a restored store: its term is newer, its revision is not.
    rig.desireAt({ term: 30n, generation: 31n }, [desiredVm(1, 1n)]);
    await rig.clock.advance(6_000);
    expect(rig.cluster.leader.report?.accepted).toEqual({ term: 30n, generation: 31n });
    expect(known(rig)).toBe(40n);
    rig.killAgent();
    rig.startAgent();
    await rig.clock.advance(6_000);
    expect(known(rig)).toBe(40n);
    rig.desireAt({ term: 50n, generation: 51n }, [desiredVm(1, 1n)]);
    await rig.clock.advance(6_000);
    expect(known(rig)).toBe(51n);
  });
});
