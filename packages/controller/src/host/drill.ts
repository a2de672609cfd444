// SPDX-License-Identifier: Apache-2.0
import type { DrillHostResponse, DrillMove } from '@busbar/proto/gen/busbar/v1/host';
import { createPlanner } from '@busbar/scheduler/planner';
import type { Api } from '../api/call.ts';
import { DEFAULT_LEASE } from '../lease/granter.ts';
import { presentPlacement } from '../vm/placed.ts';
import { snapshotOf } from '../vm/placement.ts';

/**
 * How long each part of a failover is expected to take, in milliseconds. A prediction: failover acts on these plans and measures
 * itself against them.
 */
const STEPS = {
  /** A host is suspect when it was not heard for this long; gathering evidence has a deadline of 700 ms and runs meanwhile. */
  suspect: 1_000,
  evidence: 700,
  /** The lease of a silent host has certainly ended this long after it was last acknowledged: its length and a margin for clocks. */
  lease: DEFAULT_LEASE.leaseTtlMs + 250,
  /** Ceph takes 100 to 300 ms to refuse a client and to tell every OSD. */
  fence: 300,
  /** Start of a small VM on KVM and RBD, from the order to "running". */
  start: 500,
} as const;
/** An agent starts that many VMs at once: the width of its lane for long calls. */
const STARTS_AT_ONCE = 4;

/** What would happen if the host died now. */
export function drillHost(api: Api, host: string): DrillHostResponse {
  const snapshot = snapshotOf(api.view, api.policy);
  // Planned also where nothing is promised: the question is what would happen, not what may.
  const planner = createPlanner({ ...snapshot, policy: { ...snapshot.policy, survive: 'any-one-host' } });
  const drill = planner.drills().find(({ hosts }) => hosts.length === 1 && hosts[0] === host);
  const detection = Math.max(STEPS.suspect + STEPS.evidence, STEPS.lease);
  const steps = [
    { name: 'the host is suspect and the evidence is in', durationMs: STEPS.suspect + STEPS.evidence },
    { name: 'its lease has certainly ended', durationMs: detection - STEPS.suspect - STEPS.evidence },
    { name: 'storage refuses it', durationMs: STEPS.fence },
  ];
  const startsOn = new Map<string, number>();
  const moves = (drill?.moves ?? []).map(({ vm, placement }): DrillMove => {
    const before = startsOn.get(placement.host) ?? 0;
    startsOn.set(placement.host, before + 1);
    const rounds = Math.floor(before / STARTS_AT_ONCE) + 1;
    return {
      vm: vm.name,
      placement: presentPlacement(placement),
      recoveryMs: detection + STEPS.fence + rounds * STEPS.start,
    };
  });
  const homeless = new Set(drill?.homeless.map(({ id }) => id));
  const losses = snapshot.placed
    .filter(({ vm, placement }) => placement.host === host && (!vm.ha || homeless.has(vm.id)))
    .map(({ vm }) => ({
      vm: vm.name,
      reason: vm.ha
        ? `no place on the other hosts: ${reasonFor(snapshot, vm.id, host)}`
        : 'not highly available (spec.ha.enabled is false): it waits for its host',
    }));
  return { moves, losses, steps };
}

/** Why the VM finds no place when its host is gone and everything else is as it is. */
function reasonFor(snapshot: ReturnType<typeof snapshotOf>, id: string, host: string): string {
  const without = createPlanner({
    hosts: snapshot.hosts.filter((each) => each.id !== host),
    placed: snapshot.placed.filter(({ placement }) => placement.host !== host),
    policy: { ...snapshot.policy, survive: 'off' },
  });
  const vm = snapshot.placed.find((each) => each.vm.id === id)?.vm;
  if (vm === undefined) return '';
  const decided = without.decide(vm);
  return decided.ok ? 'those of higher priority take what it needs' : decided.error.summary;
}
