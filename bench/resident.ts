// SPDX-License-Identifier: Apache-2.0
// Resident memory and idle CPU of the daemons, beside a Node program that does nothing but wait: the floor.
import { spawn } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { sleep, systemClock } from '@busbar/core/clock/clock';
import { initPid, namespacePidsOf } from '@busbar/deploy/lab/host';
import { HOST, LAB } from './cluster.ts';
import type { Row } from './measure.ts';

const WINDOW_MS = 20_000;
/** USER_HZ: what /proc/PID/stat counts in on every Linux that we know. */
const TICKS_PER_SECOND = 100;

interface Usage {
  readonly rssMiB: number;
  readonly ticks: number;
}

async function usage(pid: number): Promise<Usage> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [user = 0, system = 0] = [fields[11], fields[12]].map(Number);
  return { rssMiB: Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1]) / 1024, ticks: user + system };
}

/** Pids of the programs of the host whose command line matches, as the root namespace numbers them. */
async function find(pattern: RegExp): Promise<readonly number[]> {
  const init = await initPid(LAB, HOST);
  if (init === undefined) throw new Error(`${HOST} is off`);
  const space = await readFile(`/proc/${init}/cgroup`, 'utf8');
  const found: number[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const [command, cgroup] = await Promise.all(
      ['cmdline', 'cgroup'].map((file) => readFile(`/proc/${name}/${file}`, 'utf8').catch(() => '')),
    );
    if (cgroup !== space || !pattern.test((command ?? '').replaceAll('\0', ' '))) continue;
    if ((await namespacePidsOf(Number(name))).length === 2) found.push(Number(name));
  }
  return found;
}

export async function resident(what: string): Promise<readonly Row[]> {
  const floor = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)']);
  const programs: readonly { readonly name: string; readonly pids: readonly number[] }[] = [
    { name: 'controller', pids: await find(/packages\/controller\/src\/main\.ts/) },
    { name: 'agent', pids: await find(/packages\/agent\/src\/main\.ts/) },
    { name: "agent's libvirt child", pids: await find(/libvirt\/ffi\/child/) },
    { name: "controller's Ceph child", pids: await find(/storage\/src\/ffi\/child/) },
  ];
  await sleep(systemClock, 1_000);
  const all = [floor.pid ?? 0, ...programs.flatMap(({ pids }) => pids)];
  const before = new Map(await Promise.all(all.map(async (pid) => [pid, await usage(pid)] as const)));
  await sleep(systemClock, WINDOW_MS);
  const after = new Map(await Promise.all(all.map(async (pid) => [pid, await usage(pid)] as const)));
  const cpu = (pids: readonly number[]): number =>
    (pids.reduce((sum, pid) => sum + (after.get(pid)?.ticks ?? 0) - (before.get(pid)?.ticks ?? 0), 0) /
      TICKS_PER_SECOND /
      (WINDOW_MS / 1000)) *
    100;
  const rss = (pids: readonly number[]): number => pids.reduce((sum, pid) => sum + (after.get(pid)?.rssMiB ?? 0), 0);
  const text = (pids: readonly number[]): string => `${Math.round(rss(pids))} MiB ${cpu(pids).toFixed(1)} %`;
  const floorPids = [floor.pid ?? 0];
  const rows = programs
    .filter(({ pids }) => pids.length > 0)
    .map(({ name, pids }) => ({
      what: `${name}, idle, ${what}`,
      peer: 'memory of an idle Node program',
      ours: text(pids),
      theirs: text(floorPids),
      ratio: rss(pids) / rss(floorPids),
      goal: '',
      rounds: 1,
    }));
  floor.kill();
  return rows;
}
