// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { VirtualClock } from '@busbar/core/clock/virtual';
import type { Epoch, VmId } from '@busbar/core/ids';
import { describe, expect, test } from 'vitest';
import { Ends } from './ends.ts';
import { relevantLines } from './qemu-log.ts';
import { QemuProcesses } from './qemu-process.ts';
import { EVENT, STOPPED, stateOf } from './words.ts';

const uuid = '6695eb01-f6a4-4304-89aa-000000000001' as VmId;
const epoch = 4n as Epoch;

describe('ends', () => {
  function seen(...events: readonly (readonly [event: number, detail: number])[]) {
    const ends = new Ends();
    ends.listed([{ vmId: uuid, epoch }], true);
    for (const [event, detail] of events) ends.onEvent({ type: 'lifecycle', uuid, event, detail });
    return ends.take().map(({ reason, message }) => `${reason}: ${message}`);
  }

  test.each([
    [
      [
        [EVENT.shutdown, 1],
        [EVENT.stopped, STOPPED.shutdown],
      ],
      'guest-shutdown: the guest powered off',
    ],
    [
      [
        [EVENT.shutdown, 2],
        [EVENT.stopped, STOPPED.shutdown],
      ],
      'crashed: QEMU was terminated by a signal',
    ],
    [[[EVENT.stopped, STOPPED.failed]], 'crashed: QEMU died'],
    [[[EVENT.stopped, STOPPED.destroyed]], 'destroyed: its power was taken'],
    [
      [
        [EVENT.crashed, 0],
        [EVENT.stopped, STOPPED.crashed],
      ],
      "crashed: the guest's kernel panicked",
    ],
  ] as const)('%j', (events, expected) => {
    expect(seen(...events)).toEqual([expected]);
    expect(seen(...events, [EVENT.stopped, STOPPED.failed])).toEqual([expected]);
  });

  test('of an unknown domain: not told', () => {
    const ends = new Ends();
    ends.onEvent({ type: 'lifecycle', uuid, event: EVENT.stopped, detail: 0 });
    expect(ends.take()).toEqual([]);
  });

  test('during a start: told by the start alone, or after it when that had succeeded', () => {
    const ends = new Ends();
    const stopped = { type: 'lifecycle', uuid, event: EVENT.stopped, detail: STOPPED.failed } as const;
    ends.starting(uuid, epoch);
    ends.onEvent(stopped);
    ends.startFailed(uuid);
    expect(ends.take()).toEqual([]);
    ends.starting(uuid, epoch);
    ends.onEvent(stopped);
    ends.started(uuid);
    expect(ends.take()).toMatchObject([{ vmId: uuid, epoch, reason: 'crashed' }]);
  });

  test('missed: forgotten by the next list', () => {
    const ends = new Ends();
    ends.listed([{ vmId: uuid, epoch }], true);
    ends.listed([], false);
    ends.onEvent({ type: 'io-error', uuid, path: 'pool/image', reason: 'enospc' });
    expect(ends.ioError(uuid)).toBe('I/O error on disk pool/image (no space left)');
    ends.listed([], true);
    ends.onEvent({ type: 'lifecycle', uuid, event: EVENT.stopped, detail: 0 });
    expect(ends.take()).toEqual([]);
  });
});

test('states in words', () => {
  expect(stateOf(1, 1)).toEqual({ state: 'running', message: '' });
  expect(stateOf(3, 5)).toEqual({ state: 'paused', message: 'I/O error on a disk' });
  expect(stateOf(3, 11)).toEqual({ state: 'paused', message: 'starting up' });
  expect(stateOf(3, 99)).toEqual({ state: 'paused', message: 'paused' });
  expect(stateOf(4, 0)).toEqual({ state: 'shutting-down', message: '' });
});

test('what QEMU said in its last run', () => {
  const log = [
    '2026-01-01 10:00:00.000+0000: starting up libvirt version: 9.0.0, qemu version: 7.2.22',
    '/usr/bin/qemu-system-x86_64 \\',
    'qemu-system-x86_64: an old story',
    '2026-01-01 11:00:00.000+0000: starting up libvirt version: 9.0.0, qemu version: 7.2.22',
    'LC_ALL=C \\',
    '/usr/bin/qemu-system-x86_64 \\',
    '-name guest=error,debug-threads=on \\',
    "2026-01-01T11:00:00.5Z qemu-system-x86_64: -blockdev x: Could not open '/x': Permission denied",
    '2026-01-01 11:00:00.600+0000: shutting down, reason=failed',
  ].join('\n');
  const line = "qemu-system-x86_64: -blockdev x: Could not open '/x': Permission denied";
  expect(relevantLines(log, '')).toEqual([line]);
  expect(relevantLines(log, `monitor closed: ${line}`)).toEqual([]);
  expect(relevantLines('', '')).toEqual([]);
});

describe('QEMU processes', () => {
  const other = '6695eb01-f6a4-4304-89aa-000000000002' as VmId;
  const absent = '6695eb01-f6a4-4304-89aa-000000000003' as VmId;
  const qemu = (id: string) => ['/usr/bin/qemu-system-x86_64', '-name', 'guest=a', '-uuid', id, ''].join('\0');

  function procRoot(): string {
    const root = mkdtempSync(join(tmpdir(), 'busbar-proc-'));
    const process_ = (pid: string, argv: string, state = 'S', namespace = 'net:[1]') => {
      mkdirSync(join(root, pid, 'ns'), { recursive: true });
      symlinkSync(namespace, join(root, pid, 'ns/net'));
      writeFileSync(join(root, pid, 'cmdline'), argv);
      writeFileSync(join(root, pid, 'comm'), `${basename(argv.split('\0')[0] ?? '').slice(0, 15)}\n`);
      writeFileSync(join(root, pid, 'stat'), `${pid} (qemu (x) y) ${state} ${'0 '.repeat(18)}4711 0`);
    };
    process_('self', '');
    process_('10', qemu(uuid.toUpperCase()));
    process_('11', qemu(other), 'S', 'net:[2]'); // of another simulated host
    process_('12', qemu(other), 'Z');
    process_('13', ['vi', '-uuid', other, ''].join('\0'));
    process_('16', ['qemu-img', '-uuidx', other, ''].join('\0'));
    mkdirSync(join(root, '14')); // it has just ended
    return root;
  }

  test('are found by their UUID: alive, and of this host', async () => {
    const root = procRoot();
    const processes = new QemuProcesses(new VirtualClock(), { procRoot: root });
    expect(await processes.which([uuid, other, absent])).toEqual(new Set([uuid]));
    expect(await processes.find(uuid)).toEqual([{ pid: 10, startTime: '4711' }]);
    expect(await processes.find(other)).toEqual([]);
    rmSync(root, { recursive: true });
  });

  test('one that cannot be looked at is not taken for gone', async () => {
    const root = procRoot();
    const which = () => new QemuProcesses(new VirtualClock(), { procRoot: root }).which([absent]);
    mkdirSync(join(root, '15/cmdline'), { recursive: true });
    writeFileSync(join(root, '15/comm'), 'qemu-system-x86\n');
    await expect(which()).rejects.toThrow('EISDIR');
    rmSync(join(root, '15'), { recursive: true });
    mkdirSync(join(root, '15/comm'), { recursive: true });
    await expect(which()).rejects.toThrow('EISDIR');
    rmSync(root, { recursive: true });
  });
});
