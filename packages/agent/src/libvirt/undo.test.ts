// SPDX-License-Identifier: Apache-2.0
import { VirtualClock } from '@busbar/core/clock/virtual';
import { expect, test } from 'vitest';
import { HOST_DRIVER_REASONS } from '../driver/host-driver.ts';
import { hypervisorTimeout } from '../driver/refusals.ts';
import { type StartSteps, startOrUndo } from './undo.ts';

const LIMITS = { name: 'vm', deadlineMs: 50_000, undoDeadlineMs: 20_000 };
const { domainStartFailed, hypervisorTimeout: unknown } = HOST_DRIVER_REASONS;

/** The steps take as long as the numbers say; null is never. */
function start(options: {
  createMs: number | null;
  createError?: Error;
  undoMs?: number | null;
  undoError?: Error;
  gone?: boolean | Error;
}) {
  const clock = new VirtualClock();
  const log: string[] = [];
  const after = (ms: number | null, what: string, error?: Error) =>
    new Promise<void>((resolve, reject) => {
      if (ms === null) return;
      clock.timer(ms, () => {
        log.push(what);
        if (error === undefined) resolve();
        else reject(error);
      });
    });
  const steps: StartSteps = {
    create: () => after(options.createMs, 'created', options.createError),
    undo: () => {
      log.push('undo');
      return after(options.undoMs === undefined ? 0 : options.undoMs, 'undone', options.undoError);
    },
    isGone: async () => {
      if (options.gone instanceof Error) throw options.gone;
      return options.gone ?? true;
    },
  };
  const result = { reason: undefined as unknown, atMs: -1 };
  void startOrUndo(clock, LIMITS, steps).then(
    () => Object.assign(result, { reason: 'started', atMs: clock.nowMs() }),
    (error: { reason?: string; message: string }) =>
      Object.assign(result, { reason: error.reason ?? error.message, atMs: clock.nowMs() }),
  );
  return { clock, log, result };
}

test('one that starts, or fails, in time is not undone', async () => {
  const good = start({ createMs: 49_000 });
  await good.clock.advance(200_000);
  expect(good).toMatchObject({ log: ['created'], result: { reason: 'started' } });
  const bad = start({ createMs: 49_000, createError: new Error('no such image') });
  await bad.clock.advance(200_000);
  expect(bad).toMatchObject({ log: ['created'], result: { reason: 'no such image' } });
});

test('one that is given up has failed only when the undoing is over, however early libvirt answers', async () => {
  const made = start({ createMs: 50_100, createError: new Error('domain was destroyed'), undoMs: 9000 });
  await made.clock.advance(58_900);
  expect(made).toMatchObject({ log: ['undo', 'created'], result: { reason: undefined } });
  await made.clock.advance(200);
  expect(made).toMatchObject({ log: ['undo', 'created', 'undone'], result: { reason: domainStartFailed } });
});

test('one that came up while it was given up has failed when it is gone', async () => {
  const made = start({ createMs: 50_100, undoMs: 1000 });
  await made.clock.advance(60_000);
  expect(made.result.reason).toBe(domainStartFailed);
});

test.each([
  ['the undoing fails', { undoError: new Error('QEMU hangs in the kernel') }],
  ['the undoing does not end', { undoMs: null }],
  ['something is still there', { gone: false }],
  ['nobody can tell whether something is there', { gone: new Error('EMFILE') }],
])('unknown when %s', async (_, options) => {
  for (const createError of [undefined, new Error('domain was destroyed')]) {
    const made = start({ createMs: 50_100, ...(createError && { createError }), ...options });
    await made.clock.advance(75_000); // the backstop of the reconciler
    expect(made.result.reason).toBe(unknown);
  }
});

test('unknown when libvirt does not tell what became of it, after the undoing', async () => {
  const made = start({ createMs: 60_000, createError: hypervisorTimeout('create', 60_000), undoMs: 12_000 });
  await made.clock.advance(61_000);
  expect(made.result.reason).toBe(undefined);
  await made.clock.advance(2000);
  expect(made.result.reason).toBe(unknown);
});
