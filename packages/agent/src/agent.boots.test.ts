// SPDX-License-Identifier: Apache-2.0
import { DomainState, EndReason } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { describe, expect, it } from 'vitest';
import { desiredVm, ready, running, vmId } from './agent.fixture.ts';

/** What is meant for another boot of the host is not this one's: the machine may be a copy of the one that it was meant for. */
const OTHER = '00000000-0000-4000-8000-000000000000';

describe('agent: boots', () => {
  it('refuses a desired state that is for another boot, whole, and says so', async () => {
    const rig = await running();
    rig.desireAt({ term: 9n, generation: 9n }, [desiredVm(2, 1n)], [{ vmId: vmId(1), epochMax: 5n }], {
      bootId: OTHER,
    });
    await rig.clock.advance(3_000);
    expect(rig.starts(2)).toEqual([]);
    expect(rig.machine.domain(vmId(1))?.state).toBe('running');
    rig.desire([desiredVm(1, 1n)]);
    await rig.clock.advance(1_000);
    // Nor is its position remembered: what the leader says next is taken.
    expect(rig.cluster.leader.report?.accepted).toEqual({ term: 1n, generation: 2n });
  });

  it('takes one that is for its own boot', async () => {
    const rig = await ready();
    const { bootId } = rig.machine;
    rig.desireAt({ term: 1n, generation: 1n }, [desiredVm(1, 1n, { bootId })], [], { bootId });
    await rig.until(() => rig.reported(1)[0]?.state === DomainState.RUNNING, 10_000, 'VM 1 running');
  });

  it('never starts an epoch that was given to another boot, and reports it as ended', async () => {
    const rig = await ready();
    rig.desire([desiredVm(1, 4n, { bootId: OTHER })]);
    await rig.until(() => rig.reported(1)[0]?.state === DomainState.ENDED, 10_000, 'the end of epoch 4');
    expect(rig.reported(1)).toMatchObject([
      { epoch: 4n, endReason: EndReason.VANISHED, message: 'the host was rebooted' },
    ]);
    // Also when it is asked for again, as its own.
    rig.desire([desiredVm(1, 4n, { bootId: rig.machine.bootId })]);
    await rig.clock.advance(5_000);
    expect(rig.starts(1)).toEqual([]);
    rig.desire([desiredVm(1, 5n, { bootId: rig.machine.bootId })]);
    await rig.until(() => rig.reported(1)[0]?.state === DomainState.RUNNING, 10_000, 'epoch 5 running');
    expect(rig.starts(1)).toEqual([5n]);
  });

  it('starts nothing while it is told not to, says why, and leaves what runs', async () => {
    const rig = await running();
    const noStart = '2 machines say that they are this host';
    rig.desireAt({ term: 1n, generation: 50n }, [desiredVm(1, 1n), desiredVm(2, 1n)], [], { noStart });
    await rig.clock.advance(10_000);
    expect([rig.starts(1), rig.starts(2)]).toEqual([[1n], []]);
    expect(rig.machine.domain(vmId(1))?.state).toBe('running');
    expect(rig.cluster.leader.report?.message).toContain(`not started: vm-2: ${noStart}`);
    rig.desireAt({ term: 1n, generation: 51n }, [desiredVm(1, 1n), desiredVm(2, 1n)]);
    await rig.until(() => rig.starts(2).length === 1, 5_000, 'VM 2 to start');
  });
});
