// SPDX-License-Identifier: Apache-2.0
// Boots the image in plain QEMU under emulation. Deadlines are many times what an idle machine needs.
import { copyFile, mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { buildGuestImage } from './build.ts';
import { formatCounterRecord, parseCounterRecord } from './counter-record.ts';
import {
  eventually,
  type GuestMachine,
  type GuestMachineOptions,
  OVMF_VARIABLES,
  startGuestMachine,
} from './machine.ts';
import { run } from './run.ts';

const BOOT_MS = 90_000;
const ANSWER_MS = 20_000;
const TEST_MS = 240_000;
const DATA_BYTES = 4 * 1024 * 1024;

let folder: string;
let machines: GuestMachine[];

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'busbar-guest-test-'));
  machines = [];
  const image = await buildGuestImage();
  await copyFile(image.path, join(folder, 'own.raw'));
  await writeFile(join(folder, 'data.raw'), Buffer.alloc(DATA_BYTES));
}, TEST_MS);

afterEach(async () => {
  for (const machine of machines) await machine.kill();
  await rm(folder, { recursive: true, force: true });
});

async function start(options: Omit<GuestMachineOptions, 'folder'>): Promise<GuestMachine> {
  const machine = await startGuestMachine({ folder, ...options });
  machines.push(machine);
  return machine;
}

function virtioDisk(name: string): string[] {
  return ['-drive', `file=${join(folder, name)},format=raw,if=virtio`];
}

async function readData(): Promise<Buffer> {
  const file = await open(join(folder, 'data.raw'));
  try {
    const { buffer } = await file.read(Buffer.alloc(512), 0, 512, 0);
    return buffer;
  } finally {
    await file.close();
  }
}

async function counterAbove(machine: GuestMachine, least: number): Promise<{ name: string; counter: number }> {
  return eventually(
    `a counter above ${least}`,
    ANSWER_MS,
    () => machine.serial(),
    async () => {
      const answer = await machine.counter();
      if (typeof answer !== 'object' || answer === null || !('counter' in answer) || !('name' in answer))
        return undefined;
      const { name, counter } = answer;
      return typeof name === 'string' && typeof counter === 'number' && counter > least ? { name, counter } : undefined;
    },
  );
}

async function seed(kind: 'iso9660' | 'vfat', files: Record<string, string>): Promise<string> {
  const paths: string[] = [];
  for (const [name, content] of Object.entries(files)) {
    paths.push(join(folder, name));
    await writeFile(join(folder, name), content);
  }
  const image = join(folder, 'seed.img');
  if (kind === 'iso9660') {
    await run('xorriso', ['-as', 'mkisofs', '-quiet', '-V', 'cidata', '-J', '-r', '-o', image, ...paths]);
  } else {
    await run('mkfs.vfat', ['-C', '-n', 'CIDATA', image, '512']);
    await run('mcopy', ['-i', image, ...paths, '::/']);
  }
  return image;
}

describe('the guest', () => {
  test(
    'boots by BIOS, takes its name and address from cloud-init, counts on through kill -9, and answers',
    async () => {
      const image = await seed('iso9660', {
        'meta-data': 'instance-id: i-7\nlocal-hostname: relay7\n',
        'user-data': "#cloud-config\nruncmd:\n  - echo one\n  - [echo, 'two  words']\n",
        'network-config': [
          'version: 2',
          'ethernets:',
          '  nic0:',
          '    match: {macaddress: "52:54:00:12:34:56"}',
          '    addresses: [10.0.2.77/24]',
          '    gateway4: 10.0.2.2',
          '',
        ].join('\n'),
      });
      const disks = [
        ...[...virtioDisk('own.raw'), ...virtioDisk('data.raw')],
        ...['-drive', `file=${image},format=raw,if=ide,media=cdrom,readonly=on`],
      ];
      const first = await start({ machine: 'pc', disks, address: '10.0.2.77' });
      await first.waitForSerial(/^busbar-guest: ready\r$/m, BOOT_MS);
      for (const line of ['booting', 'name=relay7', 'instance-id=i-7', 'address=10.0.2.77', 'counter=0 on /dev/vdb']) {
        expect(first.serial()).toContain(`busbar-guest: ${line}\r\n`);
      }
      expect(first.serial()).toContain('one\r\ntwo  words\r\n');

      await first.waitForSerial(/relay7# /, ANSWER_MS);
      first.type('echo $((6 * 7))-typed\n');
      await first.waitForSerial(/^42-typed/m, ANSWER_MS);

      expect(await first.agent('guest-ping', ANSWER_MS)).toEqual({});
      const before = await eventually(
        'a record',
        ANSWER_MS,
        () => first.serial(),
        async () => {
          const counter = parseCounterRecord(await readData());
          return counter !== undefined && counter > 5 ? counter : undefined;
        },
      );
      const { counter: served } = await counterAbove(first, before);
      await first.kill();

      const second = await start({ machine: 'pc', disks, address: '10.0.2.77' });
      await second.waitForSerial(/^busbar-guest: ready\r$/m, BOOT_MS);
      const resumed = Number(/counter=(\d+) on/.exec(second.serial())?.[1]);
      expect(resumed).toBeGreaterThanOrEqual(served);
      expect((await counterAbove(second, resumed)).name).toBe('relay7');

      await second.waitForSerial(/relay7# /, ANSWER_MS);
      await second.agent('guest-ping', ANSWER_MS);
      await second.powerButton();
      expect(await second.waitForExit(ANSWER_MS)).toBe(0);
      const stoppedAt = Number(/counter stopped at (\d+)/.exec(second.serial())?.[1]);
      expect(parseCounterRecord(await readData())).toBe(stoppedAt);
    },
    TEST_MS,
  );

  test(
    'boots by UEFI, asks DHCP, and serves over HTTP what is on its disk',
    async () => {
      const uefiVariables = join(folder, 'variables.fd');
      await copyFile(OVMF_VARIABLES, uefiVariables);
      const machine = await start({
        machine: 'q35',
        disks: [...virtioDisk('own.raw'), ...virtioDisk('data.raw')],
        uefiVariables,
      });
      await machine.waitForSerial(/^busbar-guest: ready\r$/m, BOOT_MS);
      expect(machine.serial()).toContain('busbar-guest: address=10.0.2.15\r\n');
      const { name, counter } = await counterAbove(machine, 0);
      expect(name).toBe('busbar-guest');
      await counterAbove(machine, counter);
      await machine.kill();
      expect(parseCounterRecord(await readData())).toBeGreaterThanOrEqual(counter);
    },
    TEST_MS,
  );

  test(
    'runs from SATA with a vfat seed and the general kernel, and goes on from the record it finds',
    async () => {
      await writeFile(join(folder, 'data.raw'), Buffer.from(formatCounterRecord(4711).padEnd(DATA_BYTES, '\0')));
      const image = await seed('vfat', { 'meta-data': 'instance-id: i-9\nlocal-hostname: historian\n' });
      const sata = ['own.raw', 'data.raw'].flatMap((name) => [
        '-drive',
        `file=${join(folder, name)},format=raw,if=ide`,
      ]);
      const disks = [...sata, '-drive', `file=${image},format=raw,if=virtio,readonly=on`];
      const machine = await start({ machine: 'q35', disks });
      await machine.waitForSerial(/^busbar-guest: ready\r$/m, BOOT_MS);
      expect(machine.serial()).toContain('busbar-guest: name=historian\r\n');
      // Linux names SCSI and SATA disks in the order in which their probes end, not in that of the ports.
      expect(machine.serial()).toMatch(/busbar-guest: counter=4711 on \/dev\/sd[ab]\r\n/);
      expect((await counterAbove(machine, 4711)).name).toBe('historian');
    },
    TEST_MS,
  );

  test(
    'refuses a data disk that holds something else',
    async () => {
      const foreign = Buffer.alloc(DATA_BYTES);
      foreign.write('something else', 70_000);
      await writeFile(join(folder, 'data.raw'), foreign);
      const scsi = ['own.raw', 'data.raw'].flatMap((name, index) => [
        ...['-drive', `file=${join(folder, name)},format=raw,if=none,id=disk${index}`],
        ...['-device', `scsi-hd,drive=disk${index}`],
      ]);
      const machine = await start({ machine: 'q35', disks: ['-device', 'virtio-scsi-pci', ...scsi] });
      await machine.waitForSerial(/^busbar-guest: ready\r$/m, BOOT_MS);
      expect(machine.serial()).toMatch(/busbar-guest: counter=refused \(\/dev\/sd[ab] is neither/);
      await machine.kill();
      expect(await readData()).toEqual(Buffer.alloc(512));
    },
    TEST_MS,
  );
});
