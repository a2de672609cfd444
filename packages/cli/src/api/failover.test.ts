// SPDX-License-Identifier: Apache-2.0
/** Controllers that are dead, die in the middle, or accept connections and say nothing. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { Status } from 'nice-grpc';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { startLab, type TestLab } from '../testing/cli.ts';
import { changes } from '../testing/fake-cluster.ts';
import { put } from '../testing/fake-vms.ts';

// Whole commands on a machine that may be busy with other tests: a limit for hanging, not a measure.
vi.setConfig({ testTimeout: 60_000 });

let lab: TestLab;
beforeEach(async () => {
  lab = await startLab(3);
  lab.cluster.addHost('host1', 0);
});
afterEach(() => lab.end());

const CREATE = ['vm', 'create', 'web', '--vcpus', '1', '--memory', '64MiB'];

function remembered(): string | undefined {
  const directory = join(lab.directory, 'cache', 'busbar', 'last-endpoint');
  if (!existsSync(directory)) return undefined;
  return readFileSync(join(directory, readdirSync(directory)[0] ?? ''), 'utf8').trim();
}

test('a dead first controller: the second is asked, and remembered', async () => {
  lab.controllers[0]?.kill();
  expect((await lab.cli('cluster', 'get')).stdout).toContain('host2');
  expect(remembered()).toBe(lab.controllers[1]?.address);
  await lab.controllers[0]?.start();
  expect((await lab.cli('cluster', 'get')).stdout).toContain('host2');
});

test('all dead: exit code 5 and every address', async () => {
  for (const controller of lab.controllers) controller.kill();
  const { code, stderr } = await lab.cli('vm', 'list');
  const addresses = lab.controllers.map(({ address }) => address).join(', ');
  expect(code).toBe(5);
  expect(stderr).toBe(`error: cannot list vms
why: no controller answers at ${addresses} (connection refused)
do: check that busbar-controller runs there and that this machine reaches it; \`busbar context list\` shows the endpoints
`);
});

test('one that accepts connections and says nothing costs its connect deadline only', async () => {
  const silent = await new Promise<Server>((done) => {
    const server = createServer(() => {}).listen(0, '127.0.0.1', () => done(server));
  });
  const address = silent.address();
  const port = address !== null && typeof address === 'object' ? address.port : 0;
  const begun = performance.now();
  const endpoint = `127.0.0.1:${port},${lab.controllers[1]?.address}`;
  const { code, stdout } = await lab.cli('cluster', 'get', '--endpoint', endpoint);
  expect({ code, second: stdout.includes('host2') }).toEqual({ code: 0, second: true });
  expect(performance.now() - begun).toBeLessThan(4000);
  silent.close();
});

test('the controller dies while the command waits for an operation: the command goes on', async () => {
  lab.cluster.hold = true;
  const command = lab.start(CREATE);
  while (!lab.cluster.calls.includes('WaitOperation')) await new Promise((done) => setTimeout(done, 10));
  lab.controllers[0]?.kill();
  lab.cluster.hold = false;
  expect(await command.ended).toMatchObject({ code: 0, stdout: 'vm/web created\n' });
});

test('all controllers die while it waits, one comes back', async () => {
  lab.cluster.hold = true;
  const command = lab.start(CREATE);
  while (!lab.cluster.calls.includes('WaitOperation')) await new Promise((done) => setTimeout(done, 10));
  for (const controller of lab.controllers) controller.kill();
  await command.stderr.match(/still trying, the operation goes on/);
  lab.cluster.hold = false;
  await lab.controllers[2]?.start();
  expect(await command.ended).toMatchObject({ code: 0, stdout: 'vm/web created\n' });
});

test('an explained UNAVAILABLE of one controller is asked of the next, and shown when all say so', async () => {
  const [first, second, third] = lab.controllers;
  if (first === undefined || second === undefined || third === undefined) throw new Error('three controllers');
  const info = { reason: 'STORE_NO_QUORUM', message: 'etcd has no quorum', hint: 'revive hosts' };
  first.refuses = { status: Status.UNAVAILABLE, info };
  expect((await lab.cli('vm', 'list')).code).toBe(0);
  second.refuses = first.refuses;
  third.refuses = first.refuses;
  const begun = performance.now();
  expect(await lab.cli('vm', 'list')).toEqual({
    code: 5,
    stdout: '',
    stderr: 'error: cannot list vms\nwhy: etcd has no quorum (STORE_NO_QUORUM)\ndo: revive hosts\n',
  });
  expect(performance.now() - begun).toBeLessThan(5000);
});

test('a change that nobody knows the end of is answered with the id that makes a repeat safe', async () => {
  const info = { reason: 'STORE_OUTCOME_UNKNOWN', message: 'not confirmed', hint: 'Read the record again.' };
  for (const controller of lab.controllers) controller.refuses = { status: Status.DEADLINE_EXCEEDED, info };
  expect(await lab.cli('volume', 'create', 'data', '--size', '1MiB')).toMatchObject({
    code: 5,
    stderr: expect.stringMatching(
      /^error: .*\nwhy: not confirmed \(STORE_OUTCOME_UNKNOWN\)\ndo: repeat it with --request-id [0-9a-f-]{36}: what is done already is not done again\n$/,
    ),
  });
  // Nothing was sent that an id could be of.
  expect((await lab.cli('vm', 'list')).stderr).toContain('do: Read the record again.');
});

test('Ctrl-C while waiting detaches and says how to come back', async () => {
  lab.cluster.hold = true;
  const command = lab.start(CREATE);
  while (!lab.cluster.calls.includes('WaitOperation')) await new Promise((done) => setTimeout(done, 10));
  command.interrupt();
  const { code, stderr } = await command.ended;
  expect(code).toBe(130);
  expect(stderr).toMatch(
    /error: no longer waiting: the operation goes on\nwhy: Ctrl-C was pressed\ndo: busbar operation log -f (op-id-\d+) shows it, busbar operation cancel \1 stops it\n$/,
  );
});

test('--timeout ends the waiting with 5', async () => {
  lab.cluster.hold = true;
  const { code, stderr } = await lab.cli(...CREATE, '--timeout', '500ms');
  expect(code).toBe(5);
  expect(stderr).toMatch(
    /error: cannot create VM web in time\nwhy: the time \(500ms\) is over; the operation goes on\ndo: busbar operation log -f op-id/,
  );
});

test('a watch goes on at the next controller, as one JSON object per line', async () => {
  await lab.cli(...CREATE);
  const command = lab.start(['vm', 'list', '--watch', '-o', 'json']);
  await command.stdout.match(/\n/);
  lab.controllers[0]?.kill();
  await command.stderr.match(/trying the next controller/);
  while (changes.listenerCount('change') === 0) await new Promise((done) => setTimeout(done, 10));
  const vm = lab.cluster.vms.get('web');
  if (vm?.status !== undefined) vm.status.message = 'after the death';
  const again = setInterval(() => vm !== undefined && put(lab.cluster, vm), 50);
  await command.stdout.match(/after the death/);
  clearInterval(again);
  command.interrupt();
  const { code, stdout } = await command.ended;
  expect(code).toBe(130);
  for (const line of stdout.trim().split('\n')) expect(JSON.parse(line)).toMatchObject({ change: 'CHANGE_KIND_PUT' });
});

test('a watch of one VM ends when it is gone', async () => {
  await lab.cli(...CREATE);
  const command = lab.start(['vm', 'watch', 'web']);
  await command.stdout.match(/web +running/);
  while (changes.listenerCount('change') === 0) await new Promise((done) => setTimeout(done, 10));
  await lab.cli('vm', 'delete', 'web');
  const { code, stdout } = await command.ended;
  expect(code).toBe(0);
  expect(stdout).toMatch(/^NAME +PHASE.*\nweb .*\nvm\/web deleted\n$/);
});
