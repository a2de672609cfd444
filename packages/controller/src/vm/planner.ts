// SPDX-License-Identifier: Apache-2.0
import type { HostId, VmId } from '@busbar/core/ids';
import { ok, type Result } from '@busbar/core/result';
import type { VmRecord, VmStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import type { Host, Placement, PlacementPolicy, Refusal } from '@busbar/scheduler/model';
import { createPlanner, type Planner } from '@busbar/scheduler/planner';
import { schedulableHosts } from '../host/schedulable.ts';
import type { ClusterView } from '../view/view.ts';
import { restorePlacement } from './placed.ts';
import { isOnHost } from './plan.ts';
import { requestOf } from './request.ts';

/**
 * A planner that is kept beside the view: making one costs milliseconds, and most of what changes between two questions is a
 * VM or none. It is made anew when anything about hosts or networks changed, and else brought up to date VM by VM.
 */
export class KeptPlanner {
  readonly #view: ClusterView;
  readonly #policy: PlacementPolicy;
  #planner: Planner | null = null;
  #hosts = new Map<string, Host>();
  /** What the planner was made of, but for VMs: records are never changed in place. */
  #madeOf: readonly unknown[] = [];
  readonly #held = new Map<string, { readonly vm: VmRecord; readonly status: VmStatusRecord }>();
  /**
   * Placements that may be written and that the view does not show yet, by VM, with the revision of the status that they were
   * decided on. They count until the view shows a newer one: nobody else gets the same, also when nobody can tell whether the
   * write was made.
   */
  readonly #underWay = new Map<string, { readonly statusRevision: bigint; readonly placement: Placement }>();

  /** The view's revision that it was last brought up to. */
  #revision = -1n;

  constructor(view: ClusterView, policy: PlacementPolicy) {
    this.#view = view;
    this.#policy = policy;
  }

  /** Up to date with the view. To ask only: what is taken is taken through `place`. */
  current(isReporting: (host: string) => boolean = () => true): Planner {
    const madeOf = this.#sources(isReporting);
    let planner = this.#planner;
    if (planner === null || !isSame(madeOf, this.#madeOf)) {
      const hosts = schedulableHosts(this.#view, isReporting);
      planner = createPlanner({ hosts, placed: [], policy: this.#policy });
      this.#hosts = new Map(hosts.map((host) => [host.id, host]));
      this.#held.clear();
      this.#madeOf = madeOf;
      this.#planner = planner;
      this.#revision = -1n;
      for (const [id, { placement }] of this.#underWay) this.#take(planner, id, placement);
    }
    if (this.#view.revision !== this.#revision) this.#update(planner);
    this.#revision = this.#view.revision;
    return planner;
  }

  /** Decides, and keeps it for the VM until the view shows what became of it, or `forget` is told. */
  place(
    vmId: string,
    isReporting: (host: string) => boolean,
  ): Result<{ readonly placement: Placement; readonly reason: string }, Refusal> {
    const planner = this.current(isReporting);
    const entry = this.#view.tables.vm.get(vmId);
    if (entry === undefined) throw new Error(`VM ${vmId} is not in the view`);
    const request = requestOf(entry.record, this.#view);
    const decided = planner.decide(request);
    if (!decided.ok) return decided;
    const reason = planner.reasonFor(request, decided.value);
    planner.take({ vm: request, placement: decided.value });
    const statusRevision = this.#view.tables['vm-status'].get(vmId)?.modRevision ?? 0n;
    this.#underWay.set(vmId, { statusRevision, placement: decided.value });
    return ok({ placement: decided.value, reason });
  }

  /** The placement was certainly not written. */
  forget(vmId: string): void {
    if (this.#underWay.delete(vmId)) this.#planner?.release(vmId as VmId);
  }

  #sources(isReporting: (host: string) => boolean): readonly unknown[] {
    const { host, network } = this.#view.tables;
    const statuses = this.#view.tables['host-status'];
    const sources: unknown[] = network.sorted().map(({ record }) => record);
    for (const { id, record } of host.sorted()) sources.push(record, statuses.get(id)?.record, isReporting(id));
    return sources;
  }

  #update(planner: Planner): void {
    const { vm: vms } = this.#view.tables;
    const statuses = this.#view.tables['vm-status'];
    for (const [id, { statusRevision }] of this.#underWay) {
      const isNewer = (statuses.get(id)?.modRevision ?? 0n) !== statusRevision;
      if (vms.get(id) !== undefined && !isNewer) continue;
      this.#underWay.delete(id);
      planner.release(id as VmId);
      // So that it is taken again below, as it is written.
      this.#held.delete(id);
    }
    for (const { id, record: vm } of vms.sorted()) {
      const status = statuses.get(id)?.record;
      const held = this.#held.get(id);
      if (held !== undefined && held.vm === vm && held.status === status) continue;
      const host = status !== undefined && isOnHost(status) ? this.#hosts.get(status.host as HostId) : undefined;
      // A host that placement does not know (a witness, a removed record) has nothing to give or to keep.
      if (status !== undefined && host !== undefined) {
        const request = requestOf(vm, this.#view);
        planner.take({ vm: request, placement: restorePlacement(status.placement, request, host) });
        this.#held.set(id, { vm, status });
      } else if (this.#held.delete(id)) planner.release(id as VmId);
    }
    for (const id of this.#held.keys())
      if (vms.get(id) === undefined && this.#held.delete(id)) planner.release(id as VmId);
  }

  #take(planner: Planner, id: string, placement: Placement): void {
    const vm = this.#view.tables.vm.get(id)?.record;
    if (vm !== undefined) planner.take({ vm: requestOf(vm, this.#view), placement });
  }
}

function isSame(a: readonly unknown[], b: readonly unknown[]): boolean {
  return a.length === b.length && a.every((item, i) => item === b[i]);
}
