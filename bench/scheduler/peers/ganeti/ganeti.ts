// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { assert } from '@busbar/core/assert';
import { type Packing, packingOf } from '../../baselines/pool.ts';
import { type Arrival, type Flavour, HOST } from '../../workload/flavour.ts';
import { libraryPath } from '../library-path.ts';
import {
  allocateRequest,
  clusterText,
  multiAllocateRequest,
  nodeName,
  type PlacedOn,
  uniformClusterText,
} from './text.ts';

// hail with its check on 100 hosts took 9 s; nothing that these rows ask takes a minute.
const DEADLINE_MS = 60_000;

export interface Rate {
  readonly placements: number;
  readonly ms: number;
}

/** ganeti's htools: hail decides for one VM or for a list, hspace fills a cluster with VMs of one size. */
export interface Ganeti extends AsyncDisposable {
  /** Placements of hspace until full, or `limit` of them; it fills twice (largest and standard size, here the same). */
  fill(hosts: number, size: Flavour, limit: number | null): Promise<Rate>;
  /** hail on a list, in one process, without its capacity check; null when it refuses one of them. */
  placeAll(hosts: number, list: readonly Flavour[]): Promise<(Rate & { readonly on: readonly number[] }) | null>;
  /** hail on one VM; milliseconds of the process, some 10 of them its start and its parsing. */
  decide(hosts: number, placed: readonly PlacedOn[], asked: Flavour, capacityCheck: boolean): Promise<Decision>;
  /** The stream to its end, without the capacity check. */
  pack(hosts: number, stream: readonly Arrival[]): Promise<Packing>;
}

export interface Decision {
  readonly ms: number;
  /** Index of the host, null when refused. */
  readonly host: number | null;
}

const NO_CHECKS = '--no-capacity-checks';

export async function openGaneti(root: string): Promise<Ganeti> {
  const folder = await mkdtemp(join(tmpdir(), 'busbar-bench-'));
  const where = (path: string): string => (existsSync(join(root, path)) ? join(root, path) : path);
  const hspace = where('/usr/lib/ganeti/3.0/usr/bin/hspace');
  const hail = where('/usr/lib/ganeti/3.0/usr/lib/ganeti/iallocators/hail');
  const env = { ...process.env, LD_LIBRARY_PATH: libraryPath(root) };

  const write = async (name: string, text: string): Promise<string> => {
    const path = join(folder, name);
    await writeFile(path, text);
    return path;
  };

  const ask = async (text: string, request: string, options: readonly string[]): Promise<HailAnswer & Timed> => {
    const args = ['-t', await write('cluster', text), ...options, await write('request', request)];
    const { stdout, ms } = await timedRun(hail, args, env);
    return { ...(JSON.parse(stdout) as HailAnswer), ms };
  };

  const ganeti: Ganeti = {
    async fill(hosts, size, limit) {
      const path = await write('cluster', uniformClusterText(hosts, HOST, size));
      const length = limit === null ? [] : ['-l', String(limit)];
      const args = ['-t', path, NO_CHECKS, '--machine-readable', '--disk-template=rbd', ...length];
      const { stdout, ms } = await timedRun(hspace, args, env);
      const placed = Number(/^HTS_ALLOC_INSTANCES=(\d+)$/m.exec(stdout)?.[1]);
      assert(placed > 0, `hspace placed nothing: ${stdout.slice(-500)}`);
      return { placements: 2 * placed, ms };
    },
    async placeAll(hosts, list) {
      const answer = await ask(clusterText(hosts, HOST, [], anyOf(list)), multiAllocateRequest(list), [NO_CHECKS]);
      if (!answer.success) return null;
      const on = new Map((answer.result[0] as [string, [string]][]).map(([name, [node]]) => [name, hostOf(node)]));
      return { placements: list.length, ms: answer.ms, on: list.map((_, index) => on.get(`asked${index}`) ?? -1) };
    },
    async decide(hosts, placed, asked, capacityCheck) {
      const text = clusterText(hosts, HOST, placed, asked);
      const answer = await ask(text, allocateRequest(asked), capacityCheck ? [] : [NO_CHECKS]);
      return { ms: answer.ms, host: answer.success ? hostOf((answer.result as [string])[0]) : null };
    },
    async pack(hosts, stream) {
      const accepted = await longestPrefix(stream.length, async (length) =>
        length === 0 ? [] : ((await ganeti.placeAll(hosts, stream.slice(0, length)))?.on ?? null),
      );
      const placed = stream.slice(0, accepted.length).map((vm, index) => ({ ...vm, host: accepted[index] ?? -1 }));
      const verdicts = stream.map((_, index) => index < accepted.length);
      // The one behind the prefix is refused; the rest one by one, as only then is a refusal no end of the list.
      for (let index = accepted.length + 1; index < stream.length; index++) {
        const vm = stream[index] as Arrival;
        const { host } = await ganeti.decide(hosts, placed, vm, false);
        verdicts[index] = host !== null;
        if (host !== null) placed.push({ ...vm, host });
      }
      return packingOf(stream, verdicts);
    },
    async [Symbol.asyncDispose]() {
      await rm(folder, { recursive: true });
    },
  };
  return ganeti;
}

interface HailAnswer {
  readonly success: boolean;
  readonly result: readonly unknown[];
}

interface Timed {
  readonly ms: number;
}

/** hail takes a list as a whole or not at all, and places in order: a longer prefix fails when a shorter one does. */
export async function longestPrefix<T>(
  length: number,
  attempt: (length: number) => Promise<readonly T[] | null>,
): Promise<readonly T[]> {
  let accepted: readonly T[] = [];
  let [low, high] = [0, length];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    const answer = await attempt(middle);
    if (answer === null) high = middle - 1;
    else [low, accepted] = [middle, answer];
  }
  return accepted;
}

function hostOf(node: string): number {
  return Number(node.slice(nodeName(0).length - 1));
}

/** The policy of the cluster names a standard size, which hail does not use. */
function anyOf(list: readonly Flavour[]): Flavour {
  const [first] = list;
  assert(first !== undefined, 'hail is asked for at least one VM');
  return first;
}

async function timedRun(
  program: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<{ readonly stdout: string; readonly ms: number }> {
  const began = performance.now();
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env, timeout: DEADLINE_MS });
  const [stdout, stderr]: [string[], string[]] = [[], []];
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => stdout.push(chunk));
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => stderr.push(chunk));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  const ms = performance.now() - began;
  // hspace and hail end with an error after a warning; what they answer says whether they worked.
  assert(stdout.length > 0, `${program} ended with ${code} and said only ${stderr.join('').slice(0, 500)}`);
  return { stdout: stdout.join(''), ms };
}
