// SPDX-License-Identifier: Apache-2.0
// npm run bench [-- --only records|machines] or [-- scheduler …] (scheduler/main.ts): what Busbar adds to the programs below it, measured against them in the
// same run, in turn. Medians; nothing here is a test.
import { loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { buildGuestImage } from '@busbar/deploy/guest/build';
import { openCluster } from './cluster.ts';
import { clone, imageImport } from './images.ts';
import { type Row, table } from './measure.ts';
import { resident } from './resident.ts';
import { benchScheduler } from './scheduler/main.ts';
import { oneStart, parallelStarts } from './starts.ts';
import { listVms, makeVms, watchers } from './watches.ts';
import { writes } from './writes.ts';

const VMS = 1_000;

/** What needs records only: a cluster without Ceph, so that its OSDs do not compete for the two cores. */
async function records(): Promise<readonly Row[]> {
  const cluster = await openCluster({ ceph: false });
  try {
    const idle = await resident('no VMs');
    const few = await makeVms(cluster, 0, 64);
    const written = await writes(cluster, [1, 16, 64], few);
    await makeVms(cluster, few.length, VMS - few.length);
    const listed = await listVms(cluster, VMS);
    const watched = await watchers(cluster, few[0] ?? '');
    return [...written, listed, watched, ...idle, ...(await resident(`${VMS} VMs`))];
  } finally {
    await cluster.close();
  }
}

/** What starts QEMU and writes to Ceph. */
async function machines(): Promise<readonly Row[]> {
  const image = await buildGuestImage();
  const cluster = await openCluster({ ceph: true });
  try {
    const imported = await imageImport(cluster, image.path);
    const cloned = await clone(cluster);
    const started = await oneStart(cluster);
    return [...started, await parallelStarts(cluster), imported, cloned];
  } finally {
    await cluster.close();
  }
}

const PARTS = { machines, records } as const;
type Part = keyof typeof PARTS;

if (process.argv[2] === 'scheduler') {
  await benchScheduler(process.argv.slice(3));
  process.exit();
}
const { values } = parseArgs({ options: { only: { type: 'string' } } });
const parts = Object.keys(PARTS) as Part[];
if (values.only !== undefined && !parts.includes(values.only as Part)) {
  console.error(`bench: no part ${values.only}; there are ${parts.join(', ')}`);
  process.exit(2);
}
const rows: Row[] = [];
console.log(
  `load before the first measure: ${loadavg()
    .map((load) => load.toFixed(1))
    .join(' ')}`,
);
for (const part of parts) if (values.only === undefined || values.only === part) rows.push(...(await PARTS[part]()));
console.log(`${table(rows)}

Medians of pairs taken in turn. Times: ratio is ours/peer, below 1 is faster. Rates (/s): above 1 is more.`);
