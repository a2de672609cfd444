// SPDX-License-Identifier: Apache-2.0
// A lab as a whole. This is what tests import; main.ts is its command line.
import { randomUUID } from 'node:crypto';
import { access, mkdir, readFile, rm } from 'node:fs/promises';
import { parse, stringify } from 'yaml';
import { z } from 'zod';
import { ceph, installCeph } from './ceph.ts';
import { cgroupMembers, killAll, removeCgroups } from './cgroup.ts';
import { dropContext, writeContext } from './context.ts';
import {
  absentHosts,
  HEALTH_TIMEOUT_MS,
  waitForCeph,
  waitForDaemons,
  waitForHostReady,
  waitForHostServices,
  waitForServices,
  waitForWhole,
} from './health.ts';
import { attachInside, boot, cutNetworks, cutPower, execInside, freeze, insideArgv, partition, power } from './host.ts';
import { installHost } from './host-files.ts';
import { withLock } from './lock.ts';
import { requireMachine } from './machine.ts';
import { createBridges, removeLinks } from './network.ts';
import { hostRoot, labDir, specFile, volumesDir } from './paths.ts';
import { createPki } from './pki-files.ts';
import { checkLabName, checkSize, findHost, type LabPlan, type LabSpec, type NetworkName, planLab } from './plan.ts';
import { readRegistry, register, unregister, writeAtomically } from './registry.ts';
import type { RunOptions, RunResult } from './run.ts';
import { type LabStatus, labStatus } from './status.ts';

export class LabError extends Error {
  override readonly name = 'LabError';
}

export interface UpOptions {
  readonly name?: string;
  readonly hosts?: number;
  readonly witnesses?: number;
  readonly ceph?: boolean;
  readonly etcdQuotaMib?: number;
  readonly progress?: (line: string) => void;
}

export const DEFAULT_NAME = 'lab';
const stored = z.strictObject({
  name: z.string(),
  index: z.number(),
  hosts: z.number(),
  witnesses: z.number(),
  ceph: z.boolean(),
  fsid: z.string(),
  etcdQuotaMib: z.number().optional(),
  /** False while `up` is installing: such a lab is rebuilt, not repaired. */
  installed: z.boolean(),
});

async function readSpec(lab: string): Promise<(LabSpec & { readonly installed: boolean }) | undefined> {
  checkLabName(lab);
  try {
    return stored.parse(JSON.parse(await readFile(specFile(lab), 'utf8')));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    if (error instanceof SyntaxError || error instanceof z.ZodError) return undefined; // not ours to interpret: `up` and `down` clear it away
    throw error;
  }
}

/** The plan of an existing lab. */
export async function openLab(lab: string = DEFAULT_NAME): Promise<LabPlan> {
  const spec = await readSpec(lab);
  if (spec?.installed !== true)
    throw new LabError(
      `there is no lab "${lab}" on this machine; "up --name ${lab}" makes it, "list" shows what there is`,
    );
  return planLab(toSpec(spec));
}

const toSpec = ({ name, index, hosts, witnesses, ceph, fsid, etcdQuotaMib }: LabSpec): LabSpec => ({
  name,
  index,
  hosts,
  witnesses,
  ceph,
  fsid,
  etcdQuotaMib,
});

/** Makes a lab, or brings an existing one back to full health: all hosts on, thawed, healed. */
export async function labUp(options: UpOptions = {}): Promise<LabPlan> {
  const name = options.name ?? DEFAULT_NAME;
  checkLabName(name);
  await requireMachine();
  const progress = timed(options.progress);
  return await withLock(
    name,
    async () => {
      const existing = await readSpec(name);
      if (existing?.installed === true) {
        const differs = (['hosts', 'witnesses', 'ceph'] as const).filter(
          (key) => options[key] !== undefined && options[key] !== existing[key],
        );
        if (differs.length > 0) {
          const is = differs.map((key) => `${key} ${existing[key]}`).join(', ');
          throw new LabError(
            `lab "${name}" exists with ${is}; take it "down" first, or give the new one another --name`,
          );
        }
      }
      const plan = existing?.installed === true ? planLab(toSpec(existing)) : await install(name, options, progress);
      await register(name); // a machine that was restarted has lost cgroups, but no files
      await createBridges(plan);
      await Promise.all(
        plan.hosts.map(async (host) => {
          if ((await power(name, host.name)) === 'frozen') await freeze(plan, host, false);
          if ((await cutNetworks(name, host.name)).length > 0) await partition(plan, host, []);
          await boot(plan, host);
        }),
      );
      progress(`${plan.hosts.length} hosts are on`);
      await Promise.all([waitForCeph(plan, progress), waitForServices(plan, progress)]);
      await writeContext(plan);
      await waitForDaemons(plan, progress);
      progress(`lab "${name}" is ready`);
      return plan;
    },
    { onWait: () => progress('another lab command is running, waiting for it') },
  );
}

async function install(name: string, options: UpOptions, progress: (line: string) => void): Promise<LabPlan> {
  const hosts = options.hosts ?? 3;
  const witnesses = options.witnesses ?? 0;
  checkSize(hosts, witnesses);
  const index = await register(name);
  if (await clear(name, index)) progress('cleared away what an earlier lab of this name or subnet left');
  const { ceph = true, etcdQuotaMib } = options;
  const plan = planLab({ name, index, hosts, witnesses, ceph, fsid: randomUUID(), etcdQuotaMib });
  await register(name); // clear() took the cgroups
  await mkdir(volumesDir(name), { recursive: true });
  const write = async (installed: boolean): Promise<void> =>
    await writeAtomically(specFile(name), `${JSON.stringify({ ...plan.spec, installed }, null, 2)}\n`);
  await write(false);
  await Promise.all(plan.hosts.map(async (host) => await installHost(plan, host)));
  await createPki(plan);
  await createBridges(plan); // ceph-mon --mkfs wants an address on the storage network
  if (plan.spec.ceph) await installCeph(plan);
  await write(true);
  progress('installed: certificates, configuration, data directories');
  return plan;
}

/** Takes a lab away, whatever state it is in. Returns whether there was anything. */
export async function labDown(
  name: string = DEFAULT_NAME,
  options: { readonly progress?: (line: string) => void } = {},
): Promise<boolean> {
  checkLabName(name);
  await requireMachine();
  const progress = timed(options.progress);
  return await withLock(
    name,
    async () => {
      const index = (await readRegistry())[name];
      const found = await clear(name, index);
      await dropContext(name);
      await unregister(name);
      progress(found ? `lab "${name}" is gone` : `there was no lab "${name}"`);
      return found;
    },
    { onWait: () => progress('another lab command is running, waiting for it') },
  );
}

/** Removes processes, links, cgroups and files of a lab, found by name and by index, not by what a state file claims. */
async function clear(name: string, index: number | undefined): Promise<boolean> {
  const spec = await readSpec(name);
  if (spec !== undefined) {
    // Cables first, all hosts at once: nobody sees the others go.
    const plan = planLab(toSpec(spec));
    await Promise.all(plan.hosts.map(async (host) => await cutPower(plan, host)));
  }
  const members = await cgroupMembers(name);
  for (const member of members) {
    if (member === '') continue;
    await killAll(name, member);
  }
  await removeCgroups(name);
  for (const used of new Set([index, spec?.index])) if (used !== undefined) await removeLinks(used);
  const there = await access(labDir(name)).then(
    () => true,
    () => false,
  );
  await rm(labDir(name), { recursive: true, force: true });
  return there || members.length > 0;
}

export async function listLabs(): Promise<
  { name: string; index: number; installed: boolean; hosts: number; witnesses: number; ceph: boolean }[]
> {
  const labs = Object.entries(await readRegistry());
  return await Promise.all(
    labs.map(async ([name, index]) => {
      const spec = await readSpec(name);
      return {
        name,
        index,
        installed: spec?.installed ?? false,
        hosts: spec?.hosts ?? 0,
        witnesses: spec?.witnesses ?? 0,
        ceph: spec?.ceph ?? false,
      };
    }),
  );
}

export async function status(lab: string | LabPlan = DEFAULT_NAME): Promise<LabStatus> {
  return await labStatus(await toPlan(lab));
}

async function toPlan(lab: string | LabPlan): Promise<LabPlan> {
  return typeof lab === 'string' ? await openLab(lab) : lab;
}

/** Runs a program in a host and gives its output. Throws on a non-zero exit unless `mayFail`. */
export async function hostExec(
  lab: string | LabPlan,
  host: string,
  argv: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  const plan = await toPlan(lab);
  return await execInside(plan, findHost(plan, host), argv, options);
}

/** For callers that spawn by themselves (a console on a pseudo terminal, a long-running program). */
export async function hostArgv(lab: string | LabPlan, host: string, argv: readonly string[]): Promise<string[]> {
  const plan = await toPlan(lab);
  return await insideArgv(plan, findHost(plan, host), argv);
}

export async function hostAttach(lab: string | LabPlan, host: string, argv: readonly string[]): Promise<number> {
  const plan = await toPlan(lab);
  return await attachInside(plan, findHost(plan, host), argv);
}

export async function killHost(lab: string | LabPlan, host: string): Promise<void> {
  const plan = await toPlan(lab);
  await cutPower(plan, findHost(plan, host));
}

/**
 * Boots a host; returns when the services that Busbar stands on run. `healthy` waits until the cluster is whole again
 * and Busbar calls the host ready, as far as other hosts that are off or cut off let it.
 */
export async function reviveHost(
  lab: string | LabPlan,
  name: string,
  options: { readonly healthy?: boolean; readonly progress?: (line: string) => void } = {},
): Promise<void> {
  const plan = await toPlan(lab);
  const progress = timed(options.progress);
  await boot(plan, findHost(plan, name));
  progress(`${name} is on`);
  await waitForHostServices(plan, name);
  progress(`the services of ${name} run`);
  if (options.healthy !== true) return;
  const absent = await absentHosts(plan);
  if (absent.length === 0) await waitForWhole(plan, HEALTH_TIMEOUT_MS, progress);
  else progress(`not waiting for etcd and Ceph to be whole: ${absent.join(', ')}`);
  await waitForHostReady(plan, name, progress);
}

/** Waits until etcd has all its members, every Ceph daemon of a running host takes part again, and Ceph is HEALTH_OK. */
export async function waitHealthy(lab: string | LabPlan, options: { readonly timeoutMs?: number } = {}): Promise<void> {
  await waitForWhole(await toPlan(lab), options.timeoutMs ?? HEALTH_TIMEOUT_MS, () => {});
}

export async function freezeHost(lab: string | LabPlan, host: string): Promise<void> {
  const plan = await toPlan(lab);
  await freeze(plan, findHost(plan, host), true);
}

export async function thawHost(lab: string | LabPlan, host: string): Promise<void> {
  const plan = await toPlan(lab);
  await freeze(plan, findHost(plan, host), false);
}

/** Cuts networks in addition to those already cut. */
export async function partitionHost(
  lab: string | LabPlan,
  host: string,
  networks: readonly NetworkName[],
): Promise<void> {
  const plan = await toPlan(lab);
  const target = findHost(plan, host);
  const missing = networks.includes('vm') && target.role === 'witness';
  if (missing) throw new LabError(`${host} is a witness: it has no VM network to cut`);
  const cut = new Set([...(await cutNetworks(plan.spec.name, host)), ...networks]);
  await partition(plan, target, [...cut]);
}

export async function healHost(lab: string | LabPlan, host: string): Promise<void> {
  const plan = await toPlan(lab);
  await partition(plan, findHost(plan, host), []);
}

/** The part of agent.yaml that says which CPUs and NUMA nodes a host shows instead of its own; null for its own. */
export type Pretended = Readonly<Record<string, unknown>> | null;

/** Gives a host a pretended topology for placement, or its own back. Its agent is started again; VMs run on. */
export async function pretendTopology(lab: string | LabPlan, host: string, topology: Pretended): Promise<void> {
  const plan = await toPlan(lab);
  const target = findHost(plan, host);
  if (target.role === 'witness') throw new LabError(`${host} is a witness: nothing is placed there`);
  const file = hostRoot(plan.spec.name, host, '/etc/busbar/agent.yaml');
  const { pretendTopology: _, ...rest } = parse(await readFile(file, 'utf8')) as Record<string, unknown>;
  await writeAtomically(file, stringify(topology === null ? rest : { ...rest, pretendTopology: topology }));
  if ((await power(plan.spec.name, host)) !== 'on') return;
  await execInside(plan, target, ['sv', 'restart', 'agent']);
}

/** Ceph's own command line as its administrator, for tests that look behind the scenes. */
export async function labCeph(
  lab: string | LabPlan,
  args: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  const plan = await toPlan(lab);
  if (!plan.spec.ceph) throw new LabError(`lab "${plan.spec.name}" was made without Ceph`);
  return await ceph(plan.spec.name, args, options);
}

/** Each line with the time since the start and since the line before. */
function timed(progress: ((line: string) => void) | undefined): (line: string) => void {
  const start = performance.now();
  let last = start;
  return (line) => {
    const now = performance.now();
    progress?.(`[${((now - start) / 1000).toFixed(1).padStart(5)} s] ${line} (+${((now - last) / 1000).toFixed(1)} s)`);
    last = now;
  };
}
