// SPDX-License-Identifier: Apache-2.0
// What an engine of the tests leaves behind: a directory, control groups, and in them what was frozen when it died.
import { globSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { waitUntil } from '../../store/examine.fixture.ts';

/** Of the directory, and by its name of the control groups. */
export const PREFIX = 'busbar-docker-';
const DEADLINE_MS = 20_000;

/** This process, told apart from a later one with the same id by the time of its start. */
export function ownMark(): string {
  return markOf(process.pid) ?? '';
}

/** Whether the process still runs that wrote this mark. */
export function lives(mark: string): boolean {
  return mark !== '' && markOf(Number(mark.split(' ')[0])) === mark;
}

/** Takes away what a test process that was killed could not. */
export async function removeStale(): Promise<void> {
  for (const directory of globSync(join(tmpdir(), `${PREFIX}*`))) {
    let mark = '';
    try {
      mark = readFileSync(join(directory, 'owner'), 'utf8');
    } catch {
      // It died before it wrote it.
    }
    if (!lives(mark)) await removeRemains(directory);
  }
}

/** To be called when the engine's own processes have been killed. */
export async function removeRemains(directory: string): Promise<void> {
  const groups = `/sys/fs/cgroup/{,*/}${basename(directory)}`;
  const within = (file: string) => globSync([`${groups}/${file}`, `${groups}/**/${file}`]);
  await waitUntil(async () => {
    // A frozen process does not die of a signal before it is thawed.
    for (const state of within('freezer.state')) attempt(() => writeFileSync(state, 'THAWED'));
    for (const state of within('cgroup.freeze')) attempt(() => writeFileSync(state, '0'));
    const processes = within('cgroup.procs');
    for (const list of processes) for (const pid of readIds(list)) attempt(() => process.kill(pid, 'SIGKILL'));
    // The deepest first.
    for (const list of processes.toSorted((a, b) => b.length - a.length)) attempt(() => rmdirSync(join(list, '..')));
    return within('cgroup.procs').length === 0;
  }, DEADLINE_MS);
  // The mounts in it go with the engine's mount namespace, a moment after its last process.
  await rm(directory, { recursive: true, force: true, maxRetries: 50, retryDelay: 20 });
}

function markOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // Field 22; the second one, in brackets, may contain blanks.
    return `${pid} ${stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]}`;
  } catch {
    return null;
  }
}

function readIds(list: string): readonly number[] {
  try {
    return readFileSync(list, 'utf8').split('\n').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

/** What is gone meanwhile needs nothing more; what still resists is met again in the next round. */
function attempt(deed: () => void): void {
  try {
    deed();
  } catch {
    // As said.
  }
}
