// SPDX-License-Identifier: Apache-2.0
import type { Epoch, VmId } from '@busbar/core/ids';
import type { DomainDisk, DomainSpec } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { GUEST_GREETING } from './boot-sector.fixture.ts';
import { startRequest, testNic } from './domain.fixture.ts';
import {
  type ConsoleLink,
  type DomainEnd,
  HOST_DRIVER_REASONS,
  type HostDriver,
  type StartRequest,
} from './host-driver.ts';

/** A host for conformance tests. Its guests greet on their serial line, echo, and obey the power button. */
export interface ConformanceHost {
  /** Another driver on this host, as a restarted agent makes one; not started. */
  open(): HostDriver;
  /** What makes a spec boot the guest. */
  readonly guest: Partial<DomainSpec>;
  /** Arranges that this start fails; the words that its reason must hold. */
  failingStart(request: StartRequest): Promise<{ readonly request: StartRequest; readonly words: string }>;
  /** Kills QEMU from outside. */
  crash(vmId: VmId): Promise<void>;
  /** Whether the guest sees a carrier, asked of the hypervisor and not of the driver. */
  linksUp(vmId: VmId): Promise<boolean>;
  /** Makes a disk of 1 MiB that a guest may write to. */
  disk(volumeId: string): Promise<DomainDisk>;
  close(): Promise<void>;
}

const WAIT = { timeout: 20_000, interval: 20 } as const;
const never = () => new AbortController().signal;

/** What every HostDriver has to do. Names of VMs are unique within a run: one host serves all tests. */
export function hostDriverConformance(create: () => Promise<ConformanceHost>): void {
  let host: ConformanceHost;
  let serial = 100;
  const open: HostDriver[] = [];

  beforeAll(async () => {
    host = await create();
  });
  afterAll(async () => {
    await host?.close();
  });
  afterEach(async () => {
    const last = open.at(-1);
    if (last?.health().healthy) {
      for (const { vmId } of await last.listDomains()) await last.destroyDomain(vmId);
    }
    await Promise.all(open.splice(0).map((driver) => driver.close()));
  });

  async function driver(): Promise<HostDriver> {
    const made = host.open();
    open.push(made);
    made.start();
    await vi.waitFor(() => expect(made.health()).toEqual({ healthy: true, message: '' }), { ...WAIT, timeout: 60_000 });
    return made;
  }

  const request = (spec: Partial<DomainSpec> = {}, epoch = 1n) =>
    startRequest(serial++, { ...host.guest, ...spec }, epoch);

  async function endOf(made: HostDriver, vmId: VmId): Promise<DomainEnd> {
    const ends: DomainEnd[] = [];
    await vi.waitFor(() => {
      ends.push(...made.takeEnds());
      expect(ends.some((end) => end.vmId === vmId)).toBe(true);
    }, WAIT);
    expect(ends).toHaveLength(1);
    return ends[0] as DomainEnd;
  }

  describe('domains', () => {
    test('a driver that is not started refuses', async () => {
      const made = host.open();
      open.push(made);
      expect(made.health().healthy).toBe(false);
      await expect(made.listDomains()).rejects.toMatchObject({ reason: HOST_DRIVER_REASONS.hypervisorUnavailable });
      await expect(made.startDomain(request())).rejects.toMatchObject({
        reason: HOST_DRIVER_REASONS.hypervisorUnavailable,
      });
    });

    test('start, list with metadata, destroy, the end told once', async () => {
      const made = await driver();
      const one = request({ specRevision: 42n }, 3n);
      await made.startDomain(one);
      const { vmId, name } = one;
      const floats = {
        vcpuCpus: [],
        emulatorCpus: '',
        ioThreadCpus: [],
        numaNodes: [],
        realtimePriority: 0,
        hugepageBytes: 0n,
        devices: [],
      };
      expect(await made.listDomains()).toEqual([
        { vmId, name, epoch: 3n, specRevision: 42n, state: 'running', message: '', placement: floats },
      ]);
      const absent = request().vmId;
      expect(await made.haveProcess([absent, vmId])).toEqual(new Set([vmId]));
      expect(await made.haveProcess([absent])).toEqual(new Set());
      await made.destroyDomain(vmId);
      expect(await made.haveProcess([vmId])).toEqual(new Set());
      expect(await made.listDomains()).toEqual([]);
      expect(await endOf(made, vmId)).toMatchObject({ epoch: 3n, reason: 'destroyed' });
      expect(made.takeEnds()).toEqual([]);
    });

    test('a second driver finds what the first started, and sees its end', async () => {
      const first = await driver();
      const one = request({}, 7n);
      await first.startDomain(one);
      await first.close();
      const second = await driver();
      expect(await second.listDomains()).toMatchObject([{ vmId: one.vmId, name: one.name, epoch: 7n }]);
      await second.destroyDomain(one.vmId);
      expect(await endOf(second, one.vmId)).toMatchObject({ epoch: 7n, reason: 'destroyed' });
    });

    test('a second start of the same VM is refused, whatever its epoch, and does not disturb the first', async () => {
      const made = await driver();
      const one = request();
      await made.startDomain(one);
      for (const epoch of [1n, 2n] as Epoch[]) {
        await expect(made.startDomain({ ...one, epoch })).rejects.toMatchObject({
          reason: HOST_DRIVER_REASONS.domainExists,
        });
      }
      expect(await made.listDomains()).toMatchObject([{ epoch: 1n, state: 'running' }]);
      expect(made.takeEnds()).toEqual([]);
    });

    test('two starts of the same VM at once: one wins', async () => {
      const made = await driver();
      const one = request();
      const results = await Promise.allSettled([made.startDomain(one), made.startDomain(one)]);
      expect(results.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected']);
      expect(await made.listDomains()).toHaveLength(1);
    });

    test('several start side by side', async () => {
      const made = await driver();
      const all = [request(), request(), request()];
      await Promise.all(all.map((one) => made.startDomain(one)));
      const listed = await made.listDomains();
      expect(listed.map(({ name }) => name).toSorted()).toEqual(all.map(({ name }) => name).toSorted());
    });

    test('a start that fails tells why, leaves nothing and is no end', async () => {
      const made = await driver();
      const { request: bad, words } = await host.failingStart(request());
      await expect(made.startDomain(bad)).rejects.toMatchObject({
        reason: HOST_DRIVER_REASONS.domainStartFailed,
        message: expect.stringContaining(words),
      });
      expect(await made.listDomains()).toEqual([]);
      expect(made.takeEnds()).toEqual([]);
      const good = { ...bad, domain: { ...bad.domain, ...host.guest } };
      await made.startDomain(good);
      expect(await made.listDomains()).toHaveLength(1);
    });

    test('the power button: the guest powers off, and that is what is told', async () => {
      const made = await driver();
      const one = request();
      await made.startDomain(one);
      await greeting(await made.openConsole(one.vmId, never()), made, one);
      await made.shutdownDomain(one.vmId);
      expect(await endOf(made, one.vmId)).toMatchObject({ reason: 'guest-shutdown' });
      expect(await made.listDomains()).toEqual([]);
    });

    test('a QEMU that is killed from outside has crashed', async () => {
      const made = await driver();
      const one = request();
      await made.startDomain(one);
      await host.crash(one.vmId);
      expect(await endOf(made, one.vmId)).toMatchObject({ epoch: 1n, reason: 'crashed' });
      expect(await made.listDomains()).toEqual([]);
    });

    test('what is not there: destroyed and shut down it is already, links it has none', async () => {
      const made = await driver();
      const { vmId } = request();
      await made.destroyDomain(vmId);
      await made.shutdownDomain(vmId);
      await expect(made.setLinks(vmId, false)).rejects.toMatchObject({ reason: HOST_DRIVER_REASONS.domainNotFound });
    });

    test('links go down and up', async () => {
      const made = await driver();
      const one = request({ nics: [testNic(), testNic({ name: 'two', macAddress: '52:54:00:12:34:57' })] });
      await made.startDomain(one);
      expect(await host.linksUp(one.vmId)).toBe(true);
      for (const up of [false, false, true]) {
        await made.setLinks(one.vmId, up);
        expect(await host.linksUp(one.vmId)).toBe(up);
      }
    });

    test('a disk grows, is never cut, and what is not there cannot', async () => {
      const made = await driver();
      const volumeId = '0a2c0c39-41f5-4c53-9d10-0f7f1b1a00aa';
      const one = request({ disks: [...(host.guest.disks ?? []), await host.disk(volumeId)] });
      await made.startDomain(one);
      const grow = (mib: bigint, of = volumeId, vmId = one.vmId) =>
        made.growDisk(vmId, { volumeId: of, sizeBytes: mib * 1024n ** 2n });
      expect(await grow(4n)).toBe(4n * 1024n ** 2n);
      expect(await grow(4n)).toBe(4n * 1024n ** 2n);
      expect(await grow(2n)).toBe(4n * 1024n ** 2n);
      expect(await grow(8n)).toBe(8n * 1024n ** 2n);
      const missing = { reason: HOST_DRIVER_REASONS.domainNotFound };
      await expect(grow(16n, '00000000-0000-4000-8000-000000000000')).rejects.toMatchObject(missing);
      await expect(grow(16n, volumeId, request().vmId)).rejects.toMatchObject(missing);
    });

    test('hints come with starts and ends', async () => {
      const made = await driver();
      const one = request();
      let hints = 0;
      using _listening = made.onHint(() => hints++);
      await made.startDomain(one);
      await vi.waitFor(() => expect(hints).toBeGreaterThan(0), WAIT);
      const before = hints;
      await made.destroyDomain(one.vmId);
      await vi.waitFor(() => expect(hints).toBeGreaterThan(before), WAIT);
    });
  });

  describe('the serial line', () => {
    test('two readers see what one types; the end of the domain ends both', async () => {
      const made = await driver();
      const one = request();
      await made.startDomain(one);
      const links = [await made.openConsole(one.vmId, never()), await made.openConsole(one.vmId, never())];
      await vi.waitFor(async () => expect(await logOf(made, one.vmId)).toContain(greetingOf(one)), WAIT);
      const read = links.map((link) => collect(link));
      await links[0]?.write(Buffer.from('hello'));
      await vi.waitFor(() => {
        for (const { text } of read) expect(text()).toContain('hello');
      }, WAIT);
      await made.destroyDomain(one.vmId);
      await Promise.all(read.map(({ ended }) => ended));
    });

    test('a reader that leaves does not take the line with it', async () => {
      const made = await driver();
      const one = request();
      await made.startDomain(one);
      const abort = new AbortController();
      const first = collect(await made.openConsole(one.vmId, abort.signal));
      const second = await made.openConsole(one.vmId, never());
      abort.abort();
      await first.ended;
      const reading = collect(second);
      await vi.waitFor(async () => expect(await logOf(made, one.vmId)).toContain(greetingOf(one)), WAIT);
      await second.write(Buffer.from('still here'));
      await vi.waitFor(() => expect(reading.text()).toContain('still here'), WAIT);
      second.close();
      await reading.ended;
    });

    test('no domain, no console', async () => {
      const made = await driver();
      await expect(made.openConsole(request().vmId, never())).rejects.toMatchObject({
        reason: HOST_DRIVER_REASONS.domainNotFound,
      });
      const mute = request({ serialConsole: false });
      await made.startDomain(mute);
      await expect(made.openConsole(mute.vmId, never())).rejects.toMatchObject({
        reason: HOST_DRIVER_REASONS.consoleUnavailable,
      });
    });

    test('the log has a tail, can be followed, and outlives the domain', async () => {
      const made = await driver();
      const one = request();
      await made.startDomain(one);
      const abort = new AbortController();
      const log = made.readSerialLog(one.vmId, { tailBytes: 65_536, follow: true, signal: abort.signal });
      const followed = collect({ output: log });
      await vi.waitFor(() => expect(followed.text()).toContain(greetingOf(one)), WAIT);
      const link = await made.openConsole(one.vmId, never());
      await link.write(Buffer.from('12345'));
      await vi.waitFor(() => expect(followed.text()).toContain('12345'), WAIT);
      abort.abort();
      await followed.ended;
      await vi.waitFor(async () => expect(await logOf(made, one.vmId, 3)).toBe('345'), WAIT);
      await made.destroyDomain(one.vmId);
      expect(await logOf(made, one.vmId)).toContain('12345');
    });

    test('a VM that never ran here has no log', async () => {
      const made = await driver();
      await expect(logOf(made, request().vmId)).rejects.toMatchObject({ reason: HOST_DRIVER_REASONS.domainNotFound });
    });
  });

  test('the inventory has what placement needs', async () => {
    const made = await driver();
    const inventory = await made.inventory();
    expect(inventory.numaNodes.length).toBeGreaterThan(0);
    const cpus = inventory.numaNodes.flatMap((node) => node.cpus);
    expect(new Set(cpus).size).toBe(inventory.cpu?.onlineCpus);
    expect(inventory.memoryBytes).toBeGreaterThan(0n);
    expect(inventory.kvmUsable).toBe(inventory.kvmMessage === '');
    expect(inventory.versions).toMatchObject({ libvirt: expect.stringMatching(/^\d+\.\d+\.\d+$/) });
  });

  /** The boot sector's greeting, or the simulated guest's. */
  const greetingOf = (one: StartRequest) => (open.at(-1)?.kind === 'sim' ? `${one.name} login:` : GUEST_GREETING);

  async function greeting(link: ConsoleLink, made: HostDriver, one: StartRequest): Promise<void> {
    link.close();
    await vi.waitFor(async () => expect(await logOf(made, one.vmId)).toContain(greetingOf(one)), WAIT);
  }
}

async function logOf(driver: HostDriver, vmId: VmId, tailBytes = 65_536): Promise<string> {
  const { text, ended } = collect({
    output: driver.readSerialLog(vmId, { tailBytes, follow: false, signal: never() }),
  });
  await ended;
  return text();
}

function collect(link: { readonly output: AsyncIterable<Uint8Array> }): { text: () => string; ended: Promise<void> } {
  const chunks: Uint8Array[] = [];
  const ended = (async () => {
    for await (const chunk of link.output) chunks.push(chunk);
  })();
  return { text: () => Buffer.concat(chunks).toString('utf8'), ended };
}
