// SPDX-License-Identifier: Apache-2.0
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { formatCounterRecord, parseCounterRecord } from './counter-record.ts';
import { cpioArchive } from './cpio.ts';
import { diskImage } from './disk.ts';
import { run } from './run.ts';

const SCRIPTS = join(import.meta.dirname, 'rootfs/lib/busbar');

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'busbar-guest-unit-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** Sends text through the guest's awk programs, with the guest's awk. */
async function awk(text: string, ...programs: string[]): Promise<string> {
  let input = text;
  for (const program of programs) {
    await writeFile(join(folder, 'input'), input);
    input = await run('busybox', ['awk', '-f', join(SCRIPTS, program), join(folder, 'input')]);
  }
  return input;
}

describe('cloud-init data', () => {
  test('YAML is flattened: nesting, lists, flow, quotes, comments, block scalars', async () => {
    const yaml = [
      '#cloud-config',
      'hostname: "a b" # why',
      'list:',
      "- it's",
      '- {x: 1, "y": [2, 3]}',
      '- k: v',
      '  l: w',
      'text: |',
      '  one: 1',
      '  two',
      'long: [a,',
      '  b]',
    ].join('\n');
    expect((await awk(yaml, 'yaml.awk')).trim().split('\n')).toEqual([
      'hostname=a b',
      "list/0=it's",
      'list/1/x=1',
      'list/1/y/0=2',
      'list/1/y/1=3',
      'list/2/k=v',
      'list/2/l=w',
      'text=one: 1 two',
      'long/0=a',
      'long/1=b',
    ]);
  });

  test('JSON is YAML', async () => {
    const json = JSON.stringify({
      version: 2,
      ethernets: { n: { match: { macaddress: '52:54:00:AA:00:01' }, dhcp4: true } },
    });
    expect(await awk(json, 'yaml.awk', 'network.awk')).toBe(
      'id=n mac=52:54:00:aa:00:01 dhcp=1 addresses=- gateway=- mtu=- dns=-\n',
    );
  });

  test('network-config version 2, with the top key network', async () => {
    const yaml = [
      'network:',
      '  version: 2',
      '  ethernets:',
      '    lan:',
      '      match:',
      "        macaddress: '52:54:00:00:00:01'",
      '      addresses:',
      '      - 192.0.2.10/24',
      '      - 192.0.2.11/24',
      '      routes:',
      '        - to: default',
      '          via: 192.0.2.1',
      '      nameservers:',
      '        addresses: [192.0.2.2, 192.0.2.3]',
      '      mtu: 1400',
      '    process:',
      '      dhcp4: yes',
    ].join('\n');
    expect(await awk(yaml, 'yaml.awk', 'network.awk')).toBe(
      'id=lan mac=52:54:00:00:00:01 dhcp=0 addresses=192.0.2.10/24,192.0.2.11/24 gateway=192.0.2.1 mtu=1400 dns=192.0.2.2,192.0.2.3\n' +
        'id=process mac=- dhcp=1 addresses=- gateway=- mtu=- dns=-\n',
    );
  });

  test('network-config version 1', async () => {
    const yaml = [
      'version: 1',
      'config:',
      '  - type: physical',
      '    name: eth0',
      '    mac_address: 52:54:00:00:00:01',
      '    subnets:',
      '      - type: static',
      '        address: 192.0.2.10',
      '        netmask: 255.255.255.0',
      '        gateway: 192.0.2.1',
      '  - type: nameserver',
      '    address: 192.0.2.2',
    ].join('\n');
    expect(await awk(yaml, 'yaml.awk', 'network.awk')).toBe(
      'id=eth0 mac=52:54:00:00:00:01 dhcp=0 addresses=192.0.2.10/24 gateway=192.0.2.1 mtu=- dns=192.0.2.2\n',
    );
  });

  test('characters that mean something to the shell do not get through', async () => {
    const out = await awk('ethernets:\n  "$(x)":\n    gateway4: "1.2.3.4;`y`"\n', 'yaml.awk', 'network.awk');
    expect(out).not.toMatch(/[$();`]/);
  });

  test('runcmd: command lines and lists of words', async () => {
    const out = await awk('runcmd:\n  - echo a\n  - [echo, "b  c", it\'s]\n', 'yaml.awk', 'runcmd.awk');
    expect(out).toBe("echo a\n'echo' 'b  c' 'it'\\''s'\n");
  });
});

describe('the record', () => {
  test('is the same in shell and TypeScript', async () => {
    for (const counter of [0, 1, 8, 4711, 2 ** 40 + 9]) {
      const shell = `. ${join(SCRIPTS, 'common.sh')}; record_of ${counter}; counter_of "$(record_of ${counter})"`;
      expect(await run('busybox', ['sh', '-c', shell])).toBe(`${formatCounterRecord(counter)}${counter}\n`);
      expect(parseCounterRecord(Buffer.from(formatCounterRecord(counter)))).toBe(counter);
    }
  });

  test('with a wrong digit is none', async () => {
    const wrong = formatCounterRecord(12).replace('12 ', '13 ');
    expect(parseCounterRecord(Buffer.from(wrong))).toBeUndefined();
    expect(parseCounterRecord(Buffer.alloc(512))).toBeUndefined();
    const shell = `. ${join(SCRIPTS, 'common.sh')}; counter_of '${wrong.trim()}' || echo refused`;
    expect(await run('busybox', ['sh', '-c', shell])).toBe('refused\n');
  });
});

test('the archive is one that cpio reads', async () => {
  const archive = cpioArchive([
    { kind: 'file', path: 'a/b', mode: 0o755, data: Buffer.from('hello') },
    { kind: 'link', path: 'a/l', target: 'b' },
  ]);
  await writeFile(join(folder, 'archive'), archive);
  expect(await run('busybox', ['cpio', '-t', '-F', join(folder, 'archive')])).toBe('a\na/b\na/l\n');
});

test('both partition table headers carry a right checksum', () => {
  const disk = diskImage({
    bootSector: Buffer.alloc(512),
    core: Buffer.alloc(1024),
    system: Buffer.alloc(1024 * 1024),
  });
  for (const at of [512, disk.length - 512]) {
    const header = Buffer.from(disk.subarray(at, at + 92));
    const checksum = header.readUInt32LE(16);
    header.writeUInt32LE(0, 16);
    expect(header.toString('latin1', 0, 8)).toBe('EFI PART');
    expect(crc32(header)).toBe(checksum);
  }
});
