// SPDX-License-Identifier: Apache-2.0
// npm run bench -- scheduler [--only PART] [--trace FILE] [--cases N]: placement against ganeti's htools, Nova's NUMA code
// and textbook algorithms, on the same input in the same run.
import { readFile } from 'node:fs/promises';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Row, table } from '../measure.ts';
import type { Bench, Part } from './bench.ts';
import { fetchPeers, PeersUnavailable, versionOf } from './peers/debian.ts';
import { type Ganeti, openGaneti } from './peers/ganeti/ganeti.ts';
import { openNova } from './peers/nova/nova.ts';
import { decisionRows, surviveRows } from './rows/decision.ts';
import { failoverRows } from './rows/failover.ts';
import { numaFillRows } from './rows/numa-fill.ts';
import { numaFitRows, verdictRows } from './rows/numa-fit.ts';
import { packingRows } from './rows/packing.ts';
import { rateRows } from './rows/rate.ts';
import { readTrace, TraceUnreadable } from './workload/trace.ts';

const PARTS: Readonly<Record<string, Part>> = {
  rate: rateRows,
  decision: decisionRows,
  'n-1': surviveRows,
  packing: packingRows,
  'numa-fit': numaFitRows,
  verdicts: verdictRows,
  'numa-fill': numaFillRows,
  failover: failoverRows,
};
// Nova needs 1 to 3 ms for a case; all 100,000 would be half of the time of the whole benchmark.
const DEFAULT_CASES = 20_000;

const NOTES = `Ratio: how many times better than the peer (more per second, or in less time). Medians; of packing, means over the seeds.
Rates of ours without the making of the planner; of hspace and hail the whole process, some 10 ms of it their start.
hail is asked about packing on 20 hosts only: a stream takes it 3 s there, minutes on 100 hosts and hours on 400.
Verdicts: numa_fit_instance_to_host remembers pairs of cells by ids that it changes, and so refuses some that fit; asked
about one cell on one node at a time, Nova's code says what we say.
In all: who refuses large VMs early has room for more small ones; the share in use (of CPUs or memory, what is scarcer)
says what that is worth.`;

export async function benchScheduler(args: readonly string[]): Promise<void> {
  const options = { only: { type: 'string' }, trace: { type: 'string' }, cases: { type: 'string' } } as const;
  const { values } = parseArgs({ args: [...args], options });
  const names = Object.keys(PARTS);
  const cases = Number(values.cases ?? DEFAULT_CASES);
  if (values.only !== undefined && !names.includes(values.only)) {
    fail(`no part ${values.only} of the scheduler's; there are ${names.join(', ')}`);
  }
  if (!Number.isInteger(cases) || cases < 1) fail(`--cases ${values.cases} is no number of cases`);
  try {
    await run(values.only === undefined ? names : [values.only], cases, values.trace);
  } catch (error) {
    if (!(error instanceof PeersUnavailable || error instanceof TraceUnreadable)) throw error;
    fail(error.message);
  }
}

async function run(parts: readonly string[], cases: number, traceFile: string | undefined): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const root = await fetchPeers();
  let ganeti: Ganeti | null = null;
  const bench: Bench = {
    trace: readTrace(traceFile),
    cases,
    ganeti: async () => {
      ganeti ??= stack.use(await openGaneti(root));
      return ganeti;
    },
    nova: () => openNova(root),
  };
  const packages = await readFile(join(root, 'packages'), 'utf8');
  const version = (name: string): string => `${name} ${versionOf(packages, name)}`;
  console.log(
    `peers: ${version('ganeti-htools-3.0')}, ${version('python3-nova')}; Node ${process.version}, ${cpus().length} CPUs`,
  );
  console.log(`load before the first measure: ${load()}`);
  const rows: Row[] = [];
  for (const name of parts) {
    const began = performance.now();
    rows.push(...((await PARTS[name]?.(bench)) ?? []));
    console.error(`bench: ${name} took ${((performance.now() - began) / 1000).toFixed(0)} s`);
  }
  console.log(`load after the last: ${load()}\n${table(rows)}\n\n${NOTES}`);
}

const load = (): string =>
  loadavg()
    .map((value) => value.toFixed(1))
    .join(' ');

function fail(reason: string): never {
  console.error(`bench: ${reason}`);
  process.exit(2);
}
