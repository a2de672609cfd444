// SPDX-License-Identifier: Apache-2.0
import type { Operation } from '@busbar/proto/gen/busbar/v1/operation';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { startLab, type TestLab } from '../testing/cli.ts';
import { changes } from '../testing/fake-cluster.ts';

vi.setConfig({ testTimeout: 60_000 });

let lab: TestLab;
let id: string;
beforeEach(async () => {
  lab = await startLab(2);
  id = (await lab.cli('volume', 'create', 'a', '--size', '1GiB', '--no-wait')).stdout.trim();
});
afterEach(() => lab.end());

const operation = () => lab.cluster.operations.get(id) as Operation;
const watched = async () => {
  while (changes.listenerCount('operation') === 0) await new Promise((done) => setTimeout(done, 10));
};

test('the log of what was done so far', async () => {
  lab.cluster.advance(operation());
  expect(await lab.cli('operation', 'log', id)).toEqual({
    code: 0,
    stdout: `2026-03-01T10:00:00.000Z  CreateVolume volume/a
2026-03-01T10:00:00.000Z  prepare: begun
2026-03-01T10:00:01.500Z  prepare: done in 1.5 s
`,
    stderr: '',
  });
});

test('-f prints steps and messages as they come, past the death of a controller, until it ends', async () => {
  const command = lab.start(['operation', 'log', '-f', id]);
  await watched();
  operation().message = 'waiting for the pool';
  lab.cluster.advance(operation());
  await command.stdout.match(/prepare: done/);
  lab.controllers[0]?.kill();
  await command.stderr.match(/trying the next controller/);
  while (operation().endTime === undefined) lab.cluster.advance(operation());
  const { code, stdout } = await command.ended;
  expect(code).toBe(0);
  expect(stdout.split('\n').map((line) => line.slice(26))).toEqual([
    'CreateVolume volume/a',
    'prepare: begun',
    'prepare: done in 1.5 s',
    'waiting for the pool',
    'work: begun',
    'work: done in 1.5 s',
    'finish: begun',
    'finish: done in 1.5 s',
    'succeeded in 4.5 s',
    '',
  ]);
});

test('-f fails as the operation failed; as JSON, a line each', async () => {
  lab.cluster.failNext = { reason: 'POOL_FULL', message: 'no room', hint: 'add disks', fields: [] };
  lab.cluster.advance(operation());
  const { code, stdout, stderr } = await lab.cli('operation', 'log', id, '--follow', '-o', 'jsonl');
  expect(code).toBe(1);
  expect(JSON.parse(stderr)).toMatchObject({ reason: 'POOL_FULL', do: 'add disks' });
  const lines = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { text: string });
  expect(lines.at(-1)).toEqual({
    time: '2026-03-01T10:00:04.500Z',
    step: '',
    text: 'failed in 4.5 s: no room (POOL_FULL)',
  });
});

test('Ctrl-C leaves the operation alone and says how to stop it', async () => {
  const command = lab.start(['operation', 'log', '-f', id]);
  await watched();
  command.interrupt();
  expect(await command.ended).toMatchObject({
    code: 130,
    stderr: `error: no longer waiting: the operation goes on
why: Ctrl-C was pressed
do: busbar operation cancel ${id} stops it
`,
  });
});

test('cancel waits until it is undone', async () => {
  const { code, stdout } = await lab.cli('operation', 'cancel', id);
  expect({ code, stdout }).toEqual({ code: 0, stdout: `operation/${id} cancelled\n` });
});

test('cancel --no-wait only asks', async () => {
  const { code, stdout } = await lab.cli('operation', 'cancel', id, '--no-wait');
  expect({ code, stdout }).toEqual({
    code: 0,
    stdout: `operation/${id} is asked to stop; busbar operation log -f ${id} shows how it ends\n`,
  });
});

test('cancel says why when it is too late', async () => {
  lab.cluster.onlyForward = true;
  expect(await lab.cli('operation', 'cancel', id)).toMatchObject({
    code: 4,
    stderr: expect.stringContaining(`error: cannot cancel operation ${id}
why: it was too late to turn back, and it has succeeded (steps done: prepare, work, finish)
do: to take back what it did, ask for the opposite
`) as string,
  });
  expect(await lab.cli('operation', 'cancel', id)).toMatchObject({
    code: 4,
    stderr: `error: cannot cancel operation ${id}
why: operation ${id} has ended already (OPERATION_ENDED)
do: to take back what it did, ask for the opposite
`,
  });
});
