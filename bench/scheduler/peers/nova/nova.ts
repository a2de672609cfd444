// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { PeersUnavailable } from '../debian.ts';
import { libraryPath } from '../library-path.ts';

/** What fit.py makes a NUMACell of. */
export interface NovaCell {
  readonly cpus: readonly number[];
  /** Every core, also those of one thread. */
  readonly siblings: readonly (readonly number[])[];
  readonly memory: number;
  readonly usedCpus: readonly number[];
  readonly usedMemory: number;
  /** Size in KiB, pages in the pool, pages used. */
  readonly pages: readonly (readonly [number, number, number])[];
}

export interface NovaGuest {
  readonly threads: 'prefer' | 'isolate' | 'require';
  /** KiB; SMALL_PAGES: the host's smallest. */
  readonly page: number;
  /** vCPUs and MiB. */
  readonly cells: readonly (readonly [number, number])[];
}

export const SMALL_PAGES = -1;

export type NovaHost = readonly NovaCell[];

/** Nova's placement code in a Python process, asked one thing at a time. */
export interface Nova extends AsyncDisposable {
  verdicts(cases: readonly (readonly [NovaHost, NovaGuest])[]): Promise<readonly boolean[]>;
  /** Verdicts of Nova's own check of one cell on one node, without what it remembers in between. */
  exactVerdicts(cases: readonly (readonly [NovaHost, NovaGuest])[]): Promise<readonly boolean[]>;
  /** Microseconds of each of so many fits; null when one did not end within the limit, and then the process is gone. */
  time(host: NovaHost, guest: NovaGuest, rounds: number, limitMs: number): Promise<NovaTiming | null>;
  /** Filters and weighs a stream over equal hosts, null for a refusal. */
  fill(hosts: number, host: NovaHost, guests: readonly NovaGuest[]): Promise<readonly (NovaPlacement | null)[]>;
}

export interface NovaTiming {
  readonly microseconds: readonly number[];
  readonly fits: boolean;
}

export interface NovaPlacement {
  readonly host: number;
  readonly cells: readonly number[];
}

const PYTHON = '/usr/bin/python3';
// 20,000 cases take half a minute; no request of these rows takes this long.
const DEADLINE_MS = 120_000;

export async function openNova(root: string): Promise<Nova> {
  if (!existsSync(PYTHON)) throw new PeersUnavailable(`${PYTHON} is missing (Debian: apt-get install python3)`);
  const child = spawn(PYTHON, [join(import.meta.dirname, 'fit.py')], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: {
      ...process.env,
      PYTHONPATH: join(root, 'usr/lib/python3/dist-packages'),
      LD_LIBRARY_PATH: libraryPath(root),
      PYTHONDONTWRITEBYTECODE: '1',
    },
  });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  // A process that ended says why on stderr; that nobody reads its stdin is no news.
  child.stdin.on('error', () => undefined);
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    stderr = (stderr + chunk).slice(-2000);
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();

  /** null: not answered within the limit. */
  const ask = async (request: object, limitMs = DEADLINE_MS): Promise<unknown> => {
    child.stdin.write(`${JSON.stringify(request)}\n`);
    const timer = setTimeout(() => child.kill('SIGKILL'), limitMs);
    const line = await lines.next();
    clearTimeout(timer);
    if (line.done !== true) return JSON.parse(line.value);
    await ended;
    if (child.signalCode === 'SIGKILL') return null;
    throw new PeersUnavailable(`Nova's code ended with ${child.exitCode}: ${stderr.trim()}`);
  };
  const answered = async (request: object): Promise<unknown> => {
    const answer = await ask(request);
    if (answer === null) throw new PeersUnavailable(`Nova's code did not answer within ${DEADLINE_MS} ms`);
    return answer;
  };

  return {
    verdicts: async (cases) => (await answered({ ask: 'verdicts', cases })) as readonly boolean[],
    exactVerdicts: async (cases) => (await answered({ ask: 'exact', cases })) as readonly boolean[],
    time: async (host, guest, rounds, limitMs) =>
      (await ask({ ask: 'timing', host, guest, rounds }, limitMs)) as NovaTiming | null,
    fill: async (hosts, host, guests) =>
      (await answered({ ask: 'fill', hosts, host, guests })) as readonly (NovaPlacement | null)[],
    async [Symbol.asyncDispose]() {
      child.stdin.end();
      await ended;
    },
  };
}
