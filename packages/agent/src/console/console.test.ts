// SPDX-License-Identifier: Apache-2.0
import { appendFile, mkdtemp, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '@busbar/core/clock/clock';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { ByteQueue } from './byte-queue.ts';
import { FanOut } from './fan-out.ts';
import { readLog } from './log-file.ts';

const bytes = (text: string) => Buffer.from(text);

async function all(output: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of output) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

test('a queue refuses what does not fit, and takes more after it was read', async () => {
  const queue = new ByteQueue(4);
  expect(queue.push(bytes('abc'))).toBe(true);
  expect(queue.push(bytes('de'))).toBe(false);
  const reader = queue[Symbol.asyncIterator]();
  expect((await reader.next()).value?.toString()).toBe('abc');
  expect(queue.push(bytes('de'))).toBe(true);
  queue.end();
  expect((await reader.next()).value?.toString()).toBe('de');
  expect((await reader.next()).done).toBe(true);
});

describe('fan-out', () => {
  const never = () => new AbortController().signal;

  test('each reader gets all from its subscription on; a slow one is dropped alone', async () => {
    const out = new FanOut(() => new Error('too slow'), 8);
    const slow = out.subscribe(never());
    const quick = out.subscribe(never()).output[Symbol.asyncIterator]();
    for (const text of ['12345', '67890', 'abcde']) {
      out.publish(bytes(text));
      expect((await quick.next()).value?.toString()).toBe(text);
    }
    await expect(all(slow.output)).rejects.toThrow('too slow');
    expect(out.readers).toBe(1);
    out.end();
    expect((await quick.next()).done).toBe(true);
  });

  test('the last that leaves is told of, once', async () => {
    const out = new FanOut(() => new Error('too slow'));
    const left = vi.fn();
    const abort = new AbortController();
    const reader = out.subscribe(abort.signal, left);
    abort.abort();
    reader.close();
    expect(await all(reader.output)).toBe('');
    expect(left).toHaveBeenCalledTimes(1);
    expect(await all(out.subscribe(abort.signal).output)).toBe('');
  });
});

describe('log file', () => {
  let dir: string;
  let path: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'bb-log-'));
    path = join(dir, 'serial.log');
  });
  afterEach(() => rm(dir, { recursive: true, force: true }));

  const read = (options: { tailBytes?: number; follow?: boolean; signal?: AbortSignal }) =>
    readLog(path, {
      tailBytes: 1e6,
      follow: false,
      signal: new AbortController().signal,
      clock: systemClock,
      ...options,
    });

  test('tail', async () => {
    await writeFile(path, 'x'.repeat(100_000).concat('end'));
    expect((await all(read({}))).length).toBe(100_003);
    expect(await all(read({ tailBytes: 5 }))).toBe('xxend');
    expect(await all(read({ tailBytes: 0 }))).toBe('');
  });

  test('follows growth, a new start and rotation, until aborted', async () => {
    await writeFile(path, 'one ');
    const abort = new AbortController();
    let seen = '';
    const following = (async () => {
      for await (const chunk of read({ follow: true, signal: abort.signal })) seen += Buffer.from(chunk).toString();
    })();
    const until = (text: string) => vi.waitFor(() => expect(seen).toBe(text), { timeout: 5000 });
    await until('one ');
    await appendFile(path, 'two ');
    await until('one two ');
    await truncate(path);
    await appendFile(path, '3 ');
    await until('one two 3 ');
    await rename(path, `${path}.0`);
    await writeFile(path, 'four');
    await until('one two 3 four');
    abort.abort();
    await following;
  });

  test('no file', async () => {
    await expect(all(read({}))).rejects.toMatchObject({ code: 'ENOENT' });
  });
});
