// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { BusbarError } from '@busbar/core/errors';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { NATIVE_REASONS, nativeCode } from './errors.ts';
import type { FixtureEvent, FixtureMethods } from './host.fixture.ts';
import { NativeHost, type NativeHostOptions } from './host.ts';

type Lanes = 'narrow' | 'other';
type Host = NativeHost<FixtureMethods, FixtureEvent, Lanes>;
const open: Host[] = [];

function start(options: Partial<NativeHostOptions<FixtureMethods, FixtureEvent, Lanes>> = {}): Host {
  const host: Host = new NativeHost({
    name: 'fixture',
    entry: new URL('./host.fixture.ts', import.meta.url),
    lanes: { narrow: { concurrency: 1, queueLimit: 2 }, other: { concurrency: 1, queueLimit: 2 } },
    backoffMs: { first: 10, max: 200 },
    ...options,
  });
  open.push(host);
  return host;
}

async function failure(promise: Promise<unknown>): Promise<BusbarError> {
  const error = await promise.then(
    () => null,
    (e: unknown) => e,
  );
  expect(error).toBeInstanceOf(BusbarError);
  return error as BusbarError;
}

/** Killed orphans may stay zombies where process 1 does not reap. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

const untilDead = (pid: number) => vi.waitFor(() => expect(isAlive(pid)).toBe(false), { timeout: 5000, interval: 20 });
const soon = { deadlineMs: 5000 };

afterEach(async () => {
  await Promise.all(open.splice(0).map((host) => host.close()));
});

describe('calls', () => {
  test('bigint, Buffer and undefined pass unchanged', async () => {
    const host = start();
    const value = { big: 2n ** 63n, bytes: Buffer.from([0, 255]), none: undefined, list: [1, null] };
    expect(await host.call('echo', value, soon)).toEqual(value);
  });

  test('the child has its own thread pool size and environment', async () => {
    const host = start({ threadPoolSize: 17, env: { FIXTURE_WORD: 'x' } });
    expect(await host.call('env', { name: 'UV_THREADPOOL_SIZE' }, soon)).toBe('17');
    expect(await host.call('env', { name: 'FIXTURE_WORD' }, soon)).toBe('x');
  });

  test('errors keep kind, reason, hint, name and code', async () => {
    const host = start();
    const refused = await failure(host.call('refuse', null, soon));
    expect(refused).toMatchObject({
      kind: 'already-exists',
      reason: 'THING_EXISTS',
      message: 'it is there',
      hint: 'choose another',
    });
    expect(nativeCode(refused)).toBe(-17);
    const failed = await failure(host.call('fail', null, soon));
    expect(failed).toMatchObject({ kind: 'internal', reason: NATIVE_REASONS.failed, cause: { name: 'RangeError' } });
    expect(nativeCode(failed)).toBe('ERANGE');
  });

  test('what cannot be cloned fails that call alone, in both directions', async () => {
    const host = start();
    expect((await failure(host.call('echo', () => 1, soon))).kind).toBe('internal');
    expect((await failure(host.call('unclonable', null, soon))).message).toContain('could not be cloned');
    expect(await host.call('echo', 1, soon)).toBe(1);
    expect(host.generation).toBe(1);
  });
});

describe('a child that misbehaves', () => {
  test.each(['hang', 'block'] as const)(
    '%s: killed at the deadline, the others rejected, then replaced',
    async (how) => {
      const lost = vi.fn();
      const host = start({ onLost: lost });
      await host.call('echo', 0, soon);
      const { pid } = host;
      const other = failure(host.call('slow', { ms: 60_000 }, { deadlineMs: 60_000 }));
      const hung = await failure(host.call(how, null, { deadlineMs: 200 }));
      expect(hung).toMatchObject({ kind: 'timeout', reason: NATIVE_REASONS.deadline });
      expect(await other).toMatchObject({ kind: 'unavailable', reason: NATIVE_REASONS.childLost, cause: hung });
      await untilDead(pid as number);
      expect(lost).toHaveBeenCalledTimes(1);
      expect(await host.call('echo', 2, soon)).toBe(2);
      expect(host.generation).toBe(2);
    },
  );

  test('a crash is told with its last words', async () => {
    const host = start();
    const error = await failure(host.call('crash', { words: 'mind the gap' }, soon));
    expect(error).toMatchObject({ kind: 'unavailable', reason: NATIVE_REASONS.childLost });
    expect(error.message).toBe('fixture ended by SIGKILL: mind the gap');
    expect(await host.call('echo', 3, soon)).toBe(3);
  });

  test('kill -9 from outside is survived', async () => {
    const host = start();
    await host.call('echo', 0, soon);
    const pending = failure(host.call('slow', { ms: 60_000 }, { deadlineMs: 60_000 }));
    process.kill(host.pid as number, 'SIGKILL');
    expect((await pending).reason).toBe(NATIVE_REASONS.childLost);
    expect(await host.call('echo', 4, soon)).toBe(4);
  });

  test('a start that fails tells why, and is tried again with growing waits', async () => {
    const host = start({ env: { FIXTURE_BROKEN: '1' }, backoffMs: { first: 1, max: 4 } });
    for (let n = 0; n < 20; n++) {
      const error = await failure(host.call('echo', 0, soon));
      expect(error).toMatchObject({ kind: 'unavailable', reason: NATIVE_REASONS.startFailed });
      expect(error.message).toContain('libfixture.so: no such file');
    }
    await vi.waitFor(() => expect(host.generation).toBeGreaterThan(5), { timeout: 5000 });
  });

  test('a start that hangs ends at its deadline', async () => {
    const host = start({ onStart: () => new Promise(() => {}), startDeadlineMs: 400 });
    expect(await failure(host.call('echo', 0, soon))).toMatchObject({ reason: NATIVE_REASONS.startFailed });
  });
});

test('onStart runs in every child before any other call', async () => {
  const generations: number[] = [];
  const host = start({
    async onStart(call, generation) {
      generations.push(generation);
      expect(await call('echo', 'hello', soon)).toBe('hello');
    },
  });
  await host.call('echo', 1, soon);
  host.restart('test');
  await host.call('echo', 1, soon);
  expect(generations).toEqual([1, 2]);
});

describe('lanes', () => {
  test('one call at a time on each, side by side with the others', async () => {
    const host = start();
    await host.call('echo', 0, soon);
    const calls = ['narrow', 'narrow', 'narrow', 'other'] as const;
    await Promise.all(calls.map((lane) => host.call('slow', { ms: 30 }, { ...soon, lane })));
    expect(await host.call('concurrency', null, soon)).toBe(2);
  });

  test('a full queue refuses; a deadline passed while waiting does not kill the child', async () => {
    const host = start();
    await host.call('echo', 0, soon);
    const running = host.call('slow', { ms: 300 }, { ...soon, lane: 'narrow' });
    const waiting = failure(host.call('echo', 1, { deadlineMs: 50, lane: 'narrow' }));
    const next = host.call('echo', 2, { ...soon, lane: 'narrow' });
    const refused = await failure(host.call('echo', 3, { ...soon, lane: 'narrow' }));
    expect(refused).toMatchObject({ kind: 'unavailable', reason: NATIVE_REASONS.queueFull });
    expect((await waiting).kind).toBe('timeout');
    expect(await running).toBe(300);
    expect(await next).toBe(2);
    expect(host.generation).toBe(1);
  });
});

describe('events', () => {
  test('arrive in order', async () => {
    const seen: number[] = [];
    const host = start({ onEvent: (event) => seen.push(event.n) });
    await host.call('flood', { count: 500, bytes: 10 }, soon);
    await vi.waitFor(() => expect(seen).toHaveLength(500));
    expect(seen).toEqual(seen.toSorted((a, b) => a - b));
  });

  test('a flood is cut off, counted, and calls still pass', async () => {
    let seen = 0;
    let lost = 0;
    const host = start({ onEvent: () => seen++, onEventsLost: (count) => (lost += count) });
    await host.call('flood', { count: 20_000, bytes: 2000 }, soon);
    await vi.waitFor(() => expect(seen + lost).toBe(20_000), { timeout: 5000 });
    expect(lost).toBeGreaterThan(0);
    expect(await host.call('echo', 1, soon)).toBe(1);
  });
});

describe('the end', () => {
  test('close rejects what is pending, waits for the child and refuses more', async () => {
    const host = start({ env: { FIXTURE_CLOSE_MS: '100' } });
    await host.call('echo', 0, soon);
    const pid = host.pid as number;
    const pending = failure(host.call('slow', { ms: 60_000 }, { deadlineMs: 60_000 }));
    const startedAt = performance.now();
    await host.close();
    expect(performance.now() - startedAt).toBeGreaterThan(80);
    expect((await pending).reason).toBe(NATIVE_REASONS.closed);
    expect((await failure(host.call('echo', 0, soon))).reason).toBe(NATIVE_REASONS.closed);
    await untilDead(pid);
  });

  test('close does not wait for a child that does not listen', async () => {
    const host = start({ closeGraceMs: 100 });
    await host.call('echo', 0, soon);
    const pid = host.pid as number;
    const pending = failure(host.call('block', null, { deadlineMs: 60_000 }));
    await host.close();
    await pending;
    await untilDead(pid);
  });

  test('the child dies with its parent, however that ends', async () => {
    const script = (end: string) => `
      import { NativeHost } from ${JSON.stringify(new URL('./host.ts', import.meta.url).href)};
      const host = new NativeHost({ name: 'fixture', entry: new URL(${JSON.stringify(new URL('./host.fixture.ts', import.meta.url).href)}) });
      await host.call('echo', 1, { deadlineMs: 5000 });
      host.call('hang', null, { deadlineMs: 60000 }).catch(() => {});
      console.log(host.pid);
      ${end}`;
    const ends = ["process.kill(process.pid, 'SIGKILL')", 'process.exit(0)', 'await host.close()'];
    await Promise.all(
      ends.map(async (end) => {
        const parent = spawn(process.execPath, ['--input-type=module', '-e', script(end)], {
          stdio: ['ignore', 'pipe', 'inherit'],
          cwd: import.meta.dirname,
        });
        const exited = new Promise((resolve) => parent.once('exit', resolve));
        let output = '';
        parent.stdout.on('data', (text: Buffer) => (output += text.toString()));
        await exited;
        await vi.waitFor(() => expect(Number(output.trim())).toBeGreaterThan(0));
        await untilDead(Number(output.trim()));
      }),
    );
  });

  test('an idle child does not keep its parent alive', async () => {
    const script = `
      import { NativeHost } from ${JSON.stringify(new URL('./host.ts', import.meta.url).href)};
      const host = new NativeHost({ name: 'fixture', entry: new URL(${JSON.stringify(new URL('./host.fixture.ts', import.meta.url).href)}) });
      await host.call('echo', 1, { deadlineMs: 5000 });`;
    const parent = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: 'inherit', timeout: 4000 });
    expect(await new Promise((resolve) => parent.once('exit', resolve))).toBe(0);
  });
});
