// SPDX-License-Identifier: Apache-2.0

import { silentLogger } from '@busbar/core/log';
import { numRuns } from '@busbar/core/testing/runs.fixture';
import { DomainState, EndReason, SessionRequest } from '@busbar/proto/gen/busbar/agent/v1/agent';
import {
  BridgeKind,
  HostRole,
  HostState,
  ListHostsRequest,
  type ListHostsResponse,
} from '@busbar/proto/gen/busbar/v1/host';
import { CreateVmRequest, GetVmRequest, type GetVmResponse, VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { NO_BUS } from '../event/bus.ts';
import { Rig } from '../testing/rig.ts';
import { lead } from './term.ts';

/**
 * Goal: a host speaks for itself alone. Host2 runs a VM; the agent of host3, whose certificate is good, says anything at all,
 * about that VM too. The VM, its host and the leader must not notice, and the API goes on answering.
 */
type Message = Parameters<typeof SessionRequest.fromPartial>[0]['message'];

class Agent {
  readonly power = new AbortController();
  end: unknown;
  readonly #rig: Rig;
  readonly #host: string;
  readonly #queue: SessionRequest[] = [];
  #wake = () => {};
  #sequence = 0n;

  constructor(rig: Rig, host: string) {
    this.#rig = rig;
    this.#host = host;
    this.send({ $case: 'hello', value: { host, role: HostRole.HYPERVISOR, bootId: host, agentInstanceId: host } });
    void this.#drain();
    this.send({ $case: 'inventory', value: { memoryBytes: 2n ** 36n, cpu: { onlineCpus: 8 } } });
    this.#beat();
  }

  send(message: Message): void {
    // As over the wire: what cannot be encoded is no message.
    this.#queue.push(SessionRequest.decode(SessionRequest.encode(SessionRequest.fromPartial({ message })).finish()));
    this.#wake();
  }

  /** As a host that obeys. */
  report(state: DomainState = DomainState.RUNNING): void {
    const told = this.#rig.api.sessions.published(this.#host);
    const domains = (told?.vms ?? []).map(({ vmId, epoch }) => ({ vmId, epoch, state, endReason: EndReason.CRASHED }));
    const accepted = told?.position;
    const value = { sequence: ++this.#sequence, hypervisorHealthy: true, leaseRemainingMs: 2000, domains };
    this.send({ $case: 'report', value: accepted === undefined ? value : { ...value, accepted } });
  }

  async *#up(): AsyncIterable<SessionRequest> {
    for (;;) {
      const next = this.#queue.shift();
      if (next !== undefined) yield next;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  async #drain(): Promise<void> {
    try {
      for await (const _ of this.#rig.api.sessions.session(this.#host, '10.0.0.2', this.#up(), this.power.signal));
    } catch (error) {
      this.end = error;
    }
  }

  #beat(): void {
    if (this.power.signal.aborted) return;
    this.send({ $case: 'heartbeat', value: { number: 1n } });
    this.#rig.clock.timer(250, () => this.#beat());
  }
}

const int64 = fc.oneof(
  fc.constantFrom(0n, 1n, 2n, 3n, -1n, 2n ** 63n - 1n, -(2n ** 63n)),
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
);
const int32 = fc.oneof(fc.constantFrom(0, -1, 2 ** 31 - 1, -(2 ** 31)), fc.integer());
const word = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 20 }),
  fc.constantFrom('__proto__', 'host2', 'x'.repeat(3000), '\u202e\0\u0007'),
);
const anyOf = <T extends string>(known: Readonly<Record<string, T>>) => fc.constantFrom(...Object.values(known));
const OTHERS_VM = 'the VM of host2';
const report = fc.record({
  sequence: fc.bigInt({ min: 1n, max: 2n ** 40n }),
  bootId: word,
  accepted: fc.option(fc.record({ term: int64, generation: int64 }), { nil: undefined }),
  domains: fc.array(
    fc.record({
      vmId: fc.oneof({ weight: 3, arbitrary: fc.constant(OTHERS_VM) }, { weight: 1, arbitrary: word }),
      epoch: int64,
      state: anyOf(DomainState),
      endReason: anyOf(EndReason),
      message: word,
    }),
    { maxLength: 6 },
  ),
  leaseRemainingMs: int32,
  hypervisorHealthy: fc.boolean(),
  message: word,
});
const inventory = fc.record({
  managementAddress: word,
  cpu: fc.option(fc.record({ model: word, onlineCpus: int32, features: fc.array(word, { maxLength: 3 }) }), {
    nil: undefined,
  }),
  numaNodes: fc.array(fc.record({ id: int32, cpus: fc.array(int32, { maxLength: 4 }), memoryBytes: int64 }), {
    maxLength: 3,
  }),
  isolatedCpus: fc.array(int32, { maxLength: 4 }),
  memoryBytes: int64,
  bridges: fc.array(fc.record({ name: word, kind: anyOf(BridgeKind) }), { maxLength: 3 }),
  kvmUsable: fc.boolean(),
  versions: fc.option(fc.record({ agent: word, libvirt: word }), { nil: undefined }),
});
const message = fc.oneof(
  { weight: 4, arbitrary: report.map((value) => ({ $case: 'report' as const, value })) },
  inventory.map((value) => ({ $case: 'inventory' as const, value })),
  int64.map((number) => ({ $case: 'heartbeat' as const, value: { number } })),
  fc.constant({ $case: 'hello' as const, value: { host: 'host2', bootId: 'b', agentInstanceId: 'thief' } }),
  fc.constant(undefined),
);

it('whatever the agent of another host says of a VM, nothing happens to it', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(message, { minLength: 1, maxLength: 10 }), async (messages) => {
      const rig = new Rig();
      await rig.start();
      const over = new AbortController();
      const { host, store, sessions, storage, policy, audit, seal, random, alarms } = rig.api;
      const leading = lead(
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
        { term: 5n, signal: over.signal, txn: (transaction) => store.txn(transaction) },
      );
      let fault: unknown;
      leading.catch((error: unknown) => {
        fault = error;
      });
      const host2 = new Agent(rig, 'host2');
      const lives = async (ms: number) => {
        for (const endMs = rig.clock.nowMs() + ms; rig.clock.nowMs() < endMs; ) {
          host2.report();
          await rig.clock.advance(500);
        }
      };
      await lives(6_000);
      const spec = { cpu: { vcpus: 1 }, memoryBytes: 1024n ** 3n };
      await rig.call('VmService', 'createVm', CreateVmRequest.fromPartial({ name: 'relay', spec }));
      await lives(4_000);
      const vmId = rig.view.tables.vm.find('relay')?.id ?? '';
      const status = () => rig.view.tables['vm-status'].get(vmId)?.record;
      const before = status();
      expect(before).toMatchObject({ phase: VmPhase.RUNNING, host: 'host2', epoch: 1n });

      const host3 = new Agent(rig, 'host3');
      for (const said of messages) {
        if (said?.$case === 'report') {
          const domains = said.value.domains.map((one) => (one.vmId === OTHERS_VM ? { ...one, vmId } : one));
          host3.send({ ...said, value: { ...said.value, domains } } as Message);
        } else host3.send(said as Message);
        await lives(500);
        expect(status()).toEqual(before);
        // Host2 goes on being told to run it; what host3 claims to run of old epochs, host3 is told to destroy.
        expect(sessions.published('host2')).toMatchObject({ vms: [{ vmId, epoch: 1n }], destroy: [] });
        expect(sessions.published('host3')?.vms ?? []).toEqual([]);
      }
      expect(fault).toBeUndefined();
      expect(sessions.observed('host2')).toMatchObject({ connected: true, hello: { agentInstanceId: 'host2' } });
      expect(rig.view.tables['host-status'].get('host2')?.record.state).toBe(HostState.READY);
      const listed = await rig.call<ListHostsResponse>('HostService', 'listHosts', ListHostsRequest.fromPartial({}));
      expect(listed.hosts.map(({ meta }) => meta?.name)).toContain('host3');
      const got = await rig.call<GetVmResponse>('VmService', 'getVm', GetVmRequest.fromPartial({ vm: 'relay' }));
      expect(got.vm?.status?.phase).toBe(VmPhase.RUNNING);
      // What its own host says of it still counts. (It may well go to host3 then, whose lies about it count from there on.)
      host2.report(DomainState.ENDED);
      await rig.clock.advance(1_000);
      expect(status()).not.toEqual(before);

      over.abort();
      host2.power.abort();
      host3.power.abort();
      await rig.clock.advance(10_000);
      await leading;
      rig.stop();
    }),
    { numRuns: numRuns(40) },
  );
});
