// SPDX-License-Identifier: Apache-2.0
import { isDeepStrictEqual } from 'node:util';
import { assert } from '@busbar/core/assert';
import type { Clock } from '@busbar/core/clock/clock';
import type { Logger } from '@busbar/core/log';
import { ok, type Result, refuse } from '@busbar/core/result';
import { mayMove } from '@busbar/core/state-table';
import type { VmRecord, VmStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { HostState } from '@busbar/proto/gen/busbar/v1/host';
import type { PlacementPolicy } from '@busbar/scheduler/model';
import { isStale, reports, withinReportGrace } from '../host/plan.ts';
import { isTransient, type Leader } from '../leader/leader.ts';
import { operationOn } from '../operation/log-fields.ts';
import { putRecord } from '../records/kinds.ts';
import type { SessionRegistry } from '../session/registry.ts';
import { type Entry, unchanged } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';
import { hardwareDigest } from './domain.ts';
import { presentPlacement } from './placed.ts';
import { type DecidedPlacement, isOnHost, planVm, type VmObservation } from './plan.ts';
import { KeptPlanner } from './planner.ts';
import { type LiveVmPhase, VM_PHASES } from './state.ts';

/** A message of an unchanged phase is written at most this often. */
const MESSAGE_EVERY_MS = 5_000;

/** More would only wait in the store's line, and a host that comes back with hundreds of VMs must not take all of it. */
const WRITES_AT_ONCE = 32;

interface Change {
  readonly vm: Entry<VmRecord>;
  readonly status: Entry<VmStatusRecord>;
  readonly next: VmStatusRecord;
}

/**
 * Reconciler of all VMs: planned one after the other, and each placement counts those before it in the same round (no
 * double booking within a leader; across leaders the fence of the transaction sees to it). What was planned is then
 * written side by side: VMs have nothing to do with each other. Owns every VmStatusRecord.
 */
export class VmReconciler {
  readonly #view: ClusterView;
  readonly #sessions: SessionRegistry;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #leader: Leader;
  /** Since when this leader has seen a VM in its present phase and epoch. Lost with the leadership: pauses then begin anew. */
  readonly #since = new Map<string, { readonly phase: string; readonly epoch: bigint; readonly atMs: number }>();
  /** When only a VM's message was last written. */
  readonly #worded = new Map<string, number>();
  readonly #planner: KeptPlanner;
  readonly #held: () => string;

  constructor(deps: {
    readonly view: ClusterView;
    readonly sessions: SessionRegistry;
    readonly policy: PlacementPolicy;
    readonly clock: Clock;
    readonly logger: Logger;
    readonly leader: Leader;
    /** Why nothing may start now; empty when VMs may. */
    readonly held: () => string;
  }) {
    this.#view = deps.view;
    this.#sessions = deps.sessions;
    this.#clock = deps.clock;
    this.#log = deps.logger;
    this.#leader = deps.leader;
    this.#held = deps.held;
    this.#planner = new KeptPlanner(deps.view, deps.policy);
  }

  async reconcile(): Promise<void> {
    const changes = this.#planAll();
    const waiting = [...changes.values()];
    const worker = async () => {
      for (let change = waiting.shift(); change !== undefined; change = waiting.shift()) {
        if (this.#leader.signal.aborted) return;
        await this.#write(change).catch((error: unknown) => {
          // The store is everybody's: the round is over.
          waiting.length = 0;
          throw error;
        });
      }
    };
    const ended = await Promise.allSettled(Array.from({ length: Math.min(WRITES_AT_ONCE, waiting.length) }, worker));
    for (const each of ended) if (each.status === 'rejected') throw each.reason as Error;
    for (const memory of [this.#since, this.#worded])
      for (const id of memory.keys()) if (this.#view.tables.vm.get(id) === undefined) memory.delete(id);
  }

  #planAll(): ReadonlyMap<string, Change> {
    const changes = new Map<string, Change>();
    for (const vm of this.#view.tables.vm.sorted()) {
      const status = this.#view.tables['vm-status'].get(vm.id);
      if (status === undefined) continue;
      try {
        const next = this.#plan(vm, status);
        if (next !== null) changes.set(vm.id, { vm, status, next });
      } catch (error) {
        this.#tellTrouble(vm, error);
      }
    }
    return changes;
  }

  #plan(vm: Entry<VmRecord>, status: Entry<VmStatusRecord>): VmStatusRecord | null {
    const seen = this.#observe(vm, status);
    // The host counts as alive, but this leader has not had its first report (a leader of seconds, an agent that was restarted):
    // nothing is known, and nothing is concluded. A host that stays silent becomes UNREACHABLE or DEGRADED.
    if (isOnHost(status.record) && seen.awaitsReport) return null;
    const plan = planVm(vm.record, status.record, seen);
    if (plan.status === null || this.#isChatter(vm.id, status.record, plan.status)) return null;
    const [from, to] = [status.record.phase as LiveVmPhase, plan.status.phase as LiveVmPhase];
    assert(from === to || mayMove(VM_PHASES, from, to), `VM ${vm.id}: no transition from ${from} to ${to}`);
    return plan.status;
  }

  async #write({ vm, status, next }: Change): Promise<void> {
    try {
      const result = await this.#leader.txn({
        compare: [unchanged('vm', vm), unchanged('vm-status', status)],
        writes: [putRecord('vm-status', vm.id, next)],
      });
      // A comparison that failed is a newer wish or status: the next round sees it.
      if (!result.succeeded) {
        this.#planner.forget(vm.id);
        return;
      }
      this.#tellChange(vm, status.record, next);
      await this.#view.waitFor(result.revision);
    } catch (error) {
      if (isTransient(error)) throw error;
      this.#tellTrouble(vm, error);
    }
  }

  #tellChange(vm: Entry<VmRecord>, former: VmStatusRecord, next: VmStatusRecord): void {
    if (former.phase === next.phase) return;
    this.#log.info(
      {
        vmId: vm.id,
        vm: vm.record.meta?.name,
        ...operationOn(this.#view, vm.id),
        from: former.phase,
        to: next.phase,
        host: next.host,
        epoch: String(next.epoch),
        reason: next.message,
      },
      'VM changes phase',
    );
  }

  /** It is this VM's own, and the others go on. */
  #tellTrouble(vm: Entry<VmRecord>, error: unknown): void {
    this.#log.error({ vmId: vm.id, vm: vm.record.meta?.name, err: error }, 'VM cannot be planned');
  }

  /** Only what the host tells changes, and it did a moment ago: a host that changes its words all the time must not fill etcd. */
  #isChatter(id: string, former: VmStatusRecord, next: VmStatusRecord): boolean {
    const nowMs = this.#clock.nowMs();
    const onlyWords = isDeepStrictEqual(withoutWords(former), withoutWords(next));
    if (!onlyWords) return false;
    if (nowMs - (this.#worded.get(id) ?? Number.NEGATIVE_INFINITY) < MESSAGE_EVERY_MS) return true;
    this.#worded.set(id, nowMs);
    return false;
  }

  #observe(vm: Entry<VmRecord>, status: Entry<VmStatusRecord>): VmObservation & { readonly awaitsReport: boolean } {
    const { host, epoch, phase } = status.record;
    let since = this.#since.get(vm.id);
    if (since?.phase !== phase || since.epoch !== epoch) {
      since = { phase, epoch, atMs: this.#clock.nowMs() };
      this.#since.set(vm.id, since);
    }
    const seen = host === '' ? null : this.#sessions.observed(host);
    const hostStatus = this.#view.tables['host-status'].get(host)?.record;
    const nowMs = this.#clock.nowMs();
    const report = seen?.report ?? null;
    const state = hostStatus?.state;
    const domain = report?.domains.find((each) => each.vmId === vm.id && each.epoch === epoch) ?? null;
    const told = Object.values(vm.record.diskVolumes).map((id) => [id, domain?.diskSizes[id] ?? 0n] as const);
    return {
      awaitsReport: state === HostState.READY && report === null && (seen === null || withinReportGrace(seen, nowMs)),
      domain,
      diskSizes: Object.fromEntries(told.filter(([, bytes]) => bytes > 0n)),
      hostReporting:
        report !== null && (state === HostState.READY || (state === HostState.DEGRADED && !isStale(seen, nowMs))),
      bootId: seen?.boot.bootId ?? '',
      isAlone: seen?.isAlone === true,
      hostMessage: hostStatus?.message ?? '',
      phaseAgeMs: nowMs - since.atMs,
      held: this.#held(),
      place: () => this.#place(vm.id),
      inventory: hostStatus?.inventory,
      hardware: hardwareDigest(vm.record),
      revision: vm.modRevision,
      wallTime: this.#clock.wallTime(),
    };
  }

  #place(vmId: string): Result<DecidedPlacement, string> {
    const isReporting = (host: string) => reports(this.#sessions.observed(host), this.#clock.nowMs());
    const decided = this.#planner.place(vmId, isReporting);
    if (!decided.ok) return refuse(decided.error.summary);
    const { placement, reason } = decided.value;
    const bootId = this.#sessions.observed(placement.host)?.boot.bootId ?? '';
    assert(bootId !== '', `${placement.host} was chosen without being heard`);
    return ok({ placement: presentPlacement(placement), bootId, reason });
  }
}

/** Without what a host tells and may tell differently every time. */
function withoutWords(status: VmStatusRecord): VmStatusRecord {
  return { ...status, message: '', observedPlacement: undefined, placementDrift: '' };
}
