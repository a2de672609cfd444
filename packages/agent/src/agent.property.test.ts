// SPDX-License-Identifier: Apache-2.0
// Random histories of one host, judged by what the simulated machine really did.
import type { VmId } from '@busbar/core/ids';
import { DesiredRun, DomainState } from '@busbar/proto/gen/busbar/agent/v1/agent';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { desiredVm, Rig, vmId } from './agent.fixture.ts';
import { hypervisorTimeout } from './driver/refusals.ts';

const VMS = [1, 2, 3];

type Step =
  | { kind: 'assign'; vm: number; run: DesiredRun; newer: boolean }
  | { kind: 'unassign' | 'order' | 'crash' | 'guest-off'; vm: number }
  | { kind: 'stale' }
  | { kind: 'cut' | 'controllers'; on: boolean }
  | { kind: 'hypervisor'; state: 'up' | 'down' | 'hung' }
  | { kind: 'disk'; full: boolean }
  | { kind: 'kill' | 'power-cycle' }
  | { kind: 'lose-starts' | 'lose-events'; on: boolean }
  | { kind: 'lose'; vm: number; on: boolean }
  | { kind: 'fail-start' }
  | { kind: 'pass'; ms: number };

const vm = fc.constantFrom(...VMS);
const only = <const K extends string>(kind: K) => fc.record({ kind: fc.constant(kind) });
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('assign' as const),
      vm,
      run: fc.constantFrom(DesiredRun.RUNNING, DesiredRun.RUNNING, DesiredRun.SHUTDOWN, DesiredRun.POWER_OFF),
      newer: fc.boolean(),
    }),
  },
  fc.record({
    kind: fc.constantFrom('unassign' as const, 'order' as const, 'crash' as const, 'guest-off' as const),
    vm,
  }),
  fc.record({ kind: fc.constantFrom('cut' as const, 'controllers' as const), on: fc.boolean() }),
  fc.record({
    kind: fc.constant('hypervisor' as const),
    state: fc.constantFrom('up' as const, 'down' as const, 'hung' as const),
  }),
  fc.record({ kind: fc.constant('disk' as const), full: fc.boolean() }),
  fc.record({ kind: fc.constantFrom('lose-starts' as const, 'lose-events' as const), on: fc.boolean() }),
  fc.record({ kind: fc.constant('lose' as const), vm, on: fc.boolean() }),
  only('stale'),
  only('kill'),
  only('power-cycle'),
  only('fail-start'),
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('pass' as const), ms: fc.integer({ min: 1, max: 9000 }) }) },
);

/** The leader's side of the story, and the checks. */
class History {
  readonly rig: Rig;
  readonly assigned = new Map<number, { epoch: bigint; run: DesiredRun }>();
  readonly newest = new Map<number, bigint>();
  readonly orders = new Map<number, bigint>();
  /** `vm/epoch` of what the leader ever allowed to be destroyed. */
  readonly mayDestroy = new Set<string>();
  readonly started = new Set<string>();
  readonly toldEnded = new Set<string>();
  readonly violations: string[] = [];
  #losesStarts = false;

  constructor(seed: number) {
    this.rig = new Rig({ seed });
    this.rig.machine.observe((change) => {
      if (change.kind !== 'state' || change.from !== null) return;
      const key = `${change.domain.vmId}/${change.domain.epoch}`;
      if (this.started.has(key)) this.violations.push(`${key} was started twice`);
      this.started.add(key);
    });
    this.startAgent();
  }

  startAgent(): void {
    const { rig } = this;
    rig.startAgent();
    const { driver, agent } = rig;
    const start = driver.startDomain.bind(driver);
    driver.startDomain = async (request) => {
      if (agent.leaseRemainingMs() <= 0) this.violations.push(`${request.name} was started without a lease`);
      if (rig.store.full) this.violations.push(`${request.name} was started without a record`);
      if (!this.#losesStarts) return start(request);
      // The call is lost, or only its answer is.
      if (request.epoch % 2n === 0n) void start(request).catch(() => {});
      throw hypervisorTimeout(`start ${request.name}`, 60_000);
    };
    const destroy = driver.destroyDomain.bind(driver);
    driver.destroyDomain = (id) => {
      const domain = rig.machine.domain(id);
      const key = domain && `${id}/${domain.epoch}`;
      if (key && !this.mayDestroy.has(key) && !this.toldEnded.has(key)) {
        this.violations.push(`${key} was destroyed without an order`);
      }
      return destroy(id);
    };
  }

  tell(): void {
    const vms = [...this.assigned].map(([n, { epoch, run }]) => desiredVm(n, epoch, { run, shutdownTimeoutMs: 5000 }));
    for (const [n, { epoch, run }] of this.assigned) {
      for (let old = 1n; old < epoch; old++) this.mayDestroy.add(`${vmId(n)}/${old}`);
      if (run !== DesiredRun.RUNNING) this.mayDestroy.add(`${vmId(n)}/${epoch}`);
    }
    const destroy = [...this.orders].map(([n, epochMax]) => ({ vmId: vmId(n), epochMax }));
    this.rig.desire(vms, destroy);
  }

  async take(step: Step): Promise<void> {
    const { rig } = this;
    switch (step.kind) {
      case 'assign': {
        const former = this.newest.get(step.vm) ?? 0n;
        const epoch = step.newer || former === 0n || !this.assigned.has(step.vm) ? former + 1n : former;
        this.newest.set(step.vm, epoch);
        this.assigned.set(step.vm, { epoch, run: step.run });
        this.orders.delete(step.vm);
        return this.tell();
      }
      case 'unassign':
        this.assigned.delete(step.vm);
        return this.tell();
      case 'order': {
        this.assigned.delete(step.vm);
        const epochMax = this.newest.get(step.vm) ?? 0n;
        for (let old = 1n; old <= epochMax; old++) this.mayDestroy.add(`${vmId(step.vm)}/${old}`);
        this.orders.set(step.vm, epochMax);
        return this.tell();
      }
      case 'stale':
        return rig.desireAt(
          { term: 0n, generation: 10_000n },
          VMS.map((n) => desiredVm(n, 1n, { run: DesiredRun.POWER_OFF })),
        );
      case 'crash':
        return rig.machine.crashDomain(vmId(step.vm));
      case 'guest-off':
        return rig.machine.powerOffGuest(vmId(step.vm));
      case 'cut':
        return rig.cluster.cut(step.on);
      case 'controllers':
        for (const name of ['h2', 'h3']) rig.cluster.get(name).mute = step.on;
        return;
      case 'hypervisor':
        return rig.machine.setHypervisor(step.state);
      case 'disk':
        rig.store.full = step.full;
        return;
      case 'lose-starts':
        this.#losesStarts = step.on;
        return;
      case 'lose-events':
        rig.machine.faults.loseEvents = step.on;
        return;
      case 'lose': {
        const others = [...rig.machine.faults.lost].filter((id) => id !== vmId(step.vm));
        rig.machine.faults.lost = new Set(step.on ? [...others, vmId(step.vm)] : others);
        return;
      }
      case 'fail-start':
        rig.machine.faults.failNextStarts = ['QEMU does not like it'];
        return;
      case 'kill':
        rig.killAgent();
        await rig.clock.advance(100);
        return this.startAgent();
      case 'power-cycle':
        rig.killAgent();
        rig.machine.powerOff();
        await rig.clock.advance(3000);
        rig.machine.powerOn();
        return this.startAgent();
      case 'pass':
        await rig.clock.advance(step.ms);
    }
  }

  noteReports(): void {
    for (const controller of this.rig.cluster.all) {
      for (const domain of controller.reports.splice(0).flatMap((report) => report.domains)) {
        if (domain.state !== DomainState.ENDED) continue;
        const key = `${domain.vmId}/${domain.epoch}`;
        this.toldEnded.add(key);
        const alive = this.rig.machine.domain(domain.vmId as VmId);
        if (alive?.epoch === domain.epoch) this.violations.push(`${key} was reported as ended while it was there`);
      }
    }
  }
}

it('never starts an epoch twice, nor without lease or record, and destroys nothing without an order', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer(), fc.array(step, { maxLength: 40 }), async (seed, steps) => {
      const history = new History(seed);
      const { rig } = history;
      await rig.clock.advance(1000);
      for (const one of steps) {
        await history.take(one);
        history.noteReports();
      }
      expect(history.violations).toEqual([]);

      // Once all faults are gone, what is assigned and was never told to have ended runs.
      await history.take({ kind: 'lose-starts', on: false });
      await history.take({ kind: 'lose-events', on: false });
      await history.take({ kind: 'cut', on: false });
      await history.take({ kind: 'controllers', on: false });
      await history.take({ kind: 'hypervisor', state: 'up' });
      await history.take({ kind: 'disk', full: false });
      rig.machine.faults.lost = new Set();
      await rig.clock.advance(5000);
      history.tell();
      await rig.clock.advance(120_000);
      const last = rig.cluster.leader.report;
      history.noteReports();
      expect(history.violations).toEqual([]);
      for (const [n, { epoch, run }] of history.assigned) {
        const lines = last?.domains.filter((domain) => domain.vmId === vmId(n)) ?? [];
        const settled = run === DesiredRun.RUNNING ? [DomainState.RUNNING, DomainState.ENDED] : [DomainState.ENDED];
        expect(lines.map((line) => [line.epoch, settled.includes(line.state as never)])).toEqual([[epoch, true]]);
        expect(rig.machine.domain(vmId(n)) !== null).toBe(lines[0]?.state === DomainState.RUNNING);
      }
      await rig.agent.stop();
    }),
    { numRuns: Number(process.env['BUSBAR_PROPERTY_RUNS'] ?? 60) },
  );
}, 60_000);
