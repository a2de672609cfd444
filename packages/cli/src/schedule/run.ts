// SPDX-License-Identifier: Apache-2.0
/** Places VMs of a file on hosts of a file. No cluster is asked. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { text as readStream } from 'node:stream/consumers';
import { moveFor } from '@busbar/scheduler/advice/advice';
import { placeAll } from '@busbar/scheduler/batch/place-all';
import type { Host, Placement, Vm } from '@busbar/scheduler/model';
import { createPlanner, type Planner } from '@busbar/scheduler/planner';
import { CliError, EXIT, usageError } from '../cli/exit.ts';
import type { Session } from '../cli/session.ts';
import { formatBytes } from '../output/format.ts';
import { print, tableStyle } from '../output/print.ts';
import { type Column, renderTable } from '../output/table.ts';
import { type Request, readHosts, readPolicy, readRequests } from './read.ts';

export interface ScheduleOptions {
  readonly hosts: string;
  readonly vms: string;
  readonly policy?: string;
  readonly batch?: string;
  readonly moves?: boolean;
  readonly untilRefused?: boolean;
}

/** What became of one VM of the file. */
interface Outcome {
  readonly name: string;
  readonly placement?: Placement;
  readonly refused?: string;
  /** Moved to make room for it. */
  readonly moved?: { readonly name: string; readonly from: string; readonly to: Placement };
}

export async function schedule(session: Session, options: ScheduleOptions): Promise<void> {
  session.doing = 'schedule';
  const { batch } = options;
  if (batch !== undefined && batch !== 'all' && batch !== 'best-effort') {
    throw usageError(`--batch ${batch} is unknown`, 'modes are all, best-effort', 'use --batch all');
  }
  const hosts = readHosts(await read(session, options.hosts), options.hosts);
  const policy = readPolicy(
    options.policy === undefined ? null : await read(session, options.policy),
    options.policy ?? '',
  );
  const requests = readRequests(await read(session, options.vms), options.vms);
  const planner = createPlanner({ hosts, placed: [], policy });
  const outcomes = batch === undefined ? stream(planner, requests, options) : together(planner, requests, batch);
  await show(session, planner, hosts, outcomes);
}

async function read(session: Session, file: string): Promise<string> {
  try {
    return file === '-'
      ? await readStream(session.io.stdin)
      : readFileSync(resolve(session.io.directory, file), 'utf8');
  } catch (cause) {
    throw new CliError({
      exit: EXIT.usage,
      reason: 'FILE_UNREADABLE',
      what: `cannot read ${file}`,
      why: [cause instanceof Error ? cause.message : String(cause)],
      hint: 'check the path and who may read it',
      cause,
    });
  }
}

function stream(planner: Planner, requests: readonly Request[], options: ScheduleOptions): readonly Outcome[] {
  const outcomes: Outcome[] = [];
  const idOf = new Map<string, Vm>();
  for (const request of requests) {
    if (request.kind === 'release') {
      const vm = idOf.get(request.name);
      if (vm !== undefined) planner.release(vm.id);
      continue;
    }
    const { vm } = request;
    idOf.set(vm.name, vm);
    const outcome = place(planner, vm, options.moves === true);
    outcomes.push(outcome);
    if (outcome.refused !== undefined && options.untilRefused === true) break;
  }
  return outcomes;
}

function place(planner: Planner, vm: Vm, moves: boolean): Outcome {
  const decided = planner.place(vm);
  if (decided.ok) return { name: vm.name, placement: decided.value };
  const move = moves ? moveFor(planner, vm) : null;
  if (move === null) return { name: vm.name, refused: decided.error.summary };
  planner.release(move.vm.id);
  planner.take({ vm, placement: move.placement });
  planner.take({ vm: move.vm, placement: move.to });
  return { name: vm.name, placement: move.placement, moved: { name: move.vm.name, from: move.from, to: move.to } };
}

function together(planner: Planner, requests: readonly Request[], mode: 'all' | 'best-effort'): readonly Outcome[] {
  const vms = requests.flatMap((request) => (request.kind === 'place' ? [request.vm] : []));
  if (vms.length < requests.length) {
    throw usageError('a batch cannot release', 'its VMs are placed at once', 'leave --batch or the releases out');
  }
  const { placed, refused } = placeAll(planner, vms, mode);
  const placements = new Map(placed.map(({ vm, placement }) => [vm.id, placement]));
  const reasons = new Map(refused.map(({ vm, refusal }) => [vm.id, refusal.summary]));
  return vms.map((vm) => {
    const placement = placements.get(vm.id);
    if (placement !== undefined) return { name: vm.name, placement };
    return {
      name: vm.name,
      refused: reasons.get(vm.id) ?? 'another VM of the batch has no place, and all or none were asked for',
    };
  });
}

// ---------------------------------------------------------------------------------------------------------------- output

async function show(
  session: Session,
  planner: Planner,
  hosts: readonly Host[],
  outcomes: readonly Outcome[],
): Promise<void> {
  const first = outcomes.findIndex(({ refused }) => refused !== undefined);
  const summary = {
    vms: outcomes.length,
    placed: outcomes.filter(({ placement }) => placement !== undefined).length,
    refused: outcomes.filter(({ refused }) => refused !== undefined).length,
    placedBeforeFirstRefusal: first < 0 ? outcomes.length : first,
    moves: outcomes.filter(({ moved }) => moved !== undefined).length,
    hosts: hosts.length,
    hostsUsed: new Set(planner.placed().map(({ placement }) => placement.host)).size,
  };
  const elements = () => outcomes.map(asJson);
  await print(session, {
    json: () => ({ summary, vms: elements() }),
    lines: () => elements(),
    names: () => outcomes.flatMap(({ name, placement }) => (placement === undefined ? [] : [`vm/${name}`])),
    table: () => `${hostTable(session, planner, hosts)}\n${summaryText(summary, outcomes[first])}`,
  });
  if (summary.refused > 0) session.exitCode = EXIT.failed;
}

function asJson({ name, placement, refused, moved }: Outcome): unknown {
  return {
    name,
    ...(placement !== undefined && whereOf(placement)),
    ...(refused !== undefined && { refused }),
    ...(moved !== undefined && { moved: { name: moved.name, from: moved.from, ...whereOf(moved.to) } }),
  };
}

function whereOf(placement: Placement): Record<string, unknown> {
  const { host, cells, emulatorCpus, ioThreadCpus, devices } = placement;
  return {
    host,
    numaNodes: cells.map(({ numaNode }) => numaNode),
    cpus: cells.flatMap(({ cpus }) => cpus),
    cells,
    ...(emulatorCpus.length > 0 && { emulatorCpus }),
    ...(ioThreadCpus.length > 0 && { ioThreadCpus }),
    ...(devices.length > 0 && { devices }),
  };
}

interface HostLine {
  readonly host: Host;
  readonly vms: number;
  readonly vcpus: number;
  readonly memoryMib: number;
}

const COLUMNS: readonly Column<HostLine>[] = [
  { header: 'HOST', shrinks: true, value: ({ host }) => host.id },
  { header: 'VMS', right: true, value: ({ vms }) => String(vms) },
  { header: 'VCPUS', right: true, value: ({ vcpus, host }) => `${vcpus}/${cpusOf(host)}` },
  { header: 'MEMORY', right: true, value: ({ memoryMib, host }) => `${mib(memoryMib)}/${mib(memoryOf(host))}` },
];

const cpusOf = ({ numaNodes }: Host) => numaNodes.reduce((sum, { cpus }) => sum + cpus.length, 0);
const memoryOf = ({ numaNodes }: Host) => numaNodes.reduce((sum, { memoryMib }) => sum + memoryMib, 0);
const mib = (count: number) => formatBytes(BigInt(count) * 1024n ** 2n);

/** As many as fit a screen. */
const HOSTS_SHOWN = 20;

function hostTable(session: Session, planner: Planner, hosts: readonly Host[]): string {
  const onHost = Map.groupBy(planner.placed(), ({ placement }) => placement.host);
  const lines = hosts.slice(0, HOSTS_SHOWN).map((host): HostLine => {
    const vms = (onHost.get(host.id) ?? []).map(({ vm }) => vm);
    return {
      host,
      vms: vms.length,
      vcpus: vms.reduce((sum, vm) => sum + vm.vcpus, 0),
      memoryMib: vms.reduce((sum, vm) => sum + vm.memoryMib, 0),
    };
  });
  const more = hosts.length > HOSTS_SHOWN ? `… and ${hosts.length - HOSTS_SHOWN} more hosts\n` : '';
  return renderTable(COLUMNS, lines, tableStyle(session)) + more;
}

function summaryText(
  summary: Record<'vms' | 'placed' | 'refused' | 'placedBeforeFirstRefusal' | 'moves' | 'hosts' | 'hostsUsed', number>,
  first: Outcome | undefined,
): string {
  const lines = [
    `${summary.placed} of ${summary.vms} VMs placed on ${summary.hostsUsed} of ${summary.hosts} hosts${summary.moves > 0 ? `, ${summary.moves} of them after a move` : ''}`,
  ];
  if (first !== undefined) {
    lines.push(`first refused: ${first.name}, after ${summary.placedBeforeFirstRefusal} VMs: ${first.refused}`);
  }
  return lines.map((line) => `${line}\n`).join('');
}
