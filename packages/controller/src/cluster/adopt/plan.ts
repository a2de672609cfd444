// SPDX-License-Identifier: Apache-2.0
import { type DomainReport, DomainState, type HostReport } from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { UnknownVm, VmRecord, VmStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import {
  AdoptionAction,
  type AdoptionDomain,
  type AdoptionHost,
  type AdoptionObstacle,
  type AdoptionPlan,
  type AdoptionVm,
} from '@busbar/proto/gen/busbar/v1/cluster';
import { RunPolicy, VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import type { Entry } from '../../view/table.ts';
import { boundedObservation } from '../../vm/drift.ts';
import { isOnHost, newestEpoch, shallRun } from '../../vm/plan.ts';

/**
 * What an adoption records: for each VM what really runs, as hosts report it. Pure.
 *
 *  - A VM that runs keeps its domain: the record takes the domain's host and epoch, so the agent has nothing to do.
 *  - Every VM gets a floor above all epochs that were seen anywhere: each start from now on is newer than whatever a host
 *    remembers, and whatever else of the VM turns up is destroyed.
 *  - A VM that runs shall run: what the old record wanted of it (stop, deletion) is of the past.
 *  - A VM that runs nowhere is stopped in the records; the reconciler starts it if it shall run and has its disks.
 */

/** Starts that a host may remember and nobody reported: more than any VM can have had since the backup. */
const EPOCH_LEAP = 1_000_000n;
/** No VM is started this often in its life: who says so lies, and would take the room for epochs to come. */
const EPOCH_PLAUSIBLE = 1_000_000_000n;
/** Of VMs without a record; hosts run hundreds. */
const UNKNOWN_MAX = 1_000;

export interface AdoptionInput {
  readonly signs: readonly string[];
  readonly behind: boolean;
  /** Every host that may run VMs, by name. */
  readonly hosts: readonly AdoptingHost[];
  readonly vms: readonly {
    readonly vm: Entry<VmRecord>;
    readonly status: Entry<VmStatusRecord>;
    /** Volumes that the pool does not have, by the name of the disk. */
    readonly missingDisks: readonly string[];
  }[];
  readonly withoutHosts: readonly string[];
  /** VM, by name or id, and host. */
  readonly keep: readonly { readonly vm: string; readonly host: string }[];
}

export interface AdoptingHost {
  readonly host: string;
  /** Null while it is silent. */
  readonly report: HostReport | null;
  /** Boot id of the machine that reports. */
  readonly bootId: string;
  /** Another machine says that it is this host; empty when none does. */
  readonly twice: string;
  /** For people. */
  readonly message: string;
}

export interface VmChange {
  readonly vm: Entry<VmRecord>;
  readonly status: Entry<VmStatusRecord>;
  readonly nextVm: VmRecord;
  readonly nextStatus: VmStatusRecord;
  readonly runs: boolean;
}

export interface Adoption {
  readonly plan: AdoptionPlan;
  readonly changes: readonly VmChange[];
  readonly unknownVms: readonly UnknownVm[];
}

interface Found extends AdoptionDomain {
  readonly bootId: string;
  readonly report: DomainReport;
}

export function planAdoption(input: AdoptionInput): Adoption {
  const found = foundDomains(input.hosts);
  const epochFloor = floorAbove(input);
  const obstacles = [...hostObstacles(input), ...epochObstacles(input), ...keepObstacles(input, found)];
  const vms: AdoptionVm[] = [];
  const changes: VmChange[] = [];
  const known = new Set<string>();
  for (const each of input.vms) {
    known.add(each.vm.id);
    const domains = found.get(each.vm.id) ?? [];
    const kept = keptDomain(input, each.vm, domains);
    if (kept === 'undecided') obstacles.push(twice(each.vm, domains));
    const change = changeOf(each, kept === 'undecided' ? null : kept, epochFloor);
    vms.push(presentAdoption(each, domains, kept, change));
    changes.push(change);
  }
  const unknownVms: UnknownVm[] = [];
  for (const [vmId, domains] of found) {
    if (known.has(vmId)) continue;
    vms.push(withoutRecord(vmId, domains));
    for (const { host } of domains) if (unknownVms.length < UNKNOWN_MAX) unknownVms.push({ vmId, host });
  }
  const hosts = input.hosts.map(presentHost);
  const plan = { behind: input.behind, signs: [...input.signs], hosts, vms, obstacles, epochFloor };
  return { plan, changes, unknownVms };
}

/** Domains that are there or may come up, by VM; one for each host, its newest. */
function foundDomains(hosts: readonly AdoptingHost[]): ReadonlyMap<string, readonly Found[]> {
  const found = new Map<string, Found[]>();
  for (const { host, bootId, report } of hosts) {
    const newest = new Map<string, DomainReport>();
    for (const domain of report?.domains ?? []) {
      if (domain.state === DomainState.ENDED) continue;
      if ((newest.get(domain.vmId)?.epoch ?? -1n) < domain.epoch) newest.set(domain.vmId, domain);
    }
    for (const [vmId, domain] of newest)
      found.set(vmId, [...(found.get(vmId) ?? []), { host, epoch: domain.epoch, bootId, report: domain }]);
  }
  return found;
}

function floorAbove({ hosts, vms }: AdoptionInput): bigint {
  let highest = 0n;
  for (const { status } of vms) if (newestEpoch(status.record) > highest) highest = newestEpoch(status.record);
  const bound = highest + EPOCH_PLAUSIBLE;
  for (const { report } of hosts)
    for (const { epoch } of report?.domains ?? []) if (epoch > highest && epoch <= bound) highest = epoch;
  return highest + EPOCH_LEAP;
}

function hostObstacles({ hosts, withoutHosts }: AdoptionInput): AdoptionObstacle[] {
  const obstacles: AdoptionObstacle[] = [];
  for (const { host, report, message, twice } of hosts) {
    const given = withoutHosts.includes(host);
    if (twice !== '')
      obstacles.push({
        reason: 'HOST_TWICE',
        message: twice,
        hint: `only one of them is heard: power the other off, and see that it runs nothing`,
      });
    if (report === null && !given)
      obstacles.push({
        reason: 'HOST_SILENT',
        message: `${host} may run VMs and is silent: ${message}`,
        hint: `bring it back; or, if it is powered off or will never reach the storage again, say so with --without ${host}`,
      });
    if (report !== null && given)
      obstacles.push({
        reason: 'HOST_NOT_SILENT',
        message: `${host} is not lost: it reports`,
        hint: `leave out --without ${host}; if you do not trust it, revoke its certificate first`,
      });
  }
  for (const host of withoutHosts)
    if (!hosts.some((known) => known.host === host))
      obstacles.push({
        reason: 'HOST_UNKNOWN',
        message: `there is no host "${host}" that may run VMs`,
        hint: `hosts are ${hosts.map((known) => known.host).join(', ') || 'not known yet'}`,
      });
  return obstacles;
}

function epochObstacles({ hosts, vms }: AdoptionInput): AdoptionObstacle[] {
  const epochs = new Map(vms.map(({ vm, status }) => [vm.id, newestEpoch(status.record)]));
  return hosts.flatMap(({ host, report }) => {
    const wrong = report?.domains.find(({ vmId, epoch }) => {
      const own = epochs.get(vmId);
      return own !== undefined && epoch > own + EPOCH_PLAUSIBLE;
    });
    if (wrong === undefined) return [];
    const message = `${host} reports epoch ${wrong.epoch} of VM ${wrong.vmId}: no VM was started that often`;
    const hint = `do not trust ${host}: revoke its certificate, power it off, then --without ${host}`;
    return [{ reason: 'EPOCH_IMPLAUSIBLE', message, hint }];
  });
}

function keepObstacles(input: AdoptionInput, found: ReadonlyMap<string, readonly Found[]>): AdoptionObstacle[] {
  return input.keep.flatMap(({ vm: name, host }) => {
    const vm = input.vms.find(({ vm }) => isNamed(vm, name))?.vm;
    const domains = vm === undefined ? [] : (found.get(vm.id) ?? []);
    if (domains.some((domain) => domain.host === host)) return [];
    const where = domains.map((domain) => domain.host).join(' and ') || 'nowhere';
    const message = vm === undefined ? `there is no VM "${name}"` : `VM "${name}" does not run on ${host}`;
    const hint = vm === undefined ? 'name it as "busbar vm list" does' : `it runs ${where}`;
    return [{ reason: 'KEEP_NOT_THERE', message, hint }];
  });
}

function isNamed(vm: Entry<VmRecord>, name: string): boolean {
  return vm.id === name || vm.record.meta?.name === name;
}

/** The domain that the VM stays with; null for none. */
function keptDomain(
  { keep }: AdoptionInput,
  vm: Entry<VmRecord>,
  domains: readonly Found[],
): Found | null | 'undecided' {
  if (domains.length <= 1) return domains[0] ?? null;
  const said = keep.findLast(({ vm: name }) => isNamed(vm, name));
  return domains.find(({ host }) => host === said?.host) ?? 'undecided';
}

function twice(vm: Entry<VmRecord>, domains: readonly Found[]): AdoptionObstacle {
  const name = vm.record.meta?.name ?? vm.id;
  const where = domains.map(({ host, epoch }) => `${host} (epoch ${epoch})`).join(' and ');
  return {
    reason: 'VM_RUNS_TWICE',
    message: `VM "${name}" runs on ${where}`,
    hint: `find out which has the newer data, and say --keep ${name}=HOST; it is destroyed on the other`,
  };
}

type Known = AdoptionInput['vms'][number];

function changeOf({ vm, status, missingDisks }: Known, kept: Found | null, epochFloor: bigint): VmChange {
  const base = { ...status.record, epochFloor, restartEpoch: 0n, restartByForce: false };
  if (kept === null) {
    const ready = missingDisks.length === 0;
    const nextStatus = offHost(base, ready ? '' : gone(missingDisks));
    return {
      vm,
      status,
      nextVm: ready ? vm.record : withRunPolicy(vm.record, RunPolicy.STOPPED),
      nextStatus,
      runs: false,
    };
  }
  return {
    vm,
    status,
    nextVm: withRunPolicy(vm.record, RunPolicy.RUNNING),
    nextStatus: onHost(base, kept),
    runs: true,
  };
}

const gone = (disks: readonly string[]) =>
  `the pool does not have its disks ${disks.join(', ')}: it was probably deleted after the backup`;

/** A VM that a saga makes or removes is left to that saga. */
function offHost(status: VmStatusRecord, message: string): VmStatusRecord {
  const inSaga = status.phase === VmPhase.CREATING || status.phase === VmPhase.DELETING;
  return {
    ...status,
    phase: inSaga ? status.phase : VmPhase.STOPPED,
    message,
    host: '',
    bootId: '',
    placement: undefined,
    placementReason: '',
    observedPlacement: undefined,
    placementDrift: '',
    startTime: undefined,
    failedStarts: 0,
  };
}

function onHost(status: VmStatusRecord, { host, bootId, epoch, report }: Found): VmStatusRecord {
  const asRecorded = isOnHost(status) && status.host === host && status.epoch === epoch;
  const phase = report.state === DomainState.PAUSED ? VmPhase.PAUSED : VmPhase.RUNNING;
  const observedPlacement = report.placement && boundedObservation(report.placement);
  // What runs, runs in this boot.
  if (asRecorded) return { ...status, phase, message: '', bootId };
  return {
    ...status,
    phase,
    message: '',
    host,
    bootId,
    epoch,
    // What was decided for this epoch is lost: placement counts it as one that floats, and shows what it has.
    placement: undefined,
    placementReason: '',
    observedPlacement,
    placementDrift: '',
    startTime: undefined,
    failedStarts: 0,
    // Nobody knows what it was started with: "restart needed" is shown.
    startedRevision: 0n,
    startedHardware: '',
  };
}

function withRunPolicy(vm: VmRecord, runPolicy: RunPolicy): VmRecord {
  const deleting = vm.meta?.deleting === true && runPolicy === RunPolicy.RUNNING;
  if (vm.spec === undefined || vm.meta === undefined || (vm.spec.runPolicy === runPolicy && !deleting)) return vm;
  return { ...vm, meta: { ...vm.meta, deleting: vm.meta.deleting && !deleting }, spec: { ...vm.spec, runPolicy } };
}

function presentAdoption(
  { vm, status, missingDisks }: Known,
  domains: readonly Found[],
  kept: Found | null | 'undecided',
  change: VmChange,
): AdoptionVm {
  const found = domains.map(({ host, epoch }) => ({ host, epoch }));
  const { phase: recordedPhase, host: recordedHost, epoch: recordedEpoch } = status.record;
  const ref = { kind: 'vm', id: vm.id, name: vm.record.meta?.name ?? '' };
  const as = (action: AdoptionAction, message: string): AdoptionVm => ({
    vm: ref,
    recordedPhase,
    recordedHost,
    recordedEpoch,
    found,
    action,
    message,
  });
  if (kept === 'undecided') return as(AdoptionAction.UNDECIDED, 'it runs more than once');
  if (kept === null) {
    if (missingDisks.length > 0) return as(AdoptionAction.STAY_OFF, gone(missingDisks));
    if (shallRun(change.nextVm)) return as(AdoptionAction.START, 'it runs nowhere');
    return as(AdoptionAction.STAY_OFF, '');
  }
  const others = domains.filter((domain) => domain !== kept).map(({ host }) => host);
  const notes = [
    others.length === 0 ? '' : `destroyed on ${others.join(', ')}`,
    change.nextVm === vm.record ? '' : 'it was to be stopped or deleted, and stays',
  ];
  const message = notes.filter((note) => note !== '').join('; ');
  const asRecorded = isOnHost(status.record) && recordedHost === kept.host && recordedEpoch === kept.epoch;
  return as(asRecorded ? AdoptionAction.AS_RECORDED : AdoptionAction.TAKE_OVER, message);
}

function withoutRecord(vmId: string, domains: readonly Found[]): AdoptionVm {
  return {
    vm: { kind: 'vm', id: vmId, name: '' },
    recordedPhase: VmPhase.UNSPECIFIED,
    recordedHost: '',
    recordedEpoch: 0n,
    found: domains.map(({ host, epoch }) => ({ host, epoch })),
    action: AdoptionAction.LEAVE_ALONE,
    message: 'it runs without a record: save its data, end it with virsh, create it anew',
  };
}

function presentHost({ host, report, message }: AdoptingHost): AdoptionHost {
  const domains = report?.domains.filter(({ state }) => state !== DomainState.ENDED).length ?? 0;
  return { host, heard: report !== null, domains, message };
}
