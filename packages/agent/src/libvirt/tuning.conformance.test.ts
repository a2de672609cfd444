// SPDX-License-Identifier: Apache-2.0
import { execFile } from 'node:child_process';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { systemClock } from '@busbar/core/clock/clock';
import { formatCpuList } from '@busbar/core/cpu-list';
import { silentLogger } from '@busbar/core/log';
import type { DomainSpec } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { CpuPolicy } from '@busbar/proto/gen/busbar/v1/vm';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { bootSectorDisk, GUEST_GREETING } from '../driver/boot-sector.fixture.ts';
import { fileDisk, startRequest } from '../driver/domain.fixture.ts';
import type { HostDriverConfig } from '../driver/host-driver.ts';
import { readCpus } from '../inventory/read.ts';
import { LibvirtHostDriver } from './driver.ts';
import { PrivateLibvirtd } from './private-libvirtd.fixture.ts';

/**
 * Goal: what placement decides is what the kernel does. Method: guests of real QEMUs, asked of libvirt, of virsh and of the
 * kernel's own view of QEMU's threads.
 */
const run = promisify(execFile);
const WAIT = { timeout: 30_000, interval: 50 } as const;
const MIB = 1024n ** 2n;
let libvirtd: PrivateLibvirtd;
let disk: string;
let serial = 500;
let online: readonly number[];
const open: LibvirtHostDriver[] = [];

beforeAll(async () => {
  libvirtd = await PrivateLibvirtd.create();
  disk = join(libvirtd.dir, 'guest.raw');
  await writeFile(disk, bootSectorDisk());
  ({ online } = await readCpus('/'));
});
afterAll(() => libvirtd?.destroy());
afterEach(async () => {
  for (const driver of open.splice(0)) {
    for (const { vmId } of await driver.listDomains()) await driver.destroyDomain(vmId);
    await driver.close();
  }
});

async function driver(more: Partial<HostDriverConfig> = {}): Promise<LibvirtHostDriver> {
  const { dir, uri, qemuLogDir, netNamespace } = libvirtd;
  const made = new LibvirtHostDriver(
    { uri, stateDir: join(dir, 'state'), runDir: join(dir, 'r'), logDir: join(dir, 'serial'), rbd: null, ...more },
    { clock: systemClock, logger: silentLogger, qemuLogDir, netNamespace },
  );
  open.push(made);
  made.start();
  await vi.waitFor(() => expect(made.health().healthy).toBe(true), { ...WAIT, timeout: 60_000 });
  return made;
}

const virsh = (...args: string[]) => libvirtd.exec('virsh', '-c', libvirtd.uri, ...args);

/** CPUs that the kernel lets each of QEMU's threads run on, by the thread's name. */
async function affinities(vmId: string): Promise<ReadonlyMap<string, string>> {
  const tasks = `/proc/${await libvirtd.qemuOf(vmId)}/task`;
  const found = new Map<string, string>();
  for (const thread of await readdir(tasks)) {
    const status = await readFile(join(tasks, thread, 'status'), 'utf8');
    const field = (name: string) => new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1] ?? '';
    found.set(field('Name'), field('Cpus_allowed_list'));
  }
  return found;
}

async function greets(made: LibvirtHostDriver, request: ReturnType<typeof startRequest>): Promise<void> {
  await vi.waitFor(async () => {
    let text = '';
    const signal = new AbortController().signal;
    for await (const chunk of made.readSerialLog(request.vmId, { tailBytes: 65_536, follow: false, signal }))
      text += Buffer.from(chunk).toString('latin1');
    expect(text).toContain(GUEST_GREETING);
  }, WAIT);
}

function request(spec: Partial<DomainSpec>) {
  return startRequest(serial++, { disks: [fileDisk(disk, { readOnly: true })], ...spec });
}

describe('on the CPUs of this machine', () => {
  test('a dedicated VM runs where it was placed, its other threads elsewhere, and its memory is bound', async () => {
    const made = await driver();
    const [first = 0, second = first] = online;
    const one = request({
      vcpus: 2,
      topology: { sockets: 1, cores: 2, threads: 1 },
      ioThreads: 1,
      cpuPolicy: CpuPolicy.DEDICATED,
      placement: {
        host: 'host1',
        cells: [{ numaNode: 0, vcpus: 2, cpus: [second, first], memoryBytes: 32n * MIB }],
        emulatorCpus: [],
        ioThreadCpus: [],
        devices: [],
      },
    });
    await made.startDomain(one);
    await greets(made, one);
    const around = formatCpuList(online.filter((cpu) => cpu !== first && cpu !== second));
    const [listed] = await made.listDomains();
    expect(listed?.placement).toMatchObject({
      vcpuCpus: [`${second}`, `${first}`],
      emulatorCpus: around,
      numaNodes: [0],
    });
    const threads = await affinities(one.vmId);
    expect([threads.get('CPU 0/TCG') ?? threads.get('CPU 0/KVM')]).toEqual([`${second}`]);
    expect([threads.get('CPU 1/TCG') ?? threads.get('CPU 1/KVM')]).toEqual([`${first}`]);
    expect(await virsh('vcpupin', one.vmId)).toMatch(new RegExp(`^ 0 +${second}\\n 1 +${first}$`, 'm'));
    expect(await virsh('numatune', one.vmId)).toMatch(/numa_mode +: strict\nnuma_nodeset +: 0/);
    expect(await virsh('iothreadinfo', one.vmId)).toMatch(/^ 1 /m);
    // Somebody turns a knob.
    await virsh('vcpupin', one.vmId, '0', formatCpuList(online));
    await vi.waitFor(
      async () => expect((await made.listDomains())[0]?.placement?.vcpuCpus[0]).toBe(formatCpuList(online)),
      WAIT,
    );
  });

  test('a realtime VM has FIFO priority and its threads apart', async () => {
    const made = await driver();
    const [first = 0, second = first] = online;
    const one = request({
      cpuPolicy: CpuPolicy.REALTIME,
      realtimePriority: 5,
      ioThreads: 1,
      guestNuma: true,
      placement: {
        host: 'host1',
        cells: [{ numaNode: 0, vcpus: 1, cpus: [second], memoryBytes: 32n * MIB }],
        emulatorCpus: [first],
        ioThreadCpus: [first],
        devices: [],
      },
    });
    await made.startDomain(one);
    await greets(made, one);
    expect((await made.listDomains())[0]?.placement).toEqual({
      vcpuCpus: [`${second}`],
      emulatorCpus: `${first}`,
      ioThreadCpus: [`${first}`],
      numaNodes: [0],
      realtimePriority: 5,
      hugepageBytes: 0n,
      devices: [],
    });
    const threads = await affinities(one.vmId);
    expect(threads.get('CPU 0/TCG') ?? threads.get('CPU 0/KVM')).toBe(`${second}`);
    expect(threads.get('IO iothread1')).toBe(`${first}`);
    expect(threads.get('qemu-system-x86')).toBe(`${first}`);
    const pid = await libvirtd.qemuOf(one.vmId);
    const policies = await libvirtd.exec('sh', '-c', `for t in /proc/${pid}/task/*; do chrt -p "\${t##*/}"; done`);
    expect(policies.match(/SCHED_FIFO\n.*priority: 5$/gm)).toHaveLength(1);
    expect(await virsh('dumpxml', one.vmId)).toMatch(
      /<nosharepages\/>[\s\S]*<pmu state='off'\/>[\s\S]*memballoon model='none'/,
    );
  });

  test('memory is locked, or libvirt tells why the machine does not allow it', async () => {
    const made = await driver();
    const one = request({ memoryLocked: true });
    const allowed = await run('prlimit', ['--memlock=unlimited', 'true']).then(
      () => true,
      () => false,
    );
    if (!allowed) {
      await expect(made.startDomain(one)).rejects.toThrow('cannot limit locked memory');
      return;
    }
    await made.startDomain(one);
    const status = await readFile(`/proc/${await libvirtd.qemuOf(one.vmId)}/status`, 'utf8');
    expect(Number(/^VmLck:\s*(\d+) kB/m.exec(status)?.[1])).toBeGreaterThan(32 * 1024);
  });
});

describe('on a pretended topology', () => {
  const pretendTopology = {
    numaNodes: [
      { cpus: '0-7', hugepages: [{ sizeMib: 1024, pages: 8 }] },
      { cpus: '8-15', siblings: ['8,9'] },
    ],
    isolatedCpus: '12-15',
  };

  test('the inventory shows it, and says so', async () => {
    const made = await driver({ pretendTopology });
    const inventory = await made.inventory();
    expect(inventory.numaNodes.map(({ id, cpus }) => [id, cpus.length])).toEqual([
      [0, 8],
      [1, 8],
    ]);
    expect(inventory.numaNodes[1]?.smtSiblingSets.slice(0, 2)).toEqual(['8,9', '10']);
    expect(inventory).toMatchObject({
      isolatedCpus: [12, 13, 14, 15],
      cpu: { onlineCpus: 16 },
      pretendedTopology: { realCpus: online },
    });
  });

  test('a realtime VM over two NUMA nodes runs on the CPUs that exist', async () => {
    const made = await driver({ pretendTopology });
    const one = request({
      vcpus: 3,
      memoryBytes: 64n * MIB,
      topology: { sockets: 1, cores: 3, threads: 1 },
      cpuPolicy: CpuPolicy.REALTIME,
      realtimePriority: 50,
      memoryLocked: true,
      guestNuma: true,
      placement: {
        host: 'host1',
        cells: [
          { numaNode: 0, vcpus: 1, cpus: [7], memoryBytes: 32n * MIB },
          { numaNode: 1, vcpus: 2, cpus: [12, 15], memoryBytes: 32n * MIB },
        ],
        emulatorCpus: [13, 14],
        ioThreadCpus: [],
        devices: [],
      },
    });
    await made.startDomain(one);
    await greets(made, one);
    const real = (cpu: number) => `${online[cpu % online.length]}`;
    expect((await made.listDomains())[0]?.placement).toMatchObject({
      vcpuCpus: [7, 12, 15].map(real),
      emulatorCpus: formatCpuList([13, 14].map((cpu) => Number(real(cpu)))),
      numaNodes: [],
      realtimePriority: 0,
    });
    const threads = await affinities(one.vmId);
    expect(threads.get('CPU 2/TCG') ?? threads.get('CPU 2/KVM')).toBe(real(15));
  });
});
