// SPDX-License-Identifier: Apache-2.0
/** The child of host.conformance.test.ts: misbehaves on request. */
import { setTimeout as delay } from 'node:timers/promises';
import { BusbarError } from '@busbar/core/errors';
import { serveNative } from './serve.ts';

export interface FixtureMethods {
  echo(args: unknown): Promise<unknown>;
  env(args: { name: string }): string | null;
  slow(args: { ms: number }): Promise<number>;
  hang(args: null): Promise<never>;
  /** Blocks the child's JS thread, as a synchronous C call would. */
  block(args: null): never;
  crash(args: { words: string }): Promise<never>;
  refuse(args: null): never;
  fail(args: null): never;
  unclonable(args: null): unknown;
  flood(args: { count: number; bytes: number }): number;
  concurrency(args: null): number;
}

export interface FixtureEvent {
  readonly n: number;
  readonly body: Buffer;
}

serveNative<FixtureMethods, FixtureEvent>((context) => {
  if (process.env.FIXTURE_BROKEN !== undefined) throw new Error('libfixture.so: no such file');
  context.onClose(async () => {
    const ms = Number(process.env.FIXTURE_CLOSE_MS ?? '0');
    if (ms > 0) await delay(ms);
  });
  let now = 0;
  let most = 0;
  return {
    echo: async (args) => args,
    env: ({ name }) => process.env[name] ?? null,
    async slow({ ms }) {
      most = Math.max(most, ++now);
      await delay(ms);
      now--;
      return ms;
    },
    hang: () => new Promise(() => setInterval(() => {}, 1000)),
    block() {
      for (;;);
    },
    async crash({ words }) {
      setImmediate(() => {
        throw new Error(words);
      });
      return await new Promise<never>(() => {});
    },
    refuse() {
      const cause = Object.assign(new Error('rbd_create'), { code: -17 });
      throw new BusbarError({
        kind: 'already-exists',
        reason: 'THING_EXISTS',
        message: 'it is there',
        hint: 'choose another',
        cause,
      });
    },
    fail() {
      throw Object.assign(new RangeError('too much'), { code: 'ERANGE' });
    },
    unclonable: () => () => 1,
    flood({ count, bytes }) {
      const body = Buffer.alloc(bytes);
      for (let n = 0; n < count; n++) context.emit({ n, body });
      return count;
    },
    concurrency: () => most,
  };
});
