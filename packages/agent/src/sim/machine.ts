// SPDX-License-Identifier: Apache-2.0
import { assert } from '@busbar/core/assert';
import type { Clock } from '@busbar/core/clock/clock';
import { formatCpuList } from '@busbar/core/cpu-list';
import { errorChain } from '@busbar/core/errors';
import type { BootId, VmId } from '@busbar/core/ids';
import type { Random } from '@busbar/core/random';
import { move } from '@busbar/core/state-table';
import type { HostInventory } from '@busbar/proto/gen/busbar/v1/host';
import type { ObservedPlacement } from '@busbar/proto/gen/busbar/v1/vm';
import type { HostCpus } from '../domain/facts.ts';
import { observationOf, tuningOf } from '../domain/tuning.ts';
import type { DomainEnd, StartRequest } from '../driver/host-driver.ts';
import { consoleUnavailable, domainExists, domainNotFound, domainStartFailed } from '../driver/refusals.ts';
import {
  echoGuest,
  SIM_DOMAIN_STATES,
  type SimChange,
  type SimDomain,
  type SimDomainState,
  type SimGuest,
  SimSerial,
} from './domain.ts';
import { type LatencyRange, SimEffects } from './effects.ts';
import { DEFAULT_LATENCIES, noFaults, type SimFaults, type SimLatencies } from './faults.ts';
import { simInventory } from './topology.ts';

export interface SimMachineOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** [automatic] */
  readonly mode?: 'automatic' | 'stepped';
  readonly inventory?: HostInventory;
  readonly latencies?: Partial<SimLatencies>;
  readonly faults?: Partial<SimFaults>;
  readonly guest?: SimGuest;
}

/** What a driver that is attached to the machine is told. */
export interface SimMachineListener {
  hint(): void;
  end(end: DomainEnd): void;
  hypervisorChanged(): void;
  poweredOff(): void;
}

interface MutableDomain extends SimDomain {
  state: SimDomainState;
  message: string;
  linksUp: boolean;
  /** Rejects the start that is under way. */
  failStart: ((why: string) => void) | null;
}

/**
 * A simulated host: its power, its hypervisor and its domains. It outlives the drivers (agents)
 * attached to it, as the real thing does. Deterministic for a VirtualClock and a seeded Random.
 */
export class SimMachine {
  readonly effects: SimEffects;
  readonly faults: SimFaults;
  readonly latencies: SimLatencies;
  inventory: HostInventory;
  readonly #random: Random;
  readonly #guest: SimGuest;
  /** By VM, epoch and volume: what QEMU was asked to grow. */
  readonly #diskSizes = new Map<string, bigint>();
  readonly #domains = new Map<VmId, MutableDomain>();
  readonly #serials = new Map<VmId, SimSerial>();
  readonly #listeners = new Set<SimMachineListener>();
  readonly #observers = new Set<(change: SimChange) => void>();
  #bootId: BootId;
  #poweredOn = true;
  #storageFenced = false;

  constructor(options: SimMachineOptions) {
    this.effects = new SimEffects(options.clock, options.random, options.mode ?? 'automatic');
    this.faults = { ...noFaults(), ...options.faults };
    this.latencies = { ...DEFAULT_LATENCIES, ...options.latencies };
    this.inventory = options.inventory ?? simInventory();
    this.#random = options.random;
    this.#guest = options.guest ?? echoGuest;
    this.#bootId = this.#random.uuid() as BootId;
  }

  /** As in /proc/sys/kernel/random/boot_id. */
  get bootId(): BootId {
    return this.#bootId;
  }

  get poweredOn(): boolean {
    return this.#poweredOn;
  }

  #cpus(): HostCpus {
    const { numaNodes, isolatedCpus } = this.inventory;
    return {
      online: numaNodes.flatMap(({ cpus }) => cpus),
      isolated: isolatedCpus,
      ofNode: new Map(numaNodes.map(({ id, cpus }) => [id, cpus])),
      pretended: false,
    };
  }

  /** Everything that exists now, whatever the hypervisor says. */
  get domains(): readonly SimDomain[] {
    return [...this.#domains.values()];
  }

  /** What the hypervisor knows of. */
  get listed(): readonly SimDomain[] {
    return this.domains.filter(({ vmId }) => !this.faults.lost.has(vmId));
  }

  domain(vmId: VmId): SimDomain | null {
    return this.#domains.get(vmId) ?? null;
  }

  /** Whether this VM's guest can change its disks right now: what no two machines may ever say of one VM. */
  canWrite(vmId: VmId): boolean {
    const domain = this.#domains.get(vmId);
    return domain?.state === 'running' && !(this.#storageFenced && writesShared(domain));
  }

  /** Told of every change at the moment it happens. */
  observe(observer: (change: SimChange) => void): Disposable {
    this.#observers.add(observer);
    return { [Symbol.dispose]: () => this.#observers.delete(observer) };
  }

  attach(listener: SimMachineListener): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
  }

  /** Pulls the plug: every domain is gone at once and nobody is told. Drivers of this boot are dead for good. */
  powerOff(): void {
    if (!this.#poweredOn) return;
    this.#poweredOn = false;
    this.effects.clear();
    for (const domain of [...this.#domains.values()]) this.#remove(domain, 'the host lost its power');
    const listeners = [...this.#listeners];
    this.#listeners.clear();
    for (const listener of listeners) listener.poweredOff();
  }

  /** A new boot: new boot id, no domains, hypervisor up. Attach new drivers. */
  powerOn(): void {
    if (this.#poweredOn) return;
    this.#poweredOn = true;
    this.#bootId = this.#random.uuid() as BootId;
    this.#storageFenced = false;
    this.faults.hypervisor = 'up';
  }

  /** Nothing happens on the machine until `thaw`, though its state stays (kernel hang, SMI, paused nested host). */
  freeze(): void {
    this.effects.freeze();
  }

  thaw(): void {
    this.effects.thaw();
  }

  setHypervisor(state: SimFaults['hypervisor']): void {
    if (this.faults.hypervisor === state) return;
    this.faults.hypervisor = state;
    for (const listener of [...this.#listeners]) listener.hypervisorChanged();
  }

  /** Cuts the machine from shared storage: running guests meet an I/O error at once and pause (error_policy=stop). */
  fenceStorage(): void {
    this.#storageFenced = true;
    for (const domain of this.#domains.values()) {
      if (domain.state === 'running' && writesShared(domain)) {
        this.#to(domain, 'paused', 'I/O error on a disk');
      }
    }
  }

  unfenceStorage(): void {
    this.#storageFenced = false;
  }

  /** QEMU dies. */
  crashDomain(vmId: VmId, message = 'QEMU was killed by signal 9'): void {
    const domain = this.#domains.get(vmId);
    if (domain !== undefined) this.#end(domain, 'crashed', message);
  }

  /** The guest powers off by itself. */
  powerOffGuest(vmId: VmId): void {
    const domain = this.#domains.get(vmId);
    if (domain?.state === 'running') this.#guestPowersOff(domain);
  }

  // What follows is the hypervisor's side; SimHostDriver calls it.

  start(request: StartRequest): Promise<void> {
    const { vmId, name, epoch } = request;
    if (this.#domains.has(vmId)) return Promise.reject(domainExists(vmId, name));
    if ([...this.#domains.values()].some((other) => other.name === name)) {
      return Promise.reject(domainStartFailed(name, 'another domain has this name'));
    }
    let placement: ObservedPlacement;
    try {
      placement = observationOf(tuningOf(request.domain, this.#cpus()), formatCpuList);
    } catch (error) {
      return Promise.reject(domainStartFailed(name, errorChain(error)));
    }
    return new Promise((resolve, reject) => {
      const domain: MutableDomain = {
        vmId,
        name,
        epoch,
        spec: request.domain,
        state: 'starting',
        message: '',
        linksUp: true,
        placement,
        failStart: (why) => reject(domainStartFailed(name, why)),
      };
      this.#domains.set(vmId, domain);
      this.#tell({ kind: 'state', domain, from: null });
      if (this.faults.hangStarts) return;
      this.effects.after(`start ${name}`, this.latencies.start, () => {
        if (domain.state !== 'starting') return;
        const failure = this.faults.failNextStarts.shift();
        if (failure !== undefined) {
          this.#remove(domain, failure);
          this.#hint();
          return;
        }
        domain.failStart = null;
        this.#to(domain, 'running', '');
        this.#boot(domain);
        resolve();
      });
    });
  }

  shutdown(vmId: VmId): void {
    const domain = this.#domains.get(vmId);
    if (domain?.state !== 'running' || this.faults.lost.has(vmId)) return;
    const { ignoreShutdown } = this.faults;
    if (typeof ignoreShutdown === 'boolean' ? ignoreShutdown : ignoreShutdown.has(vmId)) return;
    this.effects.after(`guest shutdown ${domain.name}`, this.latencies.guestShutdown, () => {
      if (domain.state === 'running') this.#guestPowersOff(domain);
    });
  }

  destroy(vmId: VmId): Promise<void> {
    const domain = this.#domains.get(vmId);
    if (domain === undefined) return Promise.resolve();
    return new Promise((resolve) => {
      this.effects.after(`destroy ${domain.name}`, this.latencies.destroy, () => {
        this.#end(domain, 'destroyed', 'its power was taken');
        resolve();
      });
    });
  }

  setLinks(vmId: VmId, up: boolean): void {
    const domain = this.#domains.get(vmId);
    if (domain === undefined || this.faults.lost.has(vmId)) throw domainNotFound(vmId);
    if (domain.linksUp === up) return;
    domain.linksUp = up;
    this.#tell({ kind: 'links', domain });
  }

  growDisk(vmId: VmId, volumeId: string, sizeBytes: bigint): bigint {
    const domain = this.#domains.get(vmId);
    const disk = domain?.spec.disks.find((each) => each.volumeId === volumeId);
    if (domain === undefined || disk === undefined || this.faults.lost.has(vmId)) throw domainNotFound(vmId);
    const key = `${vmId}/${domain.epoch}/${volumeId}`;
    const has = this.#diskSizes.get(key) ?? 0n;
    if (has < sizeBytes) this.#diskSizes.set(key, sizeBytes);
    return has < sizeBytes ? sizeBytes : has;
  }

  serial(vmId: VmId): SimSerial | null {
    return this.#serials.get(vmId) ?? null;
  }

  type(vmId: VmId, input: Uint8Array): void {
    const domain = this.#domains.get(vmId);
    if (domain === undefined) throw consoleUnavailable(vmId, 'the domain ended');
    if (domain.state === 'running') this.#guest.onInput(domain, input, this.#printer(domain));
  }

  #boot(domain: MutableDomain): void {
    if (domain.spec.serialConsole) {
      const serial = this.#serials.get(domain.vmId) ?? new SimSerial(domain.vmId);
      this.#serials.set(domain.vmId, serial);
      serial.truncate();
    }
    this.#guest.onStart(domain, this.#printer(domain));
    const { crashAfterMs } = this.faults;
    if (crashAfterMs !== null) {
      const exactly: LatencyRange = [crashAfterMs, crashAfterMs];
      this.effects.after(`crash ${domain.name}`, exactly, () => this.#end(domain, 'crashed', 'QEMU crashed'));
    }
    if (this.#storageFenced && writesShared(domain)) {
      this.#to(domain, 'paused', 'I/O error on a disk');
    }
  }

  #printer(domain: SimDomain): (text: string) => void {
    return (text) => this.#serials.get(domain.vmId)?.print(Buffer.from(text));
  }

  #guestPowersOff(domain: MutableDomain): void {
    this.#to(domain, 'shutting-down', '');
    this.effects.after(`teardown ${domain.name}`, this.latencies.teardown, () =>
      this.#end(domain, 'guest-shutdown', 'the guest powered off'),
    );
  }

  #end(domain: MutableDomain, reason: DomainEnd['reason'], message: string): void {
    if (domain.state === 'ended') return;
    const wasStarting = domain.state === 'starting';
    this.#remove(domain, message);
    // A start that failed is told to its caller, not as an end.
    if (!wasStarting && !this.faults.lost.has(domain.vmId) && !this.faults.loseEvents) {
      const end: DomainEnd = { vmId: domain.vmId, epoch: domain.epoch, reason, message };
      if (this.faults.hypervisor === 'up') for (const listener of [...this.#listeners]) listener.end(end);
    }
    this.#hint();
  }

  #remove(domain: MutableDomain, message: string): void {
    assert(this.#domains.get(domain.vmId) === domain, `domain ${domain.name} is gone already`);
    this.#domains.delete(domain.vmId);
    const failStart = domain.failStart;
    domain.failStart = null;
    this.#to(domain, 'ended', message);
    this.#serials.get(domain.vmId)?.live.end();
    failStart?.(message);
  }

  #to(domain: MutableDomain, state: SimDomainState, message: string): void {
    const from = domain.state;
    domain.state = move(SIM_DOMAIN_STATES, from, state);
    domain.message = message;
    this.#tell({ kind: 'state', domain, from });
    if (state !== 'ended') this.#hint();
  }

  #tell(change: SimChange): void {
    for (const observer of [...this.#observers]) observer(change);
  }

  #hint(): void {
    if (!this.#poweredOn || this.faults.hypervisor !== 'up' || this.faults.loseEvents) return;
    this.effects.after('hint', this.latencies.hint, () => {
      for (const listener of [...this.#listeners]) listener.hint();
    });
  }
}

function writesShared(domain: SimDomain): boolean {
  return domain.spec.disks.some((disk) => !disk.readOnly && disk.source?.$case === 'rbd');
}
