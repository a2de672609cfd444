// SPDX-License-Identifier: Apache-2.0
// VM start, from the API call to libvirt's "running", against `virsh create` of the XML that Busbar made for it.
import { readFile, writeFile } from 'node:fs/promises';
import { hostArgv, hostExec } from '@busbar/deploy/lab/lab';
import { hostRoot } from '@busbar/deploy/lab/paths';
import { run } from '@busbar/deploy/lab/run';
import { CreateVmRequest, RunPolicy, VmPhase, WatchVmsRequest } from '@busbar/proto/gen/busbar/v1/vm';
import { type Api, type Cluster, ended, HOST, LAB, virsh } from './cluster.ts';
import { median, ms, type Row, timed, timeRow } from './measure.ts';

const MIB = 1024 ** 2;
const ROUNDS = 9;
const PARALLEL = 20;
const PARALLEL_ROUNDS = 9;

async function createStopped(api: Api, name: string, pinnedHost: string): Promise<void> {
  const { operation } = await api.vms.createVm(
    CreateVmRequest.fromPartial({
      name,
      spec: {
        runPolicy: RunPolicy.STOPPED,
        cpu: { vcpus: 1 },
        memoryBytes: BigInt(64 * MIB),
        // Blank: a firmware that finds nothing to boot costs both sides the same, and leaves the cores to what is measured.
        disks: [{ name: 'boot', sizeBytes: BigInt(64 * MIB) }],
        placement: { pinnedHost },
      },
    }),
  );
  await ended(api, operation?.id);
}

const start = async (api: Api, vm: string): Promise<void> => ended(api, (await api.vms.startVm({ vm })).operation?.id);
const stop = async (api: Api, vm: string): Promise<void> =>
  ended(api, (await api.vms.stopVm({ vm, force: true })).operation?.id);

/** The XML of a running VM as a file in the host, without what makes it Busbar's: the agent destroys a twin of its VM. */
async function exportXml(vm: string, peer: string, host = HOST): Promise<string> {
  const dumped = await hostExec(LAB, host, ['virsh', '--quiet', 'dumpxml', '--inactive', '--security-info', vm]);
  const xml = dumped.stdout
    .replace(/<metadata>.*<\/metadata>/s, '')
    .replace(/<uuid>.*<\/uuid>/, '')
    // Each VM has a console socket and a log of its own, named after its id.
    .replaceAll(/(path|file)='([^']*\/)[0-9a-f-]{36}(\.[a-z]+)'/g, `$1='$2${peer}$3'`)
    .replaceAll(vm, peer);
  const inHost = `/var/lib/busbar/${peer}.xml`;
  await writeFile(hostRoot(LAB, host, inHost), xml);
  return inHost;
}

export async function oneStart(cluster: Cluster): Promise<readonly Row[]> {
  const { api } = cluster;
  await createStopped(api, 'bench-start', HOST);
  await start(api, 'bench-start');
  const xml = await exportXml('bench-start', 'bench-peer');
  await stop(api, 'bench-start');
  const layers: Layers[] = [];
  const row = await timeRow({
    what: 'VM start, API call to running',
    peer: 'virsh create of the same XML',
    goal: '≤ 1.10 and +15 ms',
    rounds: ROUNDS,
    ours: async (round) => {
      const { totalMs, ...parts } = await layeredStart(api, 'bench-start');
      if (round > 0) layers.push({ totalMs, ...parts });
      await stop(api, 'bench-start');
      return totalMs;
    },
    theirs: async () => {
      const taken = await timed(() => virsh('create', xml));
      await virsh('destroy', 'bench-peer');
      return taken;
    },
  });
  const part = (pick: (layer: Layers) => number): string => ms(median(layers.map(pick)));
  process.stderr.write(
    `of one start (medians): accepted by the API ${part((l) => l.acceptedMs)}, placed by the leader ` +
      `${part((l) => l.placedMs)}, given to libvirt ${part((l) => l.orderedMs)}, libvirt and QEMU ` +
      `${part((l) => l.libvirtMs)}, reported and written ${part((l) => l.reportedMs)}, operation ended and told ` +
      `${part((l) => l.toldMs)}\n`,
  );
  return [row];
}

/** Where the time of one start goes, in the order of its story. */
interface Layers {
  readonly totalMs: number;
  readonly acceptedMs: number;
  readonly placedMs: number;
  readonly orderedMs: number;
  readonly libvirtMs: number;
  readonly reportedMs: number;
  readonly toldMs: number;
}

async function layeredStart(api: Api, vm: string): Promise<Layers> {
  const { revision, vms } = await api.vms.listVms({ pageSize: 1000 });
  const id = vms.find((each) => each.meta?.name === vm)?.meta?.id ?? '';
  const stopWatch = new AbortController();
  const phases = new Map<VmPhase, number>();
  const watching = (async () => {
    for await (const { vm: changed } of api.vms.watchVms(WatchVmsRequest.fromPartial({ revision }), {
      signal: stopWatch.signal,
    })) {
      const phase = changed?.meta?.id === id ? changed.status?.phase : undefined;
      if (phase !== undefined && !phases.has(phase)) phases.set(phase, Date.now());
    }
  })().catch(() => {});
  const began = Date.now();
  const precise = performance.now();
  const { operation } = await api.vms.startVm({ vm });
  const accepted = Date.now();
  await ended(api, operation?.id);
  const totalMs = performance.now() - precise;
  const told = Date.now();
  stopWatch.abort();
  await watching;
  const action = await lastStart(id);
  const starting = phases.get(VmPhase.STARTING) ?? Number.NaN;
  const running = phases.get(VmPhase.RUNNING) ?? told;
  return {
    totalMs,
    acceptedMs: accepted - began,
    placedMs: starting - accepted,
    orderedMs: action.begunMs - starting,
    libvirtMs: action.endedMs - action.begunMs,
    reportedMs: running - action.endedMs,
    toldMs: told - running,
  };
}

/** The agent's log says when it handed the start to libvirt and when libvirt had done it. All clocks are this machine's. */
async function lastStart(vmId: string): Promise<{ readonly begunMs: number; readonly endedMs: number }> {
  const log = await readFile(hostRoot(LAB, HOST, '/var/log/busbar/agent/current'), 'utf8');
  const lines = log
    .split('\n')
    .map((line) => line.slice(line.indexOf('{')))
    .filter((line) => line.includes(vmId) && line.includes('"action":"start"'))
    .map((line) => JSON.parse(line) as { time: string; msg: string });
  const at = (msg: string): number => Date.parse(lines.findLast((line) => line.msg === msg)?.time ?? '');
  return { begunMs: at('action begins'), endedMs: at('action ends') };
}

/**
 * 20 VMs at once, over the hosts of the lab as their vCPUs allow, against `virsh create` of the same XML on the same hosts, two at
 * a time as `xargs -P2` would on this machine's two cores.
 */
export async function parallelStarts(cluster: Cluster): Promise<Row> {
  const { api, plan } = cluster;
  const hosts = plan.hosts.map(({ name }) => name);
  const vms = Array.from({ length: PARALLEL }, (_, i) => ({
    name: `bench-many-${i}`,
    peer: `bench-peer-${i}`,
    host: hosts[i % hosts.length] ?? HOST,
  }));
  for (const { name, host } of vms) await createStopped(api, name, host);
  const startAll = () => Promise.all(vms.map(({ name }) => start(api, name)));
  const stopAll = () => Promise.all(vms.map(({ name }) => stop(api, name)));
  await startAll();
  const created: string[][] = [];
  for (const { name, peer, host } of vms)
    created.push(await hostArgv(LAB, host, ['virsh', '--quiet', 'create', await exportXml(name, peer, host)]));
  await stopAll();
  return timeRow({
    what: `${PARALLEL} VMs at once, API calls to running`,
    peer: 'virsh create, two at a time',
    goal: '≤ 1.00',
    rounds: PARALLEL_ROUNDS,
    ours: async () => {
      const taken = await timed(startAll);
      await stopAll();
      return taken;
    },
    theirs: async () => {
      const left = [...created];
      const worker = async () => {
        for (let argv = left.shift(); argv !== undefined; argv = left.shift()) await run(argv, { timeoutMs: 60_000 });
      };
      const taken = await timed(() => Promise.all([worker(), worker()]));
      for (const { peer, host } of vms) await hostExec(LAB, host, ['virsh', '--quiet', 'destroy', peer]);
      return taken;
    },
  });
}
