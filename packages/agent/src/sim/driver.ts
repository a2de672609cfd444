// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import { sleep, withDeadline } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import type { BootId, VmId } from '@busbar/core/ids';
import type { HostInventory } from '@busbar/proto/gen/busbar/v1/host';
import type { ObservedPlacement } from '@busbar/proto/gen/busbar/v1/vm';
import type { ConsoleLink, DomainEnd, DomainObservation, HostDriver, StartRequest } from '../driver/host-driver.ts';
import { consoleUnavailable, domainNotFound, hypervisorTimeout, hypervisorUnavailable } from '../driver/refusals.ts';
import type { SimDomain } from './domain.ts';
import type { LatencyRange } from './effects.ts';
import type { SimMachine } from './machine.ts';

/** Ends that wait for `takeEnds`; the oldest are forgotten, as the contract is a best effort. */
const ENDS_LIMIT = 1000;

/** The deadlines of the real driver. */
const CALL_DEADLINE_MS = 5000;
const START_DEADLINE_MS = 60_000;
/** A hung libvirtd is noticed by keepalive: 3 × 1 s without an answer, and the one that was just sent. */
const KEEPALIVE_MS = 4000;

type Connection = 'connecting' | 'connected' | 'lost' | 'closed';

/** A HostDriver on a simulated machine. Make a new one for every (re)start of an agent. */
export class SimHostDriver implements HostDriver {
  readonly kind = 'sim';
  readonly #machine: SimMachine;
  readonly #clock: Clock;
  readonly #bootId: BootId;
  readonly #hints = new Set<() => void>();
  readonly #closed = new AbortController();
  #attachment: Disposable | null = null;
  #connection: Connection = 'lost';
  #why = 'not started';
  #ends: DomainEnd[] = [];

  constructor(machine: SimMachine, clock: Clock) {
    this.#machine = machine;
    this.#clock = clock;
    this.#bootId = machine.bootId;
  }

  start(): void {
    if (this.#attachment !== null || this.#connection === 'closed') return;
    this.#attachment = this.#machine.attach({
      hint: () => this.#connection === 'connected' && this.#hint(),
      end: (end) => this.#connection === 'connected' && this.#addEnd(end),
      hypervisorChanged: () => this.#hypervisorChanged(),
      poweredOff: () => this.#shut('the host lost its power'),
    });
    this.#hypervisorChanged();
  }

  async inventory(): Promise<HostInventory> {
    const inventory = structuredClone(this.#machine.inventory);
    if (this.#connection !== 'connected' && inventory.versions !== undefined) {
      inventory.versions.libvirt = '';
      inventory.versions.qemu = '';
    }
    return inventory;
  }

  listDomains(): Promise<readonly DomainObservation[]> {
    return this.#call('list domains', () =>
      this.#machine.listed.map((domain) => observe(domain, this.#machine.faults.tampered.get(domain.vmId))),
    );
  }

  haveProcess(vmIds: readonly VmId[]): Promise<ReadonlySet<VmId>> {
    if (!this.#alive()) return Promise.reject(hypervisorUnavailable(this.#why));
    return Promise.resolve(new Set(vmIds.filter((vmId) => this.#machine.domain(vmId) !== null)));
  }

  async startDomain(request: StartRequest): Promise<void> {
    await this.#call(`start ${request.name}`, () => this.#machine.start(request), START_DEADLINE_MS);
  }

  async shutdownDomain(vmId: VmId): Promise<void> {
    await this.#call(`shut down ${vmId}`, () => this.#machine.shutdown(vmId));
  }

  async destroyDomain(vmId: VmId): Promise<void> {
    const { hypervisor } = this.#machine.faults;
    if (hypervisor !== 'up' && this.#alive()) {
      // The real driver kills QEMU itself when the hypervisor does not answer.
      const latency: LatencyRange =
        hypervisor === 'hung' ? [CALL_DEADLINE_MS, CALL_DEADLINE_MS] : this.#machine.latencies.call;
      const domain = this.#machine.domain(vmId);
      await this.#effect(`kill ${vmId}`, latency, () => this.#machine.destroy(vmId));
      if (domain !== null) this.#addEnd({ vmId, epoch: domain.epoch, reason: 'destroyed', message: 'QEMU was killed' });
      return;
    }
    await this.#call(`destroy ${vmId}`, () => this.#machine.destroy(vmId));
  }

  async setLinks(vmId: VmId, up: boolean): Promise<void> {
    await this.#call(`set links of ${vmId}`, () => this.#machine.setLinks(vmId, up));
  }

  async growDisk(vmId: VmId, disk: { readonly volumeId: string; readonly sizeBytes: bigint }): Promise<bigint> {
    // A QEMU that stands still answers nobody; its hypervisor does.
    if (this.#machine.faults.frozen.has(vmId)) {
      await sleep(this.#clock, CALL_DEADLINE_MS, this.#closed.signal);
      throw hypervisorTimeout(`grow a disk of ${vmId}`, CALL_DEADLINE_MS);
    }
    return await this.#call(`grow a disk of ${vmId}`, () =>
      this.#machine.growDisk(vmId, disk.volumeId, disk.sizeBytes),
    );
  }

  onHint(listener: () => void): Disposable {
    const entry = () => listener();
    this.#hints.add(entry);
    return { [Symbol.dispose]: () => this.#hints.delete(entry) };
  }

  takeEnds(): readonly DomainEnd[] {
    const ends = this.#ends;
    this.#ends = [];
    return ends;
  }

  health(): { readonly healthy: boolean; readonly message: string } {
    return this.#connection === 'connected' ? { healthy: true, message: '' } : { healthy: false, message: this.#why };
  }

  async openConsole(vmId: VmId, signal: AbortSignal): Promise<ConsoleLink> {
    const serial = await this.#call(`open the console of ${vmId}`, () => {
      const domain = this.#machine.domain(vmId);
      if (domain === null) throw domainNotFound(vmId);
      const line = domain.spec.serialConsole ? this.#machine.serial(vmId) : null;
      if (line === null) throw consoleUnavailable(vmId, 'it has none');
      return line;
    });
    const reader = serial.live.subscribe(AbortSignal.any([signal, this.#closed.signal]));
    return {
      output: reader.output,
      write: async (input) => {
        await this.#effect(`type to ${vmId}`, this.#machine.latencies.call, () => this.#machine.type(vmId, input));
      },
      close: () => reader.close(),
    };
  }

  async *readSerialLog(
    vmId: VmId,
    options: { readonly tailBytes: number; readonly follow: boolean; readonly signal: AbortSignal },
  ): AsyncIterable<Uint8Array> {
    const signal = AbortSignal.any([options.signal, this.#closed.signal]);
    const serial = this.#machine.serial(vmId);
    if (serial === null) throw domainNotFound(vmId);
    const live = options.follow ? serial.followers.subscribe(signal) : null;
    const tail = serial.tail(options.tailBytes);
    if (tail.length > 0) yield tail;
    if (live !== null) yield* live.output;
  }

  async close(): Promise<void> {
    this.#shut('the driver was closed');
  }

  #alive(): boolean {
    return this.#connection !== 'closed' && this.#machine.poweredOn && this.#machine.bootId === this.#bootId;
  }

  async #call<T>(what: string, work: () => T | Promise<T>, deadlineMs = CALL_DEADLINE_MS): Promise<T> {
    if (this.#connection !== 'connected') throw hypervisorUnavailable(this.#why);
    try {
      return await withDeadline(
        this.#clock,
        deadlineMs,
        what,
        () => this.#effect(what, this.#machine.latencies.call, work),
        this.#closed.signal,
      );
    } catch (error) {
      if (error instanceof BusbarError && error.reason === 'DEADLINE_EXCEEDED') {
        throw hypervisorTimeout(what, deadlineMs);
      }
      throw error;
    }
  }

  /** Runs `work` on the machine after a latency; never while the hypervisor is hung. */
  #effect<T>(what: string, latency: LatencyRange, work: () => T | Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#machine.effects.after(what, latency, () => {
        const { hypervisor } = this.#machine.faults;
        const needsHypervisor = !what.startsWith('kill ');
        if (needsHypervisor && hypervisor === 'hung') return;
        if (needsHypervisor && hypervisor === 'down') reject(hypervisorUnavailable('connection lost'));
        else new Promise<T>((done) => done(work())).then(resolve, reject);
      });
    });
  }

  #hypervisorChanged(): void {
    const state = this.#machine.faults.hypervisor;
    if (!this.#alive()) {
      this.#shut('the host lost its power');
    } else if (state === 'down') {
      this.#lose('connection refused');
    } else if (state === 'up') {
      if (this.#connection === 'connected') return;
      this.#connection = 'connecting';
      this.#why = 'connecting';
      this.#machine.effects.after('connect', this.#machine.latencies.connect, () => {
        if (this.#connection !== 'connecting' || this.#machine.faults.hypervisor !== 'up') return;
        this.#connection = 'connected';
        this.#hint();
      });
    } else {
      this.#machine.effects.after('keepalive', [KEEPALIVE_MS, KEEPALIVE_MS], () => {
        if (this.#machine.faults.hypervisor === 'hung') this.#lose('no answer to keepalive');
      });
    }
  }

  #lose(why: string): void {
    if (this.#connection === 'closed') return;
    this.#connection = 'lost';
    this.#why = why;
    this.#hint();
  }

  #shut(why: string): void {
    if (this.#connection === 'closed') return;
    this.#connection = 'closed';
    this.#why = why;
    this.#attachment?.[Symbol.dispose]();
    this.#closed.abort(hypervisorUnavailable(why));
    this.#hints.clear();
  }

  #addEnd(end: DomainEnd): void {
    this.#ends.push(end);
    if (this.#ends.length > ENDS_LIMIT) this.#ends.shift();
  }

  #hint(): void {
    for (const listener of [...this.#hints]) listener();
  }
}

function observe(domain: SimDomain, tampered: Partial<ObservedPlacement> | undefined): DomainObservation {
  const { vmId, name, epoch, spec, state, message } = domain;
  const placement = tampered === undefined ? domain.placement : { ...domain.placement, ...tampered };
  const seen = { vmId, name, epoch, specRevision: spec.specRevision, placement };
  switch (state) {
    case 'running':
    case 'shutting-down':
      return { ...seen, state, message: '' };
    case 'paused':
      return { ...seen, state, message };
    case 'starting':
      // As libvirt shows it: there from the first moment, its CPUs not running yet.
      return { ...seen, state: 'paused', message: 'starting up' };
    case 'ended':
      return { ...seen, state: 'shutting-down', message: '' };
  }
}
