// SPDX-License-Identifier: Apache-2.0
import { VirtualClock } from '@busbar/core/clock/virtual';
import type { ImageId } from '@busbar/core/ids';
import { seededRandom } from '@busbar/core/random';
import { beforeEach, describe, expect, test } from 'vitest';
import { newSimPool, type SimPool, simDriver } from '../sim/driver.ts';
import { MIB } from '../testing/streams.ts';
import { Receiver } from './receive.ts';

/** Goal: a place for an import is kept by sending, not by being there. */
let clock: VirtualClock;
let pool: SimPool;
beforeEach(() => {
  clock = new VirtualClock();
  pool = newSimPool();
});

const wait = (ms: number) => new Promise<void>((resolve) => void clock.timer(ms, resolve));

/** Imports what `source` sends of 16 MiB; how it ended, and when. */
async function outcome(source: AsyncIterable<Uint8Array>, limitMs = 3_600_000) {
  const driver = simDriver(pool, { clock, random: seededRandom(1) });
  const began = clock.nowMs();
  let result: { reason: string; message: string; tookMs: number } | null = null;
  const settle = (reason: string, message: string) => {
    result = { reason, message, tookMs: clock.nowMs() - began };
  };
  driver
    .importImage({
      imageId: 'i' as ImageId,
      format: 'raw',
      sizeBytes: BigInt(16 * MIB),
      sha256: null,
      source,
      signal: new AbortController().signal,
    })
    .then(
      () => settle('done', ''),
      (error: Error & { reason: string }) => settle(error.reason, error.message),
    );
  await clock.advanceUntil(() => result !== null, limitMs);
  return result ?? { reason: 'still under way', message: '', tookMs: clock.nowMs() - began };
}

async function* dripping(bytes: number, everyMs: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < 16 * MIB; at += bytes) {
    await wait(everyMs);
    yield Buffer.alloc(bytes, 7);
  }
}

describe('an import whose sender', () => {
  test('sends a byte now and then is given up after a minute, and told what was too little', async () => {
    expect(await outcome(dripping(1, 30_000))).toMatchObject({
      reason: 'IMPORT_TOO_SLOW',
      message: expect.stringMatching(
        /^the sender sent [12] B within the 60 s in which it was waited for, at least 2.00 MiB are expected$/,
      ),
      tookMs: 60_000,
    });
  });

  test('begins well and then drips is given up, too', async () => {
    async function* source() {
      yield Buffer.alloc(8 * MIB, 7);
      yield* dripping(1, 10_000);
    }
    const { reason, tookMs } = await outcome(source());
    expect(reason).toBe('IMPORT_TOO_SLOW');
    expect(tookMs).toBeLessThanOrEqual(120_000);
  });

  test('is slow but sends enough is served', async () => {
    // 64 KiB in each 1.5 s: 2.5 MiB a minute.
    expect(await outcome(dripping(65_536, 1_500))).toMatchObject({ reason: 'done' });
  });

  test('is quick is not blamed for a pool that takes minutes for each part', async () => {
    const source = (async function* () {
      for (let at = 0; at < 16; at++) yield Buffer.alloc(MIB, 7);
    })();
    const request = {
      ...({ imageId: 'i' as ImageId, format: 'raw', sizeBytes: BigInt(16 * MIB), sha256: null } as const),
      source,
      signal: new AbortController().signal,
    };
    let received = 0;
    const reading = (async () => {
      for await (const { data } of new Receiver(request, clock, 90_000).chunks()) {
        received += data.length;
        await wait(300_000);
      }
    })();
    await clock.advanceUntil(() => received === 16 * MIB, 16 * 300_000);
    await clock.advance(300_000);
    await reading;
  });

  test('says nothing at all is given up by the deadline for silence, when that is shorter', async () => {
    const request = {
      ...({ imageId: 'i' as ImageId, format: 'raw', sizeBytes: BigInt(16 * MIB), sha256: null } as const),
      source: dripping(MIB, 20_000),
      signal: new AbortController().signal,
    };
    const next = new Receiver(request, clock, 10_000).chunks().next();
    next.catch(() => {});
    await clock.advance(10_000);
    await expect(next).rejects.toMatchObject({
      reason: 'IMPORT_CANCELLED',
      message: expect.stringContaining('sent nothing for 10000 ms'),
    });
  });
});
