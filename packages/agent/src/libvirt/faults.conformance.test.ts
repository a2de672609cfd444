// SPDX-License-Identifier: Apache-2.0
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '@busbar/core/clock/clock';
import { silentLogger } from '@busbar/core/log';
import type { DomainSpec } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { DiskBus, Firmware, MachineType, NicModel, WatchdogAction } from '@busbar/proto/gen/busbar/v1/vm';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { bootSectorDisk } from '../driver/boot-sector.fixture.ts';
import { fileDisk, rbdDisk, startRequest, testNic } from '../driver/domain.fixture.ts';
import { HOST_DRIVER_REASONS } from '../driver/host-driver.ts';
import { type LibvirtDriverDeps, LibvirtHostDriver } from './driver.ts';
import { PrivateLibvirtd } from './private-libvirtd.fixture.ts';

const SLOW = { timeout: 60_000, interval: 20 } as const;
const never = () => new AbortController().signal;
/** A well-formed cephx key (type 1, no time, 16 bytes) that fits no cluster. */
const KEY = Buffer.concat([Buffer.from('010000000000000000001000', 'hex'), Buffer.alloc(16, 7)]).toString('base64');

let libvirtd: PrivateLibvirtd;
let disk: string;
let serial = 500;
const open: LibvirtHostDriver[] = [];

function newDriver(deps: Partial<LibvirtDriverDeps> = {}): LibvirtHostDriver {
  const { dir, uri, qemuLogDir, netNamespace } = libvirtd;
  const rbd = { monitors: ['127.0.0.1:1'], shared: { user: 'busbar', keyFile: join(dir, 'keyring') } };
  const made = new LibvirtHostDriver(
    { uri, stateDir: join(dir, 'state'), runDir: join(dir, 'r'), logDir: join(dir, 'serial'), rbd },
    { clock: systemClock, logger: silentLogger, qemuLogDir, netNamespace, ...deps },
  );
  open.push(made);
  made.start();
  return made;
}

const healthy = (made: LibvirtHostDriver, value = true) =>
  vi.waitFor(() => expect(made.health().healthy).toBe(value), SLOW);

async function running(spec: Partial<DomainSpec> = {}) {
  const driver = newDriver();
  await healthy(driver);
  const request = startRequest(serial++, { disks: [fileDisk(disk, { readOnly: true })], ...spec });
  await driver.startDomain(request);
  return { driver, vmId: request.vmId, name: request.name };
}

async function timed<T>(work: Promise<T>): Promise<{ readonly ms: number; readonly error: unknown }> {
  const startedAtMs = performance.now();
  const error = await work.then(
    () => null,
    (e: unknown) => e,
  );
  return { ms: performance.now() - startedAtMs, error };
}

beforeAll(async () => {
  libvirtd = await PrivateLibvirtd.create();
  disk = join(libvirtd.dir, 'guest.raw');
  await writeFile(disk, bootSectorDisk());
  await writeFile(join(libvirtd.dir, 'keyring'), `[client.busbar]\n\tkey = ${KEY}\n`, { mode: 0o600 });
});
afterAll(async () => {
  await libvirtd?.destroy();
});
afterEach(async () => {
  const last = open.at(-1);
  if (last?.health().healthy) for (const { vmId } of await last.listDomains()) await last.destroyDomain(vmId);
  await Promise.all(open.splice(0).map((driver) => driver.close()));
});

describe('libvirtd', () => {
  test('is not there at start: refused with the reason, and used when it comes', async () => {
    await libvirtd.crash();
    const driver = newDriver();
    await vi.waitFor(() => expect(driver.health().message).toContain('Failed to connect socket'), SLOW);
    await expect(driver.listDomains()).rejects.toMatchObject({ reason: HOST_DRIVER_REASONS.hypervisorUnavailable });
    libvirtd.start();
    await healthy(driver);
    expect(await driver.listDomains()).toEqual([]);
  });

  test('kill -9: noticed at once, guests and consoles go on, a VM can still be destroyed, all is found again', async () => {
    const { driver, vmId } = await running();
    const other = startRequest(serial++, { disks: [fileDisk(disk, { readOnly: true })] });
    await driver.startDomain(other);
    await libvirtd.crash();
    await healthy(driver, false);
    const refused = await timed(driver.listDomains());
    expect(refused.error).toMatchObject({ reason: HOST_DRIVER_REASONS.hypervisorUnavailable });
    expect(refused.ms).toBeLessThan(1000);

    const link = await driver.openConsole(vmId, never());
    await link.write(Buffer.from('alive'));
    let seen = '';
    for await (const chunk of link.output) {
      seen += Buffer.from(chunk).toString();
      if (seen.includes('alive')) break;
    }
    link.close();

    await driver.destroyDomain(other.vmId);
    await expect(libvirtd.qemuOf(other.vmId)).rejects.toThrow('no QEMU');
    expect(driver.takeEnds()).toMatchObject([{ vmId: other.vmId, reason: 'destroyed' }]);

    libvirtd.start();
    await healthy(driver);
    await vi.waitFor(async () => {
      expect(await driver.listDomains()).toMatchObject([{ vmId, epoch: 1n, state: 'running' }]);
    }, SLOW);
  });

  test('has lost a domain whose QEMU runs on: that is seen, it gets no twin, and it can be destroyed', async () => {
    const { driver, vmId, name } = await running();
    await libvirtd.crash();
    await healthy(driver, false);
    await libvirtd.exec('rm', `/run/libvirt/qemu/${name}.xml`);
    libvirtd.start();
    await healthy(driver);
    expect(await driver.listDomains()).toEqual([]);
    expect(await driver.haveProcess([vmId])).toEqual(new Set([vmId]));
    const twin = startRequest(serial - 1, { disks: [fileDisk(disk, { readOnly: true })] }, 2n);
    expect(twin.vmId).toBe(vmId);
    await expect(driver.startDomain(twin)).rejects.toMatchObject({ reason: HOST_DRIVER_REASONS.domainExists });
    await driver.destroyDomain(vmId);
    expect(await driver.haveProcess([vmId])).toEqual(new Set());
    expect(await libvirtd.qemus()).toEqual([]);
  });

  test('frozen: calls end in time, a VM can still be destroyed, it recovers by itself', async () => {
    const { driver, vmId } = await running();
    libvirtd.signal('SIGSTOP');
    try {
      const listing = await timed(driver.listDomains());
      expect(listing.error).toMatchObject({ reason: expect.stringMatching(/^HYPERVISOR_(UNAVAILABLE|TIMEOUT)$/) });
      expect(listing.ms).toBeLessThan(7500);
      await healthy(driver, false);
      await driver.destroyDomain(vmId);
      await expect(libvirtd.qemuOf(vmId)).rejects.toThrow('no QEMU');
    } finally {
      libvirtd.signal('SIGCONT');
    }
    await healthy(driver);
    await vi.waitFor(async () => expect(await driver.listDomains()).toEqual([]), SLOW);
  });
});

test('the child is killed: it is replaced, and nothing else notices', async () => {
  const { driver, vmId } = await running();
  const pid = driver.childPid as number;
  process.kill(pid, 'SIGKILL');
  await healthy(driver, false);
  await healthy(driver);
  expect(driver.childPid).not.toBe(pid);
  expect(await driver.listDomains()).toMatchObject([{ vmId, state: 'running' }]);
});

test('the child hangs in a call: it is killed at the deadline and replaced, and guests go on', async () => {
  const { driver, vmId } = await running();
  const pid = driver.childPid as number;
  const qemu = await libvirtd.qemuOf(vmId);
  // Stopped and not dead: it answers nothing, not even that it is there.
  process.kill(pid, 'SIGSTOP');
  const listing = await timed(driver.listDomains());
  expect(listing.error).toMatchObject({ reason: HOST_DRIVER_REASONS.hypervisorTimeout });
  // The call's own 5 s, and 2 s in which the child could have given it up by itself.
  expect(listing.ms).toBeLessThan(10_000);
  await healthy(driver);
  expect(driver.childPid).not.toBe(pid);
  expect(await driver.listDomains()).toMatchObject([{ vmId, state: 'running' }]);
  expect(await libvirtd.qemuOf(vmId)).toBe(qemu);
});

describe('QEMU', () => {
  test('frozen: others are not held up, it is destroyed in seconds', async () => {
    const { driver, vmId } = await running();
    const { pid } = await freeze(vmId);
    const listing = await timed(driver.listDomains());
    expect(listing.error).toBeNull();
    const other = startRequest(serial++, { disks: [fileDisk(disk, { readOnly: true })] });
    await driver.startDomain(other);
    expect((await timed(driver.destroyDomain(vmId))).ms).toBeLessThan(8000);
    expect(await libvirtd.qemus()).not.toContain(pid);
    expect(await driver.listDomains()).toMatchObject([{ vmId: other.vmId }]);
  });

  test('frozen: its disk is not grown, that is told in time, and once it goes on it is', async () => {
    const file = join(libvirtd.dir, 'grows.raw');
    await writeFile(file, Buffer.alloc(1024 ** 2));
    const volumeId = '0b2c0c39-41f5-4c53-9d10-0f7f1b1a00bb';
    const disks = [fileDisk(disk, { readOnly: true }), fileDisk(file, { volumeId, bootOrder: 0 })];
    const { driver, vmId } = await running({ disks });
    const { pid } = await freeze(vmId);
    try {
      const grow = await timed(driver.growDisk(vmId, { volumeId, sizeBytes: 4n * 1024n ** 2n }));
      expect(grow.error).toMatchObject({ reason: HOST_DRIVER_REASONS.hypervisorTimeout });
      expect(grow.ms).toBeLessThan(10_000);
      expect((await timed(driver.listDomains())).error).toBeNull();
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    await vi.waitFor(
      async () => expect(await driver.growDisk(vmId, { volumeId, sizeBytes: 4n * 1024n ** 2n })).toBe(4n * 1024n ** 2n),
      SLOW,
    );
    await healthy(driver);
  });

  test('hangs at start because its storage does: undone at the deadline, with the reason; the key shows nowhere', async () => {
    const driver = newDriver({ startDeadlineMs: 3000 });
    await healthy(driver);
    const request = startRequest(serial++, { disks: [rbdDisk('busbar', 'v1')] });
    const start = timed(driver.startDomain(request));
    await vi.waitFor(async () => expect(await libvirtd.qemus()).toHaveLength(1), SLOW);
    const argv = await readFile(`/proc/${await libvirtd.qemuOf(request.vmId)}/cmdline`, 'latin1');
    expect(argv).toContain('busbar/v1'.split('/')[1]);
    expect(argv).not.toContain(KEY);
    const { error } = await start;

    expect(error).toMatchObject({
      reason: HOST_DRIVER_REASONS.domainStartFailed,
      message: expect.stringContaining('within 3000 ms'),
    });
    expect(await driver.listDomains()).toEqual([]);
    expect(driver.takeEnds()).toEqual([]);
    expect(await libvirtd.qemus()).toEqual([]);
    expect(await readFile(join(libvirtd.qemuLogDir, `${request.name}.log`), 'utf8')).not.toContain(KEY);
  });

  test('the cloud-init disk is there while the domain is, for nobody else to read', async () => {
    const cloudInit = { instanceId: 'id', hostname: 'h', userData: '#cloud-config\n# secret', networkConfig: '' };
    const { driver, vmId } = await running({ cloudInit });
    const iso = join(libvirtd.dir, 'state/seed', `${vmId}.iso`);
    expect((await stat(iso)).mode & 0o077).toBe(0);
    expect(await readFile(iso, 'latin1')).toMatch(/cidata[\s\S]*#cloud-config\n# secret/);
    expect(await readdir(join(libvirtd.dir, 'state/seed'))).toEqual([`${vmId}.iso`]);
    await driver.destroyDomain(vmId);
    await vi.waitFor(async () => expect(await readdir(join(libvirtd.dir, 'state/seed'))).toEqual([]), SLOW);
  });

  test('paused: why is told', async () => {
    const { driver, vmId } = await running();
    await libvirtd.exec('virsh', '-c', libvirtd.uri, 'suspend', vmId);
    expect(await driver.listDomains()).toMatchObject([{ state: 'paused', message: 'paused by a person' }]);
  });
});

test('takes every kind of device', async () => {
  const disks = [DiskBus.VIRTIO, DiskBus.SCSI, DiskBus.SATA].map((bus, n) =>
    fileDisk(disk, { name: `d${n}`, bus, readOnly: bus !== DiskBus.SATA, bootOrder: n === 0 ? 1 : 0 }),
  );
  const nics = [
    testNic(),
    testNic({ name: 'old', macAddress: '52:54:00:12:34:58', model: NicModel.E1000E, bootOrder: 2 }),
  ];
  const common = { nics, guestAgent: true, vcpus: 4, topology: { sockets: 1, cores: 2, threads: 2 } };
  const cloudInit = { instanceId: 'id', hostname: 'h', userData: '#cloud-config\n', networkConfig: 'version: 2\n' };
  for (const spec of [
    { disks: disks.slice(0, 2), machineType: MachineType.Q35, firmware: Firmware.UEFI, watchdog: WatchdogAction.RESET },
    { disks: disks.slice(2), machineType: MachineType.PC, watchdog: WatchdogAction.POWEROFF, cloudInit },
    { disks: disks.slice(0, 1), cpuModel: 'qemu64', watchdog: WatchdogAction.PAUSE },
  ]) {
    const { driver, vmId } = await running({ ...common, ...spec });
    expect(await driver.listDomains()).toMatchObject([{ vmId, state: 'running' }]);
    if ('firmware' in spec)
      expect((await stat(join(libvirtd.dir, 'state/nvram', `${vmId}.fd`))).size).toBeGreaterThan(0);
    await driver.destroyDomain(vmId);
  }
});

async function freeze(vmId: string): Promise<{ readonly pid: number }> {
  const pid = await libvirtd.qemuOf(vmId);
  process.kill(pid, 'SIGSTOP');
  return { pid };
}
