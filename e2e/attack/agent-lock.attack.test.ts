// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import { hostArgv } from '@busbar/deploy/lab/lab';
import { afterEach, expect, it } from 'vitest';
import { eventually, inside, LAB, untilReady, VOTELESS } from './lab.ts';

/**
 * Goal: no user of a host keeps its agent from starting: without an agent the host has no lease.
 * Method: nobody and root take what earlier agents claimed, and what this one locks, as far as the kernel lets them; while
 * the agent is down.
 */
const LOCK = '/var/lib/busbar/agent/agent.lock';
const NOBODY = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];
const CLAIM = `
import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.bind('\\0' + sys.argv[1])
s.listen(1)
print('claimed', flush=True)
time.sleep(120)
`;
const held: { kill(): void }[] = [];
afterEach(async () => {
  for (const each of held.splice(0)) each.kill();
  await inside(VOTELESS, 'sv', 'up', 'agent');
  await untilReady();
});

/** A program that runs in the host until it is killed; resolves when it has said something. */
async function keepRunning(...argv: string[]): Promise<string> {
  const [program = '', ...rest] = await hostArgv(LAB, VOTELESS, argv);
  const child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'pipe'] });
  held.push({ kill: () => child.kill('SIGKILL') });
  return await new Promise((resolve) => {
    child.stdout.once('data', (chunk: Buffer) => resolve(chunk.toString()));
    child.stderr.once('data', (chunk: Buffer) => resolve(chunk.toString()));
    child.once('close', (code) => resolve(`ended with ${code}`));
  });
}

const agentPid = async () => (await inside(VOTELESS, 'sv', 'status', 'agent')).stdout.match(/pid (\d+)/)?.[1] ?? '';
/** How often its log says so. */
const starts = async () =>
  Number((await inside(VOTELESS, 'grep', '-c', 'agent started', '/var/log/busbar/agent/current')).stdout);

it('whatever nobody claims, the agent starts, and starts once', async () => {
  const before = await starts();
  await inside(VOTELESS, 'sv', 'down', 'agent');
  const name = `busbar-agent/${LAB}/${VOTELESS}`;
  expect(await keepRunning(...NOBODY, '/usr/bin/python3', '-c', CLAIM, name)).toContain('claimed');
  const locked = await inside(VOTELESS, ...NOBODY, 'flock', '--nonblock', LOCK, 'echo', 'locked');
  expect([locked.stdout, locked.stderr]).toEqual(['', expect.stringContaining('Permission denied')]);
  const made = await inside(VOTELESS, ...NOBODY, 'touch', '/var/lib/busbar/agent/x');
  expect(made.stderr).toContain('Permission denied');

  await inside(VOTELESS, 'sv', 'up', 'agent');
  await eventually('the agent runs again', 30_000, async () => ((await starts()) > before ? true : null));
  const pid = await agentPid();

  const main = (await inside(VOTELESS, 'cat', '/run/service/agent/run')).stdout.match(/\S+main\.ts/)?.[0] ?? '';
  const second = await inside(VOTELESS, process.execPath, main, '--config', '/etc/busbar/agent.yaml');
  expect([second.code, second.stderr]).toEqual([1, expect.stringContaining(`it holds ${LOCK}`)]);
  expect(await agentPid()).toBe(pid);
});
