// SPDX-License-Identifier: Apache-2.0
import { VirtualClock } from '@busbar/core/clock/virtual';
import type { VmId } from '@busbar/core/ids';
import { type Logger, silentLogger } from '@busbar/core/log';
import { type Random, seededRandom } from '@busbar/core/random';
import { DesiredRun, type DesiredVm, type DomainReport, DomainState } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { IsolationPolicy } from '@busbar/proto/gen/busbar/v1/vm';
import { type Agent, createAgent } from './agent.ts';
import { testSpec } from './driver/domain.fixture.ts';
import { InMemoryStore, type Memory, type MemoryStore } from './reconcile/memory.ts';
import { ScriptedCluster } from './session/scripted-cluster.fixture.ts';
import type { SimChange } from './sim/domain.ts';
import { SimHostDriver } from './sim/driver.ts';
import { SimMachine, type SimMachineOptions } from './sim/machine.ts';

/** A disk that fills up, or hangs, on command. */
export class TestStore implements MemoryStore {
  readonly #disk = new InMemoryStore();
  full = false;
  /** Called when a save has reached the disk, before anybody is told. */
  onSaved: (memory: Memory) => void = () => {};

  load(): Promise<Memory | undefined> {
    return this.#disk.load();
  }

  async save(memory: Memory): Promise<void> {
    if (this.full) throw new Error('ENOSPC: no space left on device');
    await this.#disk.save(memory);
    this.onSaved(memory);
  }
}

export const vmId = (n: number): VmId => `6695eb01-f6a4-4304-89aa-${n.toString(16).padStart(12, '0')}` as VmId;

export function desiredVm(n: number, epoch: bigint, vm: Partial<DesiredVm> = {}): DesiredVm {
  return {
    vmId: vmId(n),
    name: `vm-${n}`,
    epoch,
    run: DesiredRun.RUNNING,
    shutdownTimeoutMs: 60_000,
    domain: testSpec(),
    isolationPolicy: IsolationPolicy.ISOLATE,
    bootId: '',
    ...vm,
  };
}

/** One simulated host with its agent, and three controllers that the test plays. */
export class Rig {
  readonly clock = new VirtualClock();
  readonly cluster = new ScriptedCluster(this.clock);
  readonly store = new TestStore();
  readonly machine: SimMachine;
  /** Every change of a domain, by the machine itself. */
  readonly changes: (SimChange & { readonly atMs: number })[] = [];
  readonly #random: Random;
  readonly #logger: Logger;
  #agent: Agent | undefined;
  #driver: SimHostDriver | undefined;
  #generation = 0n;

  constructor(options: Partial<SimMachineOptions> & { readonly seed?: number; readonly logger?: Logger } = {}) {
    this.#random = seededRandom(options.seed ?? 1);
    this.#logger = options.logger ?? silentLogger;
    this.machine = new SimMachine({ clock: this.clock, random: this.#random, ...options });
    this.machine.observe((change) => this.changes.push({ ...change, atMs: this.clock.nowMs() }));
  }

  get agent(): Agent {
    if (this.#agent === undefined) throw new Error('no agent runs');
    return this.#agent;
  }

  get driver(): SimHostDriver {
    if (this.#driver === undefined) throw new Error('no agent runs');
    return this.#driver;
  }

  startAgent(): void {
    this.#driver = new SimHostDriver(this.machine, this.clock);
    this.#agent = createAgent({
      clock: this.clock,
      random: this.#random,
      logger: this.#logger,
      dialer: this.cluster,
      driver: this.#driver,
      store: this.store,
      bootId: this.machine.bootId,
      version: '0.0.0',
      config: {
        host: 'h1',
        managementAddress: '10.0.0.1',
        storageAddress: '10.1.0.1',
        controllers: this.cluster.config,
      },
    });
    this.#agent.start();
  }

  /** As abrupt as kill -9: nothing more is sent or begun. */
  killAgent(): void {
    void this.#agent?.stop();
    void this.#driver?.close();
    this.#agent = undefined;
  }

  /** Sends a newer state than all before, as the leader. */
  desire(vms: readonly DesiredVm[], destroy: readonly { vmId: VmId; epochMax: bigint }[] = [], term = 1n): void {
    this.#generation++;
    this.desireAt({ term, generation: this.#generation }, vms, destroy);
  }

  desireAt(
    position: { term: bigint; generation: bigint },
    vms: readonly DesiredVm[],
    destroy: readonly { vmId: VmId; epochMax: bigint }[] = [],
    more: { readonly bootId?: string; readonly noStart?: string } = {},
  ): void {
    this.cluster.leader.desire({ position, vms: [...vms], destroy: [...destroy], ...more });
  }

  /** What the leader was told last of a VM. */
  reported(n: number): readonly DomainReport[] {
    return this.cluster.leader.report?.domains.filter((domain) => domain.vmId === vmId(n)) ?? [];
  }

  async until(condition: () => boolean, limitMs: number, what: string): Promise<void> {
    if (await this.clock.advanceUntil(condition, limitMs)) return;
    throw new Error(`not within ${limitMs} ms: ${what}; report: ${this.cluster.leader.report?.message}`);
  }

  /** How often domains of a VM began to start, with the epochs. */
  starts(n: number): bigint[] {
    return this.changes
      .filter((change) => change.kind === 'state' && change.from === null && change.domain.vmId === vmId(n))
      .map((change) => change.domain.epoch);
  }
}

/** A rig whose agent holds a lease and whose leader wants VM 1, epoch 1, running; it runs. */
export async function running(options: ConstructorParameters<typeof Rig>[0] = {}): Promise<Rig> {
  const rig = new Rig(options);
  rig.startAgent();
  await rig.until(() => rig.agent.leaseRemainingMs() > 0, 5000, 'a lease');
  rig.desire([desiredVm(1, 1n)]);
  await rig.until(() => rig.reported(1)[0]?.state === DomainState.RUNNING, 10_000, 'VM 1 running');
  return rig;
}

export async function ready(): Promise<Rig> {
  const rig = new Rig();
  rig.startAgent();
  await rig.clock.advance(1000);
  return rig;
}

/** Epoch, state and end of VM 1 as the leader was told last. */
export const state = (rig: Rig) => rig.reported(1).map((domain) => [domain.epoch, domain.state, domain.endReason]);
