// SPDX-License-Identifier: Apache-2.0
/** The real program: under a pseudo-terminal (script(1), part of every Debian), and with a reader that goes away. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Collector, startLab, type TestLab } from './testing/cli.ts';

vi.setConfig({ testTimeout: 60_000 });

const PROGRAM = fileURLToPath(new URL('../bin/busbar.mjs', import.meta.url));
let lab: TestLab;
beforeEach(async () => {
  lab = await startLab(2);
  await lab.cli('vm', 'create', 'web', '--vcpus', '1', '--memory', '64MiB');
});
afterEach(() => lab.end());

function shell(command: string, pty: boolean) {
  const [program, args] = pty ? ['script', ['-qec', command, '/dev/null']] : ['sh', ['-c', command]];
  const env = { ...process.env, BUSBAR_CONFIG: `${lab.directory}/config.yaml`, XDG_CACHE_HOME: lab.directory };
  const child: ChildProcess = spawn(program, args, { env, stdio: ['pipe', 'pipe', 'inherit'] });
  const output = new Collector();
  child.stdout?.pipe(output);
  const ended = new Promise<number | null>((done) => child.once('close', done));
  return { child, output, ended };
}

const busbar = (args: string) => `'${process.execPath}' '${PROGRAM}' ${args}`;

test('a console on a pseudo-terminal: keys arrive raw, Ctrl-] ends it, the terminal is as before', async () => {
  const { child, output, ended } = shell(`${busbar('vm console web')}; echo "code $?"; stty -a`, true);
  await output.match(/host1 login: /);
  child.stdin?.write('a\u0003b');
  // The terminal would have turned Ctrl-C into a signal.
  await output.match(/a.*b>/s);
  expect(output.text).toContain('\u0003');
  child.stdin?.write('\u001d');
  await output.match(/code 0/);
  await output.match(/ icanon/);
  await output.match(/ echo /);
  child.stdin?.end();
  await ended;
});

test('terminated, the terminal is as before', async () => {
  const command = `sh -c 'echo pid=$$; exec ${busbar('vm console web').replaceAll("'", '"')}'; echo "code $?"; stty -a`;
  const { child, output, ended } = shell(command, true);
  await output.match(/host1 login: /);
  process.kill(Number(/pid=(\d+)/.exec(output.text)?.[1]), 'SIGTERM');
  await output.match(/code 130/);
  await output.match(/ icanon/);
  child.stdin?.end();
  await ended;
});

test('exit codes and streams of the process', async () => {
  const { output, ended } = shell(`${busbar('vm get nope')} 2>&1; echo "code $?"`, false);
  await ended;
  expect(output.text).toContain('why: there is no vm "nope" (VM_NOT_FOUND)');
  expect(output.text).toContain('code 3');
});

test('a reader that goes away is no error', async () => {
  const { output, ended } = shell(`exec 3>&1; { ${busbar('vm list')}; echo "code $?" >&3; } | true`, false);
  await ended;
  expect(output.text).toBe('code 0\n');
});
