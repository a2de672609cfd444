// SPDX-License-Identifier: Apache-2.0
import { realCpu } from '@busbar/core/cpu-list';
import { pretendTopology } from '@busbar/deploy/lab/lab';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { busbar, busbarOk, eventually, inside, json, LAB } from './lab.ts';

/**
 * Goal: what the API says of a VM's CPUs is what its domain has, on a host of two NUMA nodes with isolated CPUs; and what does
 * not fit is refused with the numbers. The host pretends the topology; its vCPUs are pinned to the CPUs that exist.
 */
const HOST = 'host3';
const TOPOLOGY = {
  numaNodes: [
    { cpus: '0-7', memoryMib: 8192 },
    { cpus: '8-15', memoryMib: 8192 },
  ],
  isolatedCpus: '4-7,12-15',
};
const [RELAY, HISTORIAN] = ['relay-1', 'historian-1'];

interface HostJson {
  readonly status: {
    readonly state: string;
    readonly inventory: {
      readonly isolatedCpus: readonly number[];
      readonly numaNodes: readonly { readonly id?: number; readonly cpus: readonly number[] }[];
      readonly pretendedTopology?: { readonly realCpus: readonly number[] };
    };
  };
}
interface Placement {
  readonly host: string;
  readonly cells: readonly { readonly numaNode?: number; readonly vcpus: number; readonly cpus: readonly number[] }[];
  /** Absent when empty: proto3 JSON leaves out what is. */
  readonly emulatorCpus?: readonly number[];
  readonly ioThreadCpus?: readonly number[];
}
interface VmJson {
  readonly status: {
    readonly phase: string;
    readonly host: string;
    readonly placement: Placement;
    readonly observedPlacement: { readonly vcpuCpus: readonly string[]; readonly emulatorCpus: string };
    readonly placementDrift?: string;
  };
}

const getHost = () => json<HostJson>(['host', 'get', HOST]);
const getVm = (name: string) => json<VmJson>(['vm', 'get', name]);
let realCpus: readonly number[];

async function shows(pretended: boolean): Promise<HostJson> {
  return await eventually(`${HOST} to show ${pretended ? 'the pretended' : 'its own'} topology`, 60_000, async () => {
    const host = await getHost();
    const isReady = host.status.state === 'HOST_STATE_READY';
    return isReady && (host.status.inventory.pretendedTopology !== undefined) === pretended ? host : null;
  });
}

function yaml(name: string, cpu: string, more = ''): string {
  return `apiVersion: busbar.v1
kind: Vm
name: ${name}
spec:
  cpu: ${cpu}
  memoryBytes: 128MiB
  placement: {pinnedHost: ${HOST}}
${more.replace(/^(?=.)/gm, '  ')}`;
}

beforeAll(async () => {
  await pretendTopology(LAB, HOST, TOPOLOGY);
  const host = await shows(true);
  expect(host.status.inventory.isolatedCpus).toEqual([4, 5, 6, 7, 12, 13, 14, 15]);
  realCpus = host.status.inventory.pretendedTopology?.realCpus ?? [];
  expect(realCpus.length).toBeGreaterThan(0);
});
afterAll(async () => {
  for (const name of [RELAY, HISTORIAN]) await busbar(['vm', 'delete', name, '--force']);
  await pretendTopology(LAB, HOST, null);
  await shows(false);
});

/** The pins that the placement's CPUs stand for, as virsh writes them. */
async function isPinnedAsPlaced(name: string, placement: Placement): Promise<void> {
  const xml = await inside(HOST, 'virsh', 'dumpxml', name);
  const pins = (element: string) =>
    [...xml.matchAll(new RegExp(`<${element}(?: \\w+='\\d+')? cpuset='([\\d,-]+)'/>`, 'g'))].map((match) => match[1]);
  const real = (cpus: readonly number[]) => cpus.map((cpu) => `${realCpu(cpu, realCpus)}`);
  expect(pins('vcpupin')).toEqual(real(placement.cells.flatMap(({ cpus }) => cpus)));
  expect(pins('iothreadpin')).toEqual(real(placement.ioThreadCpus ?? []));
  if (placement.emulatorCpus !== undefined) expect(pins('emulatorpin')).toEqual(real(placement.emulatorCpus));
  expect(xml).not.toMatch(/<numatune|<hugepages|<vcpusched/);
}

describe('a realtime and a dedicated VM', () => {
  it('a dry run tells exactly where, and makes nothing', async () => {
    const input = yaml(RELAY, '{vcpus: 3, policy: realtime, realtimePriority: 50, ioThreads: 1}');
    const preview = await busbar(['vm', 'create', '-f', '-', '--dry-run', '-o', 'json'], { input });
    const { placement } = JSON.parse(preview.stdout) as { placement: { host: string; placement: Placement } };
    expect(placement).toMatchObject({ host: HOST, placement: { host: HOST, ioThreadCpus: [expect.any(Number)] } });
    expect((await busbar(['vm', 'get', RELAY])).code).toBe(3);
  });

  it('get their own CPUs, which libvirt has as the API says', async () => {
    const numa = 'numa: {topology: automatic, oneNodeRequired: true}\n';
    const documents = [
      yaml(RELAY, '{vcpus: 3, policy: realtime, realtimePriority: 50, ioThreads: 1}', numa),
      yaml(HISTORIAN, '{vcpus: 3, policy: dedicated}'),
    ];
    await busbarOk(['apply', '-f', '-'], { input: documents.join('---\n') });
    const relay = (await getVm(RELAY)).status;
    const historian = (await getVm(HISTORIAN)).status;
    for (const { phase, host, placementDrift } of [relay, historian])
      expect([phase, host, placementDrift ?? '']).toEqual(['VM_PHASE_RUNNING', HOST, '']);
    const isolated = new Set((await getHost()).status.inventory.isolatedCpus);
    const relayCpus = relay.placement.cells.flatMap(({ cpus }) => cpus);
    const historianCpus = historian.placement.cells.flatMap(({ cpus }) => cpus);
    expect(relay.placement.cells).toHaveLength(1);
    expect([relayCpus.length, historianCpus.length]).toEqual([3, 3]);
    expect(relayCpus.every((cpu) => isolated.has(cpu))).toBe(true);
    const { emulatorCpus = [], ioThreadCpus = [] } = relay.placement;
    expect([emulatorCpus.length, ioThreadCpus.length]).toEqual([1, 1]);
    const apart = [...historianCpus, ...emulatorCpus, ...ioThreadCpus];
    expect(apart.some((cpu) => isolated.has(cpu))).toBe(false);
    const all = [...relayCpus, ...apart];
    expect(new Set(all).size).toBe(all.length);
    await isPinnedAsPlaced(RELAY, relay.placement);
    await isPinnedAsPlaced(HISTORIAN, historian.placement);
    const observed = await eventually('what libvirt has to be told', 30_000, async () => {
      const { observedPlacement } = (await getVm(RELAY)).status;
      return observedPlacement?.vcpuCpus?.length === 3 ? observedPlacement : null;
    });
    expect(observed.vcpuCpus).toEqual(relayCpus.map((cpu) => `${realCpu(cpu, realCpus)}`));
    const xml = await inside(HOST, 'virsh', 'dumpxml', RELAY);
    expect(xml).toContain("<cell id='0' cpus='0-2' memory='131072' unit='KiB'/>");
    expect(xml).toMatch(/<pmu state='off'\/>[\s\S]*<memballoon model='none'/);
  });

  it('a second realtime VM that finds too few isolated CPUs is refused with the numbers', async () => {
    const refused = await busbar(['apply', '-f', '-'], { input: yaml('relay-2', '{vcpus: 6, policy: realtime}') });
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toMatch(/host3: .*needs 6 isolated CPUs, \d free: \d+(, \d+)*/);
    expect((await busbar(['vm', 'get', 'relay-2'])).code).toBe(3);
  });

  it('are explained: why here, which CPU belongs to whom, and what if the host died', async () => {
    const why = await busbarOk(['explain', 'placement', RELAY]);
    expect(why).toMatch(new RegExp(`^runs on ${HOST}; NUMA node \\d: vCPUs on CPUs`));
    expect(why).toMatch(/chosen as the only host that fits of 3/);
    expect(why).toMatch(/host1 +pinned-host: pinned to host3/);
    const map = await busbarOk(['host', 'numa', HOST]);
    expect(map).toMatch(/NUMA node 0: .* given to VMs\n {2}CPU 0-7\n {4}[.iABab]{4} [.iABab]{4}\n/);
    expect(map).toMatch(/\n[AB] {2}relay-1: vCPUs on .*; [ab] emulator and I\/O threads on /);
    // Pinned, and not highly available: what nobody may take over stays down, and is said to.
    const drill = await busbarOk(['drill', HOST]);
    expect(drill).toMatch(/relay-1: not highly available/);
    for (const text of [why, map, drill])
      for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
  });

  it('a knob that somebody turned with virsh is a fault, until it is turned back', async () => {
    const { placement } = (await getVm(RELAY)).status;
    const decided = `${realCpu(placement.cells[0]?.cpus[0] ?? 0, realCpus)}`;
    const other = realCpus.length > 1 ? `${realCpus[0]}-${realCpus.at(-1)}` : '';
    if (other === '') return;
    const turn = (cpus: string) => inside(HOST, 'virsh', 'vcpupin', RELAY, '0', cpus, '--live');
    await turn(other);
    const drift = await eventually('the drift to be told', 60_000, async () => {
      return (await getVm(RELAY)).status.placementDrift || null;
    });
    expect(drift).toBe(`vCPU 0 on CPUs ${other} instead of ${decided}`);
    expect(await busbarOk(['vm', 'list'])).toMatch(/relay-1 .*not placed as decided/);
    await turn(decided);
    await eventually('the drift to be gone', 60_000, async () =>
      ((await getVm(RELAY)).status.placementDrift ?? '') === '' ? true : null,
    );
    const { events } = await json<{ events: { reason: string }[] }>(['event', 'list', '--subject', `vm/${RELAY}`]);
    const reasons = events.map(({ reason }) => reason);
    expect(reasons).toContain('VM_PLACEMENT_DRIFT');
    expect(reasons).toContain('VM_PLACEMENT_RESTORED');
  });
});
