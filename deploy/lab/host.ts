// SPDX-License-Identifier: Apache-2.0
// One host's life: boot, power cut, freeze, partition, running a program inside. What a host is doing is read from the
// kernel each time (cgroups, /proc), never remembered: a lab command may be killed at any moment.
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { open, readFile } from 'node:fs/promises';
import { z } from 'zod';
import {
  controllers,
  createHostCgroups,
  hostCgroups,
  isFrozen,
  killAll,
  processes,
  removeCgroups,
  setFrozen,
} from './cgroup.ts';
import { writeHostFiles } from './host-files.ts';
import { withLock } from './lock.ts';
import { applyPartition, plug, pull, unplug } from './network.ts';
import { HOST_INIT, hostDir, hostRoot, hostStateFile, JOIN_CGROUPS } from './paths.ts';
import type { HostPlan, LabPlan, NetworkName } from './plan.ts';
import { writeAtomically } from './registry.ts';
import { type RunOptions, type RunResult, run, signalNumber, until } from './run.ts';

export type Power = 'on' | 'off' | 'frozen';

export class HostError extends Error {
  override readonly name = 'HostError';
}

/** What must outlive a power cut: a cut cable stays cut. */
const stateSchema = z.strictObject({ cut: z.array(z.enum(['management', 'storage', 'vm'])) });

export async function cutNetworks(lab: string, host: string): Promise<readonly NetworkName[]> {
  const text = await readFile(hostStateFile(lab, host), 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '{"cut":[]}';
    throw error;
  });
  return stateSchema.parse(JSON.parse(text)).cut;
}

/** Process 1 of a running host, as the root namespace numbers it. */
export async function initPid(lab: string, host: string): Promise<number | undefined> {
  for (const pid of await processes(lab, host)) {
    const namespacePids = await namespacePidsOf(pid);
    // Exactly one level down: a process 1 further below is of a container inside the host.
    if (namespacePids.length === 2 && namespacePids[1] === 1) return pid;
  }
  return undefined;
}

/** Numbers of a process from our PID namespace to its own, innermost last; empty when it is gone or a zombie. */
export async function namespacePidsOf(pid: number): Promise<number[]> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  if (/^State:\s+[ZX]/m.test(status)) return [];
  return (/^NSpid:\s+(.*)$/m.exec(status)?.[1] ?? '')
    .split(/\s+/)
    .filter((word) => word !== '')
    .map(Number);
}

export async function power(lab: string, host: string): Promise<Power> {
  if ((await initPid(lab, host)) === undefined) return 'off';
  return (await isFrozen(lab, host)) ? 'frozen' : 'on';
}

export async function boot(plan: LabPlan, host: HostPlan): Promise<void> {
  const lab = plan.spec.name;
  await withLock(`${lab}/${host.name}`, async () => {
    if ((await initPid(lab, host.name)) !== undefined) return;
    // Half a host may be left of a lab command that was killed.
    await cutPower(plan, host);
    await writeHostFiles(plan, host, { bootId: randomUUID() });
    const cgroups = await createHostCgroups(lab, host.name);
    const log = await open(`${hostDir(lab, host.name)}/console.log`, 'w');
    const namespaces = [
      '--net',
      '--mount',
      '--uts',
      '--cgroup',
      '--pid',
      '--fork',
      '--kill-child',
      '--mount-proc',
      '--propagation',
      'private',
    ];
    const child = spawn(
      '/bin/sh',
      [
        JOIN_CGROUPS,
        ...cgroups,
        '--',
        'unshare',
        ...namespaces,
        '/bin/sh',
        HOST_INIT,
        hostDir(lab, host.name),
        ...(await controllers()),
      ],
      {
        detached: true,
        cwd: '/',
        stdio: ['pipe', log.fd, log.fd],
      },
    );
    let ended: string | undefined;
    child.on('error', (error) => (ended = error.message));
    child.on('exit', (code) => (ended = `exit ${code}`));
    child.stdin?.on('error', () => {}); // typed as nullable because the other two are files
    try {
      const init = await until(
        `booting ${host.name}`,
        async () => {
          if (ended !== undefined)
            throw new HostError(`${host.name} did not start: ${ended}\n${await readConsole(lab, host.name)}`);
          const pid = await initPid(lab, host.name);
          return pid === undefined ? { waiting: 'its first process has not appeared' } : { value: pid };
        },
        { timeoutMs: 10_000, everyMs: 10 },
      );
      await plug(plan, host, init);
      const cut = await cutNetworks(lab, host.name);
      if (cut.length > 0) await applyPartition(host, init, cut);
      child.stdin?.end('go\n');
      await until(
        `starting the services of ${host.name}`,
        async () => {
          if (ended !== undefined)
            throw new HostError(`${host.name} died while booting: ${ended}\n${await readConsole(lab, host.name)}`);
          const name = await readFile(`/proc/${init}/comm`, 'utf8').catch(() => '');
          return name.trim() === 'tini' ? { value: undefined } : { waiting: 'its init has not taken over' };
        },
        { timeoutMs: 20_000, everyMs: 10 },
      );
      child.unref();
    } finally {
      await log.close();
    }
  });
}

async function readConsole(lab: string, host: string): Promise<string> {
  return (await readFile(`${hostDir(lab, host)}/console.log`, 'utf8').catch(() => '')).trim();
}

/** Everything in the host is gone at once, and nothing tells its peers. */
export async function cutPower(plan: LabPlan, host: HostPlan): Promise<void> {
  const lab = plan.spec.name;
  await pull(host);
  await killAll(lab, host.name, await initPid(lab, host.name));
  await unplug(host);
  await removeCgroups(lab, host.name);
}

export async function freeze(plan: LabPlan, host: HostPlan, frozen: boolean): Promise<void> {
  await requireInit(plan, host);
  await setFrozen(plan.spec.name, host.name, frozen);
}

/** Cuts the host off these networks and no others; none heals it. */
export async function partition(plan: LabPlan, host: HostPlan, cut: readonly NetworkName[]): Promise<void> {
  const lab = plan.spec.name;
  await writeAtomically(hostStateFile(lab, host.name), `${JSON.stringify({ cut })}\n`);
  const init = await initPid(lab, host.name);
  if (init !== undefined) await applyPartition(host, init, cut);
}

async function requireInit(plan: LabPlan, host: HostPlan): Promise<number> {
  const init = await initPid(plan.spec.name, host.name);
  if (init === undefined) throw new HostError(`${host.name} is off; "revive ${host.name}" boots it`);
  return init;
}

/** The argument vector that runs a program inside a host, as a process of the host. */
export async function insideArgv(plan: LabPlan, host: HostPlan, argv: readonly string[]): Promise<string[]> {
  const init = await requireInit(plan, host);
  const lab = plan.spec.name;
  if (await isFrozen(lab, host.name))
    throw new HostError(`${host.name} is frozen, a program started in it would be too; "thaw ${host.name}" first`);
  return [
    '/bin/sh',
    JOIN_CGROUPS,
    ...(await hostCgroups(lab, host.name)),
    '--',
    ...[
      'nsenter',
      '--target',
      String(init),
      '--mount',
      '--uts',
      '--net',
      '--pid',
      '--cgroup',
      '--root',
      '--wd=/',
      '--',
    ],
    ...argv,
  ];
}

export async function execInside(
  plan: LabPlan,
  host: HostPlan,
  argv: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  return await run(await insideArgv(plan, host, argv), options);
}

/** With our own terminal, and without a deadline: somebody sits in front of it. Returns the exit code. */
export async function attachInside(plan: LabPlan, host: HostPlan, argv: readonly string[]): Promise<number> {
  const [program = '', ...args] = await insideArgv(plan, host, argv);
  const child = spawn(program, args, { stdio: 'inherit' });
  // Ctrl-C is for the program inside; the terminal sends it to both of us.
  const ignore = (): void => {};
  process.on('SIGINT', ignore);
  try {
    const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
    return code ?? 128 + signalNumber(signal);
  } finally {
    process.off('SIGINT', ignore);
  }
}

/** A path inside the host, as the root namespace reaches it while the host runs (its /run is a file system of its own). */
export async function pathInside(plan: LabPlan, host: HostPlan, path: string): Promise<string> {
  return path.startsWith('/run/')
    ? `/proc/${await requireInit(plan, host)}/root${path}`
    : hostRoot(plan.spec.name, host.name, path);
}
