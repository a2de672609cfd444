// SPDX-License-Identifier: Apache-2.0
import { type Clock, withDeadline } from '@busbar/core/clock/clock';
import { errorChain } from '@busbar/core/errors';
import type { BootId, VmId } from '@busbar/core/ids';
import type { Logger } from '@busbar/core/log';
import { type Metrics, timed } from '@busbar/core/metrics';
import { Pulse } from '@busbar/core/pulse';
import {
  DesiredRun,
  type DesiredState,
  type DomainReport,
  type StatePosition,
} from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { DomainEnd, DomainObservation, HostDriver } from '../driver/host-driver.ts';
import { Discoveries } from '../telemetry/discoveries.ts';
import { AGENT_METRICS } from '../telemetry/metrics.ts';
import { acceptDesired, type Desired } from './desired.ts';
import { execute } from './execute.ts';
import { MemoryKeeper } from './keeper.ts';
import { afterAccepting, isOver, type MemoryStore, max, pruned } from './memory.ts';
import { isOfBoot, type Plan, plan } from './plan.ts';
import { strayDomain, suspects } from './strays.ts';
import { NO_TRACK, type Observation, type VmTrack } from './track.ts';
import { Waker } from './waker.ts';

const LIST_DEADLINE_MS = 15_000;
/** Hints may be lost: the hypervisor is listed at least this often. */
const LIST_EVERY_MS = 5000;
/** While the hypervisor does not answer, and to keep a burst of hints from becoming a burst of listings. */
const AFTER_FAILURE_MS = 1000;
const BETWEEN_TICKS_MS = 10;
/** Ends that wait for a listing; beyond it the oldest are forgotten and their domains found missing, without a reason. */
const ENDS_LIMIT = 1000;
/** The driver connects while the agent starts; until then a refusal is no news. */
const CONNECT_MS = 2000;

export interface ReconcilerOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly driver: HostDriver;
  readonly store: MemoryStore;
  readonly bootId: BootId;
  readonly metrics: Metrics;
  /** Why the host may not start VMs, as far as the lease goes; empty when it may. */
  noLease(): string;
  /** The picture changed. */
  onChange(): void;
}

/** What the controllers are told, apart from the lease. */
export interface Picture {
  readonly accepted: StatePosition;
  readonly storeRevision: bigint;
  readonly domains: readonly DomainReport[];
  readonly healthy: boolean;
  readonly notes: readonly string[];
}

/**
 * Keeps the VMs of this host as the leader wants them. It owns the memory, the tracks and every call
 * that changes a domain. One tick at a time lists, plans and launches actions; actions run beside
 * it, one per VM. Whatever happens (a hint, a new desired state, an action that ended, the lease)
 * only wakes the next tick, which looks at everything again.
 */
export class Reconciler {
  /** Beats with each round. */
  readonly pulse: Pulse;
  readonly #options: ReconcilerOptions;
  readonly #discoveries: Discoveries;
  readonly #keeper: MemoryKeeper;
  readonly #waker: Waker;
  readonly #actions = new Set<Promise<void>>();
  #tracks: ReadonlyMap<VmId, VmTrack> = new Map();
  #desired: Desired | undefined;
  #observation: Observation | undefined;
  #ends: readonly DomainEnd[] = [];
  #listProblem = 'domains were not listed yet';
  #triedToList = false;
  #startedAtMs = 0;
  #step = 0;
  #report: Plan['report'] = { domains: [], notes: [] };
  #reported: string | undefined;
  #refused = '';
  #stopped = false;
  /** A desired state that came before the memory was read. */
  #early: DesiredState | undefined;
  #loaded = false;
  readonly #abort = new AbortController();
  #hints: Disposable | undefined;
  #loop: Promise<void> | undefined;

  constructor(options: ReconcilerOptions) {
    this.#options = options;
    this.pulse = new Pulse(options.clock);
    this.#discoveries = new Discoveries(options.metrics);
    this.#waker = new Waker(options.clock);
    this.#keeper = new MemoryKeeper({ ...options, onProblemChanged: () => this.wake() });
  }

  start(): void {
    this.#startedAtMs = this.#options.clock.nowMs();
    this.#hints = this.#options.driver.onHint(() => {
      this.#discoveries.hinted();
      this.wake();
    });
    this.#loop = this.#run();
  }

  wake(): void {
    this.#waker.wake();
  }

  /** Takes a newer desired state; it may only be believed from a verified controller. */
  accept(state: DesiredState): void {
    if (!this.#loaded) {
      this.#early = state;
      return;
    }
    const verdict = acceptDesired(state, this.#keeper.memory.accepted, this.#options.bootId);
    if (!verdict.ok) {
      if (verdict.error !== this.#refused)
        this.#options.logger.warn({ reason: verdict.error }, 'desired state refused');
      this.#refused = verdict.error;
      return;
    }
    this.#refused = '';
    this.#desired = verdict.value;
    const raised = afterAccepting(this.#keeper.memory.vms, verdict.value);
    const kept = (vmId: VmId) => verdict.value.vms.has(vmId) || this.#tracks.has(vmId);
    const { term, generation } = verdict.value.position;
    const storeRevision = max(this.#keeper.memory.storeRevision, max(term, generation));
    this.#keeper.update({ accepted: verdict.value.position, storeRevision, vms: pruned(raised, kept) });
    this.#keeper.save();
    this.wake();
  }

  /** The cluster store is known to be as far as this; it may only be believed from a verified controller. */
  remember(storeRevision: bigint): void {
    // The next one, ten seconds later, finds the memory read.
    if (!this.#loaded || storeRevision <= this.#keeper.memory.storeRevision) return;
    this.#keeper.update({ storeRevision });
    this.#keeper.save();
    this.wake();
  }

  /** What keeps the hypervisor from answering; empty when it does. */
  get hypervisorProblem(): string {
    const { healthy, message } = this.#options.driver.health();
    return healthy ? this.#listProblem : message;
  }

  /** Undefined until it was tried to list domains: an empty list would be a lie. */
  picture(): Picture | undefined {
    if (!this.#triedToList) return undefined;
    const notes = [this.hypervisorProblem, this.#keeper.problem, this.#refused, ...this.#report.notes];
    return {
      accepted: this.#keeper.memory.accepted,
      storeRevision: this.#keeper.memory.storeRevision,
      domains: this.#report.domains,
      healthy: this.hypervisorProblem === '',
      notes: notes.filter((note) => note !== ''),
    };
  }

  /** No driver call is begun after this; those under way are left to themselves. Guests are not touched. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.pulse.rest();
    this.#abort.abort(new Error('the agent stops'));
    this.#hints?.[Symbol.dispose]();
    this.#keeper.stop();
    this.#waker.stop();
    await this.#loop;
  }

  async #run(): Promise<void> {
    await this.#keeper.load();
    this.#tracks = this.#tracksAtStart();
    this.#loaded = true;
    if (this.#early !== undefined) this.accept(this.#early);
    const seconds = this.#options.metrics.histogram(AGENT_METRICS.roundSeconds);
    while (!this.#stopped) {
      this.pulse.beat();
      const tick = () => this.#tick();
      const wakeAtMs = await timed(this.#options.clock, tick, (took) => seconds.observe({}, took));
      await this.#waker.sleep(BETWEEN_TICKS_MS, wakeAtMs - this.#options.clock.nowMs());
    }
  }

  #tracksAtStart(): Map<VmId, VmTrack> {
    const open = [...this.#keeper.memory.vms].filter(([, memory]) => !isOver(memory));
    return new Map(open.map(([vmId]) => [vmId, { ...NO_TRACK, formerBoot: this.#keeper.rebooted }]));
  }

  /** Returns when the next one is due. */
  async #tick(): Promise<number> {
    const { clock, driver } = this.#options;
    // Before the listing: an end is believed only if a listing that began afterwards agrees.
    this.#ends = [...this.#ends, ...driver.takeEnds()].slice(-ENDS_LIMIT);
    const listed = await this.#list();
    if (this.#stopped) return 0;
    const ends = listed ? this.#ends : [];
    if (listed) this.#ends = [];
    const result = plan({
      nowMs: clock.nowMs(),
      desired: this.#desired,
      memory: this.#keeper.memory.vms,
      tracks: this.#tracks,
      observation: this.#observation,
      ends,
      noStart: this.#noStart(),
      bootId: this.#options.bootId,
    });
    this.#tracks = result.tracks;
    if (result.memory !== this.#keeper.memory.vms) {
      this.#keeper.update({ vms: result.memory });
      this.#keeper.save();
    }
    this.#report = result.report;
    for (const action of result.actions) this.#launch(action);
    this.#tellChange();
    const nextListMs = clock.nowMs() + (listed ? LIST_EVERY_MS : AFTER_FAILURE_MS);
    return Math.min(result.wakeAtMs, nextListMs);
  }

  async #list(): Promise<boolean> {
    const { clock, logger } = this.#options;
    const step = this.#nextStep();
    const begunAtMs = clock.nowMs();
    this.#discoveries.listing();
    try {
      const list = () => this.#listAll();
      const domains = await withDeadline(clock, LIST_DEADLINE_MS, 'listing domains', list, this.#abort.signal);
      this.#discoveries.listed(domains);
      this.#observation = { domains, step, begunAtMs, fresh: true };
      if (this.#listProblem !== '') logger.info({ domains: domains.length }, 'hypervisor answers');
      this.#listProblem = '';
      this.#triedToList = true;
      return true;
    } catch (error) {
      this.#discoveries.failed();
      if (this.#observation === undefined && begunAtMs - this.#startedAtMs < CONNECT_MS) return false;
      const problem = errorChain(error);
      if (!this.#stopped && problem !== this.#listProblem) logger.warn({ err: error }, 'hypervisor does not answer');
      this.#listProblem = problem;
      this.#triedToList = true;
      if (this.#observation !== undefined) this.#observation = { ...this.#observation, fresh: false };
      return false;
    }
  }

  /** What the hypervisor lists, and what it has lost though it runs. */
  async #listAll(): Promise<readonly DomainObservation[]> {
    const { driver } = this.#options;
    const domains = await driver.listDomains();
    const suspected = this.#suspects(domains);
    if (suspected.size === 0) return domains;
    const alive = await driver.haveProcess([...suspected.keys()]);
    if (alive.size === 0) return domains;
    // Again: it may have come up between the two looks.
    const now = await driver.listDomains();
    const strays = [...this.#suspects(now)].filter(([vmId]) => alive.has(vmId));
    return [...now, ...strays.map(([vmId, epoch]) => strayDomain(vmId, epoch, this.#desired))];
  }

  #suspects(domains: readonly DomainObservation[]): ReadonlyMap<VmId, bigint> {
    const found = suspects({ desired: this.#desired, memory: this.#keeper.memory.vms, domains, ends: this.#ends });
    // What is being started is missing for a while, and no listing from before the start's end is concluded from (learn.ts).
    return new Map([...found].filter(([vmId]) => this.#tracks.get(vmId)?.busy !== 'start'));
  }

  #noStart(): string {
    const { healthy, message } = this.#options.driver.health();
    const told = this.#desired?.noStart ?? '';
    return this.#keeper.problem || this.#options.noLease() || (healthy ? told : message);
  }

  #mayStart(vmId: VmId, epoch: bigint): boolean {
    const vm = this.#desired?.vms.get(vmId);
    const wanted = vm?.epoch === epoch && vm.run === DesiredRun.RUNNING && isOfBoot(vm, this.#options.bootId);
    const ordered = (this.#desired?.destroyUpTo.get(vmId) ?? 0n) >= epoch;
    return !this.#stopped && wanted && !ordered && this.#noStart() === '';
  }

  #launch(action: Plan['actions'][number]): void {
    const running = execute(
      {
        ...this.#options,
        keeper: this.#keeper,
        mayStart: (vmId, epoch) => this.#mayStart(vmId, epoch),
        track: (vmId) => this.#tracks.get(vmId) ?? NO_TRACK,
        setTrack: (vmId, track) => {
          this.#tracks = new Map(this.#tracks).set(vmId, track);
        },
        nextStep: () => this.#nextStep(),
      },
      action,
    ).finally(() => {
      this.#actions.delete(running);
      // There are no more of these than actions, and somebody waits for what came of it.
      this.#waker.wakeAtOnce();
    });
    this.#actions.add(running);
  }

  #tellChange(): void {
    const picture = JSON.stringify(this.picture(), (_key, value: unknown) =>
      typeof value === 'bigint' ? `${value}` : value,
    );
    if (picture === this.#reported) return;
    this.#reported = picture;
    this.#options.onChange();
  }

  #nextStep(): number {
    this.#step++;
    return this.#step;
  }
}
