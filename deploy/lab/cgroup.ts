// SPDX-License-Identifier: Apache-2.0
// cgroups of a lab: which processes a host consists of, freezing them, and how CPU time is shared. Version 1 only.
import { mkdir, readdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CGROUP_ROOT, mountedControllers } from './machine.ts';
import { until } from './run.ts';

const PARENT = 'busbar-lab';
/** A lab competes with the test runner and the command line outside it, each of which weighs 1024 as a process. */
const LAB_SHARES = 4096;
const HOST_SHARES = 1024;
const SETUP_SHARES = 2048;
/** libvirt's partition of a host, all its guests together, against 1024 of each of its daemons. */
const GUEST_SHARES = 128;

/** Controllers mounted the version 1 way, those that a lab uses. */
export async function controllers(): Promise<string[]> {
  return mountedControllers(await readFile('/proc/mounts', 'utf8'));
}

const path = (controller: string, ...names: string[]): string => join(CGROUP_ROOT, controller, PARENT, ...names);

/** Makes the cgroups that the hosts of a lab share. */
export async function createLabCgroups(lab: string): Promise<void> {
  for (const controller of await controllers()) {
    await create(controller, [], LAB_SHARES);
    await create(controller, [lab], HOST_SHARES);
  }
}

/** Makes the cgroups of one host and returns their directories. */
export async function createHostCgroups(lab: string, host: string): Promise<string[]> {
  const directories: string[] = [];
  for (const controller of await controllers()) directories.push(await create(controller, [lab, host], HOST_SHARES));
  await create('cpu', [lab, host, 'machine'], GUEST_SHARES);
  return directories;
}

async function create(controller: string, names: readonly string[], cpuShares: number): Promise<string> {
  const directory = path(controller, ...names);
  await mkdir(directory, { recursive: true });
  if (controller === 'cpuset') await inheritCpuset(directory);
  if (controller === 'cpu') await writeFile(join(directory, 'cpu.shares'), String(cpuShares));
  return directory;
}

export async function hostCgroups(lab: string, host: string): Promise<string[]> {
  return (await controllers()).map((controller) => path(controller, lab, host));
}

/**
 * For programs that work for a lab outside its hosts: a killed `up` leaves none behind, and the hosts they are waiting
 * for do not starve them.
 */
export async function createSetupCgroups(lab: string): Promise<string[]> {
  return [await create('freezer', [lab, 'setup'], HOST_SHARES), await create('cpu', [lab, 'setup'], SETUP_SHARES)];
}

/** A new cpuset is empty and takes no process until it is given processors and memory. */
async function inheritCpuset(directory: string): Promise<void> {
  for (const file of ['cpuset.cpus', 'cpuset.mems']) {
    if ((await readFile(join(directory, file), 'utf8')).trim() !== '') continue;
    await writeFile(join(directory, file), await readFile(join(directory, '..', file), 'utf8'));
  }
}

async function directoriesBelow(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
  const below = await Promise.all(
    entries.filter((entry) => entry.isDirectory()).map((entry) => directoriesBelow(join(directory, entry.name))),
  );
  return [...below.flat(), directory];
}

/** Processes of a host, or of a whole lab, including the guests in libvirt's cgroups below. Zombies are not listed by the kernel. */
export async function processes(lab: string, host?: string): Promise<number[]> {
  const top = host === undefined ? path('freezer', lab) : path('freezer', lab, host);
  const lists = await Promise.all(
    (await directoriesBelow(top)).map(
      async (directory) => await readFile(join(directory, 'cgroup.procs'), 'utf8').catch(() => ''),
    ),
  );
  return lists.flatMap((list) =>
    list
      .split('\n')
      .filter((line) => line !== '')
      .map(Number),
  );
}

/** Hosts that have cgroups, whether a state file knows them or not. */
export async function cgroupMembers(lab: string): Promise<string[]> {
  const entries = await readdir(path('freezer', lab), { withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
}

export async function setFrozen(lab: string, host: string, frozen: boolean): Promise<void> {
  const file = path('freezer', lab, host, 'freezer.state');
  await writeFile(file, frozen ? 'FROZEN' : 'THAWED');
  const want = frozen ? 'FROZEN' : 'THAWED';
  await until(
    `${frozen ? 'freezing' : 'thawing'} ${host}`,
    async () => {
      const state = (await readFile(file, 'utf8')).trim();
      return state === want ? { value: undefined } : { waiting: `its cgroup is still ${state}` };
    },
    { timeoutMs: 10_000, everyMs: 20 },
  );
}

export async function isFrozen(lab: string, host: string): Promise<boolean> {
  const state = await readFile(path('freezer', lab, host, 'freezer.state'), 'utf8').catch(() => '');
  return state.startsWith('FR'); // FREEZING too
}

/** Kills every process of a host (or of the lab's setup) and waits for the last to be gone. */
export async function killAll(lab: string, host: string, first?: number): Promise<void> {
  const kill = (pid: number): void => {
    try {
      process.kill(pid, 'SIGKILL');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  };
  if (first !== undefined) kill(first);
  await until(
    `killing every process of ${host}`,
    async () => {
      const alive = await processes(lab, host);
      if (alive.length === 0) return { value: undefined };
      alive.forEach(kill);
      // A frozen process dies only when it runs again; it executes none of its own code before that.
      if (await isFrozen(lab, host)) await setFrozen(lab, host, false);
      return { waiting: `processes ${alive.join(', ')} are still there` };
    },
    { timeoutMs: 20_000, everyMs: 20 },
  );
}

/** Removes the cgroups of one host, or of a lab that has none left, or (no lab named) the common parent when it is empty. */
export async function removeCgroups(lab?: string, host?: string): Promise<void> {
  const names = [lab, host].filter((name) => name !== undefined);
  for (const controller of await controllers()) {
    const directories = names.length === 0 ? [path(controller)] : await directoriesBelow(path(controller, ...names));
    for (const directory of directories) {
      await rmdir(directory).catch((error: NodeJS.ErrnoException) => {
        // The kernel may take a moment to forget the last process; and the parent may serve another lab.
        if (error.code === 'ENOENT' || (error.code === 'EBUSY' && names.length === 0)) return;
        if (error.code === 'EBUSY')
          return until(
            `removing ${directory}`,
            () =>
              rmdir(directory).then(
                () => ({ value: undefined }),
                () => ({ waiting: 'it is busy' }),
              ),
            { timeoutMs: 5000, everyMs: 20 },
          );
        throw error;
      });
    }
  }
}
