// SPDX-License-Identifier: Apache-2.0
// What the hypervisor says is not so: a domain that it lost while QEMU runs on, an end told too late.
import type { Epoch } from '@busbar/core/ids';
import { DesiredRun, DomainState, EndReason } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { describe, expect, it } from 'vitest';
import { desiredVm, Rig, ready, running, state, vmId } from './agent.fixture.ts';
import { Ends } from './libvirt/ends.ts';
import { EVENT, STOPPED } from './libvirt/words.ts';
import { STRAY } from './reconcile/strays.ts';

const one = vmId(1);
const RUNS = [[1n, DomainState.RUNNING, EndReason.UNSPECIFIED]];

/** Every epoch of VM 1 that any report so far called ended. */
const toldEnded = (rig: Rig) =>
  rig.cluster.all.flatMap(({ reports }) =>
    reports.flatMap(({ domains }) => domains.filter((domain) => domain.vmId === one && isEnd(domain.state))),
  );
const isEnd = (told: DomainState) => told === DomainState.ENDED;

describe('agent: a domain that the hypervisor has lost while its QEMU runs', () => {
  async function lost() {
    const rig = await running();
    rig.machine.faults.lost = new Set([one]);
    await rig.clock.advance(30_000);
    return rig;
  }

  it('is reported as running, so that nobody starts it elsewhere, and is not destroyed', async () => {
    const rig = await lost();
    expect(state(rig)).toEqual(RUNS);
    expect(rig.reported(1)[0]?.message).toBe(STRAY);
    expect(toldEnded(rig)).toEqual([]);
    expect(rig.machine.canWrite(one)).toBe(true);
  });

  it('also by an agent that was restarted meanwhile', async () => {
    const rig = await lost();
    rig.killAgent();
    rig.startAgent();
    await rig.clock.advance(30_000);
    expect(state(rig)).toEqual(RUNS);
    expect(toldEnded(rig)).toEqual([]);
  });

  it('is told as ended once its QEMU is gone', async () => {
    const rig = await lost();
    rig.machine.crashDomain(one);
    await rig.clock.advance(10_000);
    expect(state(rig)).toEqual([[1n, DomainState.ENDED, EndReason.VANISHED]]);
  });

  it('is found again', async () => {
    const rig = await lost();
    rig.machine.faults.lost = new Set();
    await rig.clock.advance(6000);
    expect(rig.reported(1)).toMatchObject([{ state: DomainState.RUNNING, message: '' }]);
    expect(rig.starts(1)).toEqual([1n]);
  });

  it.each([
    ['when power off is ordered', (rig: Rig) => rig.desire([desiredVm(1, 1n, { run: DesiredRun.POWER_OFF })])],
    ['when its destruction is ordered', (rig: Rig) => rig.desire([], [{ vmId: one, epochMax: 1n }])],
  ])('is destroyed %s', async (_, order) => {
    const rig = await lost();
    order(rig);
    await rig.clock.advance(10_000);
    expect(rig.machine.domains).toEqual([]);
    expect(rig.reported(1).filter((line) => !isEnd(line.state))).toEqual([]);
  });

  it('gives way to a newer epoch on this host', async () => {
    const rig = await lost();
    rig.desire([desiredVm(1, 2n)]);
    await rig.until(() => rig.machine.domain(one)?.epoch === 2n, 10_000, 'epoch 2');
    rig.machine.faults.lost = new Set();
    await rig.clock.advance(6000);
    expect(state(rig)).toEqual([[2n, DomainState.RUNNING, EndReason.UNSPECIFIED]]);
  });

  describe('and of which the agent remembers nothing', () => {
    async function forgotten() {
      const rig = new Rig();
      rig.startAgent();
      await rig.clock.advance(1000);
      rig.desire([desiredVm(1, 1n)]);
      await rig.until(() => rig.machine.canWrite(one), 10_000, 'VM 1 running');
      rig.killAgent();
      rig.machine.faults.lost = new Set([one]);
      rig.store.load = () => Promise.resolve(undefined);
      for (const { reports } of rig.cluster.all) reports.length = 0;
      rig.startAgent();
      await rig.clock.advance(1000);
      return rig;
    }

    it('keeps a start from becoming an end', async () => {
      const rig = await forgotten();
      rig.desire([desiredVm(1, 2n)]);
      await rig.clock.advance(30_000);
      expect(rig.starts(1)).toEqual([1n]);
      expect(toldEnded(rig)).toEqual([]);
      expect(rig.reported(1)).toMatchObject([{ epoch: 2n, state: DomainState.RUNNING, message: STRAY }]);
    });

    it.each([
      ['power off', (rig: Rig) => rig.desire([desiredVm(1, 2n, { run: DesiredRun.POWER_OFF })])],
      ['a destroy order', (rig: Rig) => rig.desire([], [{ vmId: one, epochMax: 1n }])],
    ])('%s ends it before it is called over', async (_, order) => {
      const rig = await forgotten();
      rig.machine.observe(({ domain }) => {
        if (domain.state !== 'ended') return;
        expect(toldEnded(rig)).toEqual([]);
      });
      order(rig);
      await rig.clock.advance(10_000);
      expect(rig.machine.domains).toEqual([]);
    });
  });

  it('the processes are looked at only when an end may be concluded', async () => {
    const rig = await ready();
    let looks = 0;
    const look = rig.driver.haveProcess.bind(rig.driver);
    rig.driver.haveProcess = (vmIds) => {
      looks++;
      return look(vmIds);
    };
    rig.desire([desiredVm(1, 1n)]);
    await rig.until(() => rig.machine.canWrite(one), 10_000, 'VM 1 running');
    looks = 0;
    await rig.clock.advance(60_000);
    expect(looks).toBe(0);
    rig.machine.crashDomain(one);
    await rig.clock.advance(60_000);
    expect(looks).toBeGreaterThan(0);
    expect(looks).toBeLessThan(4);
    expect(state(rig)).toEqual([[1n, DomainState.ENDED, EndReason.CRASHED]]);
  });

  it('concludes nothing while the processes cannot be looked at', async () => {
    const rig = await running();
    rig.driver.haveProcess = () => Promise.reject(new Error('EMFILE: too many open files'));
    rig.machine.crashDomain(one);
    await rig.clock.advance(20_000);
    expect(toldEnded(rig)).toEqual([]);
    expect(rig.cluster.leader.report?.message).toMatch(/EMFILE/);
  });
});

describe('agent: an end that is told too late', () => {
  it('of an earlier epoch does not end the one that runs', async () => {
    const rig = await running();
    const ends = new Ends();
    ends.listed([{ vmId: one, epoch: 1n as Epoch }], true);
    rig.desire([desiredVm(1, 2n)]);
    await rig.until(() => state(rig)[0]?.[0] === 2n && rig.machine.canWrite(one), 20_000, 'epoch 2 running');
    // libvirt's event of the end of epoch 1 sat in a queue until epoch 2 had started: it is taken for the end of 2.
    ends.starting(one, 2n as Epoch);
    ends.started(one);
    ends.onEvent({ type: 'lifecycle', uuid: one, event: EVENT.stopped, detail: STOPPED.failed });
    const late = [...ends.take()];
    expect(late).toMatchObject([{ vmId: one, epoch: 2n, reason: 'crashed' }]);
    const take = rig.driver.takeEnds.bind(rig.driver);
    rig.driver.takeEnds = () => [...late.splice(0), ...take()];
    await rig.clock.advance(30_000);
    expect(late).toEqual([]);
    expect(toldEnded(rig).filter(({ epoch }) => epoch === 2n)).toEqual([]);
    expect(state(rig)).toEqual([[2n, DomainState.RUNNING, EndReason.UNSPECIFIED]]);
    expect(rig.machine.domain(one)).toMatchObject({ epoch: 2n, state: 'running' });
    // Its own end is told as ever.
    rig.machine.crashDomain(one);
    await rig.clock.advance(2000);
    expect(state(rig)).toEqual([[2n, DomainState.ENDED, EndReason.CRASHED]]);
  });

  it('waits for a listing: what was told while the hypervisor did not answer is judged when it does', async () => {
    const rig = await running();
    rig.machine.setHypervisor('hung');
    await rig.clock.advance(10_000);
    const take = rig.driver.takeEnds.bind(rig.driver);
    const told = [{ vmId: one, epoch: 1n as Epoch, reason: 'crashed' as const, message: 'QEMU died' }];
    rig.driver.takeEnds = () => [...told.splice(0), ...take()];
    await rig.clock.advance(10_000);
    expect(told).toEqual([]);
    expect(toldEnded(rig)).toEqual([]);
    rig.machine.setHypervisor('up');
    await rig.clock.advance(10_000);
    expect(state(rig)).toEqual(RUNS);
  });
});
