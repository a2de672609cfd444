// SPDX-License-Identifier: Apache-2.0
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { startLab, type TestLab } from '../testing/cli.ts';
import { changes } from '../testing/fake-cluster.ts';
import { InputQueue } from './input-queue.ts';

// Whole commands on a machine that may be busy with other tests: a limit for hanging, not a measure.
vi.setConfig({ testTimeout: 60_000 });

let lab: TestLab;
const raw: boolean[] = [];
beforeEach(async () => {
  raw.length = 0;
  lab = await startLab(2);
  await lab.cli('vm', 'create', 'web', '--vcpus', '1', '--memory', '64MiB');
});
afterEach(() => lab.end());

const terminal = ({ stdin }: { stdin: object }) =>
  void Object.assign(stdin, { isTTY: true, setRawMode: (on: boolean) => raw.push(on) });

test('a terminal: raw while it lasts, Ctrl-] ends it', async () => {
  const command = lab.start(['vm', 'console', 'web'], terminal);
  await command.stdout.match(/host1 login: /);
  expect(command.stderr.text).toMatch(/^\[busbar\] console of VM web through 127\.0\.0\.1:\d+; Ctrl-\] ends it\r\n$/);
  command.stdin.write('ls\r');
  await command.stdout.match(/<ls\r>/);
  command.stdin.write('x\u001d');
  expect((await command.ended).code).toBe(0);
  expect(raw).toEqual([true, false]);
});

test('a pipe: sends everything, ends after the last answer, takes Ctrl-] as a byte', async () => {
  const command = lab.start(['vm', 'console', 'web']);
  command.stdin.end('uptime\u001d\n');
  const { code, stdout } = await command.ended;
  expect({ code, stdout }).toEqual({ code: 0, stdout: 'host1 login: <uptime\u001d\n>' });
});

test('the controller dies: reconnected with a message, what is typed meanwhile is not lost', async () => {
  const command = lab.start(['vm', 'console', 'web'], terminal);
  await command.stdout.match(/host1 login: /);
  lab.controllers[0]?.kill();
  command.stdin.write('typed');
  await command.stdout.match(/host2 login: /);
  expect(command.stderr.text).toContain('[busbar] connection to the controller lost, reconnecting …\r\n');
  command.stdin.write(' more');
  await command.stdout.match(/more>/);
  command.stdin.write('\u001d');
  expect((await command.ended).code).toBe(0);
  expect(raw).toEqual([true, false]);
});

test('refused: the terminal is restored', async () => {
  const { code, stderr } = await lab.start(['vm', 'console', 'nope'], terminal).ended;
  expect({ code, raw }).toEqual({ code: 3, raw: [true, false] });
  expect(stderr).toContain('error: cannot open the console of VM nope');
});

test('interrupted from outside: the terminal is restored', async () => {
  const command = lab.start(['vm', 'console', 'web'], terminal);
  await command.stdout.match(/login: /);
  command.interrupt();
  expect((await command.ended).code).toBe(130);
  expect(raw).toEqual([true, false]);
});

test('log: whole, tail, and followed past a death without a byte twice', async () => {
  expect((await lab.cli('vm', 'log', 'web')).stdout).toBe('line 1\nline 2\nline 3\n');
  expect((await lab.cli('vm', 'log', 'web', '--tail', '7')).stdout).toBe('line 3\n');
  const command = lab.start(['vm', 'log', 'web', '-f']);
  await command.stdout.match(/line 3\n/);
  lab.controllers[0]?.kill();
  await command.stderr.match(/going on through the next/);
  const again = setInterval(() => changes.emit('log', lab.cluster, '.'), 50);
  await command.stdout.match(/\./);
  clearInterval(again);
  command.interrupt();
  const { code, stdout } = await command.ended;
  expect(code).toBe(130);
  expect(stdout).toMatch(/^line 1\nline 2\nline 3\n\.+$/);
});

test('the queue gives back nothing of a take that was called off', async () => {
  const queue = new InputQueue();
  const first = new AbortController();
  const taken = queue.take(10, first.signal);
  first.abort();
  expect(await taken).toBeUndefined();
  queue.push(Buffer.from('abcdef'));
  const second = new AbortController().signal;
  expect((await queue.take(4, second))?.toString()).toBe('abcd');
  expect((await queue.take(4, second))?.toString()).toBe('ef');
  expect(queue.bytes).toBe(0);
});
