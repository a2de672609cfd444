// SPDX-License-Identifier: Apache-2.0

import { numRuns } from '@busbar/core/testing/runs.fixture';
import { DesiredRun, DomainState, SessionResponse } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { DiskBus, Firmware, IsolationPolicy, NicModel } from '@busbar/proto/gen/busbar/v1/vm';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { desiredVm, Rig, running, vmId } from './agent.fixture.ts';
import { testSpec } from './driver/domain.fixture.ts';
import { decode, encode } from './reconcile/memory-file.ts';

/**
 * Goal: whatever a controller sends (a bug, another version, a taken-over one), the agent lives, keeps its lease by the other
 * controllers, keeps a memory that the next agent can read, and obeys the next good word. What a *believed* controller orders
 * is obeyed: that is what it is for; so hostile means malformed here, and the VMs in it are not VM 1.
 */
const int64 = fc.oneof(
  fc.constantFrom(0n, 1n, 2n, -1n, 2n ** 63n - 1n, -(2n ** 63n)),
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
);
const int32 = fc.oneof(fc.constantFrom(0, 1, -1, 2 ** 31 - 1, -(2 ** 31)), fc.integer());
const word = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 20 }),
  fc.constantFrom('__proto__', 'constructor', '../../etc/passwd', '\0', 'x'.repeat(5000)),
);
const id = fc.oneof(word, fc.integer({ min: 2, max: 5 }).map(vmId), fc.constant(vmId(2).toUpperCase()));
const anyOf = <T extends string>(known: Readonly<Record<string, T>>) => fc.constantFrom(...Object.values(known));
const maybe = <T>(one: fc.Arbitrary<T>) => fc.option(one, { nil: undefined });

const domain = fc.record({
  vcpus: int32,
  topology: maybe(fc.record({ sockets: int32, cores: int32, threads: int32 })),
  cpuModel: word,
  memoryBytes: int64,
  firmware: anyOf(Firmware),
  disks: fc.array(
    fc.record({
      name: word,
      volumeId: word,
      source: maybe(
        fc.oneof(
          fc.record({ $case: fc.constant('file' as const), value: fc.record({ path: word }) }),
          fc.record({ $case: fc.constant('rbd' as const), value: fc.record({ pool: word, image: word }) }),
        ),
      ),
      bus: anyOf(DiskBus),
      bootOrder: int32,
    }),
    { maxLength: 3 },
  ),
  nics: fc.array(
    fc.record({
      name: word,
      bridge: word,
      macAddress: word,
      vlanTag: int32,
      trunkVlans: fc.array(int32, { maxLength: 3 }),
      model: anyOf(NicModel),
    }),
    {
      maxLength: 2,
    },
  ),
  cloudInit: maybe(fc.record({ instanceId: word, hostname: word, userData: word, networkConfig: word })),
});
const desired = fc.record({
  // A later good state must be newer: its term is 10.
  position: maybe(fc.record({ term: fc.bigInt({ min: -3n, max: 9n }), generation: int64 })),
  vms: fc.array(
    fc.record({
      vmId: id,
      name: word,
      epoch: int64,
      run: anyOf(DesiredRun),
      shutdownTimeoutMs: int32,
      domain: maybe(domain),
      isolationPolicy: anyOf(IsolationPolicy),
    }),
    { maxLength: 4 },
  ),
  destroy: fc.array(fc.record({ vmId: id, epochMax: int64 }), { maxLength: 4 }),
});
const message = fc.oneof(
  { weight: 4, arbitrary: desired.map((value) => ({ $case: 'desired' as const, value })) },
  int64.map((number) => ({ $case: 'heartbeatAck' as const, value: { number } })),
  fc
    .record({
      controller: word,
      controllers: fc.array(word, { maxLength: 4 }),
      heartbeatIntervalMs: int32,
      leaseTtlMs: int32,
    })
    .map((value) => ({ $case: 'welcome' as const, value })),
  fc
    .record({ ticket: word, vmId: id, tailBytes: int64, follow: fc.boolean() })
    .map((value) => ({ $case: 'attach' as const, value })),
  fc.constant(undefined),
);

it('lives through anything that a controller says, and obeys the next good word', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(message, { minLength: 1, maxLength: 12 }), fc.integer(), async (messages, seed) => {
      const rig = await running({ seed });
      const hostile = rig.cluster.get('h2');
      for (const said of messages) {
        // As it would come over the wire: what cannot be encoded is no message.
        hostile.send(
          SessionResponse.decode(
            SessionResponse.encode(SessionResponse.fromPartial({ message: said } as never)).finish(),
          ),
        );
        await rig.clock.advance(200);
        expect(rig.agent.leaseRemainingMs()).toBeGreaterThan(0);
        // What is remembered can be read again.
        const memory = await rig.store.load();
        if (memory !== undefined) expect(decode(encode(memory))).toEqual(memory);
      }
      expect(rig.starts(1)).toEqual([1n]);
      const before = rig.cluster.leader.reports.length;
      rig.desireAt({ term: 10n, generation: 1n }, [desiredVm(1, 1n), desiredVm(9, 1n)]);
      await rig.until(() => rig.reported(9)[0]?.state === DomainState.RUNNING, 30_000, 'VM 9 running');
      expect(rig.cluster.leader.reports.length).toBeGreaterThan(before);
      expect(rig.reported(1).map(({ epoch, state }) => [epoch, state])).toEqual([[1n, DomainState.RUNNING]]);
      // The next agent reads it, too.
      rig.killAgent();
      rig.startAgent();
      await rig.until(() => rig.reported(9)[0]?.state === DomainState.RUNNING, 30_000, 'VM 9 adopted');
      expect(rig.starts(9)).toEqual([1n]);
      await rig.agent.stop();
    }),
    { numRuns: numRuns(100) },
  );
});

it('a flood of attach orders ends in a bounded number of streams', async () => {
  const rig = new Rig();
  rig.startAgent();
  await rig.clock.advance(1000);
  for (let n = 0; n < 500; n++) {
    rig.cluster.leader.send({ message: { $case: 'attach', value: { ticket: `t${n}`, vmId: vmId(1), follow: true } } });
  }
  await rig.clock.advance(100);
  expect(rig.cluster.attached.length).toBeLessThanOrEqual(32);
  expect(rig.agent.leaseRemainingMs()).toBeGreaterThan(0);
});

it('a spec without a machine starts nothing, and says so', async () => {
  const rig = new Rig();
  rig.startAgent();
  await rig.clock.advance(1000);
  rig.desire([desiredVm(1, 1n, { domain: undefined }), desiredVm(2, 1n, { domain: testSpec() })]);
  await rig.until(() => rig.reported(2)[0]?.state === DomainState.RUNNING, 10_000, 'VM 2 running');
  expect(rig.starts(1)).toEqual([]);
});
