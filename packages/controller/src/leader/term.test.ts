// SPDX-License-Identifier: Apache-2.0
import { settle } from '@busbar/core/clock/virtual';
import { silentLogger } from '@busbar/core/log';
import {
  HostReport,
  type SessionRequest,
  type SessionResponse,
  type StatePosition,
  SessionRequest as Up,
} from '@busbar/proto/gen/busbar/agent/v1/agent';
import { HostInventory, HostRole, HostState } from '@busbar/proto/gen/busbar/v1/host';
import { OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import { CreateVmRequest } from '@busbar/proto/gen/busbar/v1/vm';
import { CreateVolumeRequest } from '@busbar/proto/gen/busbar/v1/volume';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { NO_BUS } from '../event/bus.ts';
import { putRecord } from '../records/kinds.ts';
import { Rig } from '../testing/rig.ts';
import type { Leader } from './leader.ts';
import { lead } from './term.ts';

let rig: Rig;
let over: AbortController;
let leading: Promise<void>;
let writes: number;
let away: boolean;
let refuses: string;

beforeEach(async () => {
  rig = new Rig();
  await rig.start();
  over = new AbortController();
  writes = 0;
  away = false;
  refuses = '';
});
afterEach(async () => {
  over.abort();
  await rig.clock.advance(10_000);
  await leading;
  rig.stop();
});

function begin(): void {
  const { host, store, sessions, storage, policy, audit, seal, random, alarms } = rig.api;
  const leader: Leader = {
    term: 5n,
    signal: over.signal,
    txn: async (transaction) => {
      if (transaction.writes.some(({ key }) => key.endsWith(`/${refuses}`))) throw new Error('too large');
      if (away) throw Object.assign(new Error('away'), {});
      writes++;
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
}

/** An agent that says hello, sends its inventory and beats. */
function agent(
  host: string,
  inventory: HostInventory,
): { received: SessionResponse[]; report: (message: string) => void } {
  const queue: SessionRequest[] = [
    Up.fromPartial({
      message: { $case: 'hello', value: { host, role: HostRole.HYPERVISOR, bootId: 'b', agentInstanceId: 'i' } },
    }),
    { message: { $case: 'inventory', value: inventory } },
  ];
  let wake = () => {};
  let sequence = 0n;
  let accepted: StatePosition | undefined;
  let words = '';
  const send = (message: SessionRequest['message']) => {
    queue.push({ message });
    wake();
  };
  const report = (message: string) => {
    words = message;
    send({
      $case: 'report',
      value: HostReport.fromPartial({
        sequence: ++sequence,
        hypervisorHealthy: message === '',
        message,
        leaseRemainingMs: 2_000,
        ...(accepted === undefined ? {} : { accepted }),
      }),
    });
  };
  report('');
  const beat = () => {
    send({ $case: 'heartbeat', value: { number: 1n } });
    rig.clock.timer(250, beat);
  };
  rig.clock.timer(250, beat);
  // Reports are due every 5 s.
  const again = () => {
    report(words);
    rig.clock.timer(5_000, again);
  };
  rig.clock.timer(5_000, again);
  async function* up() {
    for (;;) {
      const next = queue.shift();
      if (next !== undefined) yield next;
      else await new Promise<void>((resolve) => (wake = resolve));
    }
  }
  const received: SessionResponse[] = [];
  void (async () => {
    for await (const message of rig.api.sessions.session(host, '10.0.0.2', up(), over.signal)) {
      received.push(message);
      if (message.message?.$case !== 'desired') continue;
      accepted = message.message.value.position;
      report('');
    }
  })();
  return { received, report };
}
const inventory = HostInventory.fromPartial({ memoryBytes: 64n * 1024n ** 3n, cpu: { onlineCpus: 8 } });
const desires = (received: SessionResponse[]) => received.filter(({ message }) => message?.$case === 'desired').length;
const stateOf = (host: string) => rig.view.tables['host-status'].get(host)?.record.state;

describe('a term', () => {
  it('makes records of hosts, publishes what changes and only that, and then is quiet', async () => {
    const { received, report } = agent('host2', inventory);
    begin();
    await rig.clock.advance(2_000);
    expect(stateOf('host2')).toBe(HostState.READY);
    expect(rig.view.tables.host.get('host2')?.record.meta?.name).toBe('host2');
    expect(desires(received)).toBe(1);
    await rig.clock.advance(10_000);
    const quiet = writes;
    report('');
    await rig.clock.advance(60_000);
    expect(desires(received)).toBe(1);
    expect(writes - quiet).toBeLessThanOrEqual(3);
    // host1 of the rig has no agent: everything can only go to host2.
    const request = CreateVmRequest.fromPartial({
      name: 'relay',
      spec: { cpu: { vcpus: 1 }, memoryBytes: 1024n ** 3n },
    });
    await rig.call('VmService', 'createVm', request);
    await rig.clock.advance(2_000);
    expect(desires(received)).toBe(2);
  });

  it('is not stopped by one host that cannot be recorded', async () => {
    agent('host0', inventory);
    refuses = 'host0';
    const { report } = agent('host2', inventory);
    begin();
    await rig.clock.advance(3_000);
    expect(stateOf('host0')).not.toBe(HostState.READY);
    expect(stateOf('host2')).toBe(HostState.READY);
    report('libvirtd is gone');
    await rig.clock.advance(1_000);
    expect(stateOf('host2')).toBe(HostState.DEGRADED);
  });

  it('is not stopped by one VM that cannot be planned', async () => {
    agent('host2', inventory);
    begin();
    await rig.clock.advance(8_000);
    const request = (name: string) =>
      CreateVmRequest.fromPartial({ name, spec: { cpu: { vcpus: 1 }, memoryBytes: 1024n ** 3n } });
    await rig.call('VmService', 'createVm', request('a-broken'));
    await rig.clock.advance(1_000);
    const broken = rig.view.tables.vm.find('a-broken');
    if (broken === undefined) throw new Error('no VM');
    const record = {
      ...broken.record,
      spec: {
        ...broken.record.spec,
        get nics(): never {
          throw new Error('bad record');
        },
      },
    };
    rig.view.tables.vm.set({ ...broken, record: record as never });
    await rig.call('VmService', 'createVm', request('good')).catch(() => {});
    await settle();
    await rig.clock.advance(2_000);
    expect(stateOf('host2')).toBe(HostState.READY);
  });

  it.each([
    ['hangs', Number.POSITIVE_INFINITY, 5_000],
    ['ends', 1_000, 1_000],
  ])('waits for a step that %s, but not for ever', async (_how, stepMs, endsAfterMs) => {
    rig.api.storage.createVolume = () =>
      new Promise((resolve) => {
        if (Number.isFinite(stepMs)) rig.clock.timer(stepMs, () => resolve(undefined as never));
      });
    begin();
    await rig.clock.advance(1_000);
    let ended = false;
    void leading.then(() => {
      ended = true;
    });
    const request = CreateVolumeRequest.fromPartial({ name: 'disk', spec: { sizeBytes: 1024n ** 3n } });
    await rig.call('VolumeService', 'createVolume', request);
    const phase = () => rig.view.tables.operation.sorted()[0]?.record.operation?.state;
    await rig.clock.advanceUntil(() => phase() === OperationState.RUNNING, 5_000);
    await settle();
    over.abort();
    await rig.clock.advance(endsAfterMs - 50);
    expect(ended).toBe(false);
    await rig.clock.advance(100);
    expect(ended).toBe(true);
  });

  it('goes on after the store was away, and stops when it is over', async () => {
    agent('host2', inventory);
    begin();
    away = true;
    await rig.clock.advance(20_000);
    away = false;
    await rig.clock.advance(2_000);
    expect(stateOf('host2')).toBe(HostState.READY);
    over.abort();
    await rig.clock.advance(10_000);
    await leading;
    expect(rig.api.sessions.published('host2')).toBeNull();
    const before = writes;
    await rig.run(
      rig.api.store.txn({
        compare: [],
        writes: [
          putRecord('volume', 'x', {
            meta: undefined,
            spec: undefined,
            phase: 'VOLUME_PHASE_READY',
            ownerVmId: '',
            growingToBytes: 0n,
          }),
        ],
      }),
    );
    await rig.clock.advance(10_000);
    expect(writes).toBe(before);
  });
});
