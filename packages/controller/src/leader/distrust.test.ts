// SPDX-License-Identifier: Apache-2.0
import { silentLogger } from '@busbar/core/log';
import { HostReport, type SessionRequest, SessionRequest as Up } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { HostInventory, HostRole, HostState } from '@busbar/proto/gen/busbar/v1/host';
import { CreateVmRequest, VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { NO_BUS } from '../event/bus.ts';
import { REPORT_GRACE_MS, REPORT_STALE_MS } from '../host/plan.ts';
import { Rig } from '../testing/rig.ts';
import type { Leader } from './leader.ts';
import { lead } from './term.ts';

// A leader and agents that crash, go quiet or change their minds all the time. Host1 of the rig has no agent.

let rig: Rig;
let over: AbortController;
let leading: Promise<void>;
let written: string[];

beforeEach(async () => {
  rig = new Rig();
  await rig.start();
  over = new AbortController();
  written = [];
  const { host, store, sessions, storage, policy, audit, seal, random, alarms } = rig.api;
  const leader: Leader = {
    term: 5n,
    signal: over.signal,
    txn: async (transaction) => {
      written.push(...transaction.writes.map(({ key }) => key));
      return store.txn(transaction);
    },
  };
  leading = lead(
    {
      cluster: 'test',
      host,
      store,
      sessions,
      storage,
      policy,
      audit,
      seal,
      bus: NO_BUS,
      alarms,
      view: rig.view,
      clock: rig.clock,
      random,
      logger: silentLogger,
    },
    leader,
  );
});
afterEach(async () => {
  over.abort();
  await rig.clock.advance(10_000);
  await leading;
  rig.stop();
});

class FakeAgent {
  static #lives = 0;
  readonly #power = new AbortController();
  readonly #queue: SessionRequest[] = [];
  #wake = () => {};
  #sequence = 0n;

  constructor(host = 'host2') {
    const agentInstanceId = `i${FakeAgent.#lives++}`;
    this.#send({ $case: 'hello', value: { host, role: HostRole.HYPERVISOR, bootId: 'b', agentInstanceId } });
    const drain = async () => {
      for await (const _ of rig.api.sessions.session(host, '10.0.0.2', this.#up(), this.#power.signal));
    };
    void drain();
    this.#beat();
  }

  async *#up(): AsyncIterable<SessionRequest> {
    for (;;) {
      const next = this.#queue.shift();
      if (next !== undefined) yield next;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
  #send(message: Parameters<typeof Up.fromPartial>[0]['message']): void {
    this.#queue.push(Up.fromPartial({ message }));
    this.#wake();
  }
  #beat(): void {
    if (this.#power.signal.aborted || over.signal.aborted) return;
    this.#send({ $case: 'heartbeat', value: { number: 1n } });
    rig.clock.timer(250, () => this.#beat());
  }
  crash(): void {
    this.#power.abort();
  }
  inventory(memoryGib = 64n): void {
    const value = { memoryBytes: memoryGib * 1024n ** 3n, cpu: { onlineCpus: 8 } };
    this.#send({ $case: 'inventory', value: HostInventory.fromPartial(value) });
  }
  /** As a host that obeys: the newest position is accepted, every VM runs. */
  report(words = '', more: Partial<HostReport> = {}): void {
    const desired = rig.api.sessions.published('host2');
    const value = HostReport.fromPartial({
      sequence: ++this.#sequence,
      hypervisorHealthy: true,
      leaseRemainingMs: 2_000,
      ...(desired?.position === undefined ? {} : { accepted: desired.position }),
      domains: (desired?.vms ?? []).map(({ vmId, epoch }) => ({
        vmId,
        epoch,
        state: 'DOMAIN_STATE_RUNNING' as never,
        message: words,
      })),
      ...more,
    });
    this.#send({ $case: 'report', value });
  }
}

const hostState = () => rig.view.tables['host-status'].get('host2')?.record.state;
const vmStatus = () => rig.view.tables['vm-status'].sorted()[0]?.record;
const writes = (kind: string) => written.filter((key) => key.includes(`/${kind}/`)).length;
const createVm = async () => {
  const spec = { cpu: { vcpus: 1 }, memoryBytes: 1024n ** 3n };
  await rig.call('VmService', 'createVm', CreateVmRequest.fromPartial({ name: 'relay', spec }));
};
async function settled(): Promise<FakeAgent> {
  // Host1 has no agent; once that is known, everything can only go to host2.
  const agent = new FakeAgent();
  agent.inventory();
  for (let i = 0; i < 3; i++) {
    agent.report();
    await rig.clock.advance(2_000);
  }
  expect(hostState()).toBe(HostState.READY);
  return agent;
}
async function running(): Promise<FakeAgent> {
  const agent = await settled();
  await createVm();
  for (let i = 0; i < 3; i++) {
    await rig.clock.advance(1_000);
    agent.report();
  }
  await rig.clock.advance(1_000);
  expect(vmStatus()?.phase).toBe(VmPhase.RUNNING);
  return agent;
}

describe('a host whose agent', () => {
  it('crashes again and again gets no VM, is called degraded, and its VMs unknown', async () => {
    let agent = await running();
    const lives = async (ms: number) => {
      for (const endMs = rig.clock.nowMs() + ms; rig.clock.nowMs() < endMs; ) {
        agent.crash();
        agent = new FakeAgent();
        await rig.clock.advance(2_000);
      }
    };
    await lives(4_000);
    // Still what it was, for the grace – but nothing new goes there.
    expect([hostState(), vmStatus()?.phase]).toEqual([HostState.READY, VmPhase.RUNNING]);
    const spec = { cpu: { vcpus: 1 }, memoryBytes: 1024n ** 3n };
    await rig.call('VmService', 'createVm', CreateVmRequest.fromPartial({ name: 'second', spec }));
    await lives(2_000);
    const second = rig.view.tables.vm.find('second')?.id ?? '';
    const statusOfSecond = () => rig.view.tables['vm-status'].get(second)?.record;
    expect(statusOfSecond()).toMatchObject({ phase: VmPhase.PENDING, host: '' });
    expect(statusOfSecond()?.message).toContain('has not reported');
    await lives(REPORT_GRACE_MS);
    expect(hostState()).toBe(HostState.DEGRADED);
    const first = rig.view.tables['vm-status'].get(rig.view.tables.vm.find('relay')?.id ?? '')?.record;
    expect(first?.phase).toBe(VmPhase.UNKNOWN);
    agent.report();
    await rig.clock.advance(1_000);
    expect(hostState()).toBe(HostState.READY);
    expect(statusOfSecond()?.host).toBe('host2');
  });

  it('beats but does not report is degraded, and its VMs unknown, until it does again', async () => {
    const agent = await running();
    await rig.clock.advance(REPORT_STALE_MS + 1_000);
    expect(rig.view.tables['host-status'].get('host2')?.record).toMatchObject({
      state: HostState.DEGRADED,
      message: 'its agent beats but does not report',
    });
    expect(vmStatus()?.phase).toBe(VmPhase.UNKNOWN);
    agent.report();
    await rig.clock.advance(1_000);
    expect([hostState(), vmStatus()?.phase]).toEqual([HostState.READY, VmPhase.RUNNING]);
  });

  it('changes its inventory all the time has it written every ten seconds, the last one in the end', async () => {
    const agent = await settled();
    written = [];
    const memoryGib = () =>
      Number(rig.view.tables['host-status'].get('host2')?.record.inventory?.memoryBytes) / 2 ** 30;
    agent.inventory(65n);
    await rig.clock.advance(1_000);
    expect(memoryGib()).toBe(65);
    for (let i = 0; i < 60; i++) {
      agent.inventory(100n + BigInt(i));
      agent.report();
      await rig.clock.advance(1_000);
    }
    expect(writes('host-status')).toBeLessThanOrEqual(7);
    for (let i = 0; i < 3; i++) {
      agent.report();
      await rig.clock.advance(4_000);
    }
    expect(memoryGib()).toBe(159);
  });

  it('falls ill and gets well all the time is written as ill at once, as well every ten seconds', async () => {
    const agent = await settled();
    written = [];
    for (let i = 0; i < 60; i++) {
      agent.report('', { hypervisorHealthy: false });
      await rig.clock.advance(500);
      if (i === 0) expect(hostState()).toBe(HostState.DEGRADED);
      agent.report();
      await rig.clock.advance(500);
    }
    expect(writes('host-status')).toBeLessThanOrEqual(14);
    agent.report();
    await rig.clock.advance(10_000);
    expect(hostState()).toBe(HostState.READY);
  });

  it('says something else about a VM all the time has it written every five seconds', async () => {
    const agent = await running();
    written = [];
    for (let i = 0; i < 300; i++) {
      agent.report(`word ${i}`);
      await rig.clock.advance(100);
    }
    expect(writes('vm-status')).toBeLessThanOrEqual(7);
    await rig.clock.advance(5_000);
    expect(vmStatus()?.message).toBe('word 299');
    expect(vmStatus()?.phase).toBe(VmPhase.RUNNING);
  });
});
