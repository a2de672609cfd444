// SPDX-License-Identifier: Apache-2.0
import { ImageFormat, ImportImageRequest, type ImportImageResponse } from '@busbar/proto/gen/busbar/v1/image';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { FIRST_MESSAGE_DEADLINE_MS } from '../session/first-message.ts';
import { testCaller } from '../testing/callers.ts';
import { Rig } from '../testing/rig.ts';

/** Goal: a place for an import is kept by sending alone. */
let rig: Rig;
beforeEach(async () => {
  rig = new Rig();
  await rig.start();
});
afterEach(() => rig.stop());

function open(messages: AsyncIterable<ImportImageRequest>): AsyncIterator<ImportImageResponse> {
  const bound = rig.services.find((each) => each.definition.name === 'ImageService');
  const rpc = bound?.definition.methods.importImage;
  const method = bound?.methods.importImage;
  if (bound === undefined || rpc === undefined || method === undefined) throw new Error('no ImportImage');
  const run = rig.gate().stream(bound.definition.fullName, rpc, method);
  const stream = run(messages, testCaller(), new AbortController().signal);
  return stream[Symbol.asyncIterator]() as AsyncIterator<ImportImageResponse>;
}

const wait = (ms: number) => new Promise<void>((resolve) => void rig.clock.timer(ms, resolve));

it('an import that names no image gives its place back within seconds', async () => {
  async function* silent(): AsyncIterable<ImportImageRequest> {
    await new Promise(() => {});
    yield* [];
  }
  const first = open(silent()).next();
  first.catch(() => {});
  expect(rig.api.places.count('import')).toBe(1);
  await rig.clock.advance(FIRST_MESSAGE_DEADLINE_MS);
  await expect(first).rejects.toMatchObject({ reason: 'DEADLINE_EXCEEDED' });
  expect(rig.api.places.count('import')).toBe(0);
});

it('an import that sends next to nothing ends with the reason, and leaves neither record nor bytes nor place', async () => {
  async function* dripping(): AsyncIterable<ImportImageRequest> {
    const spec = { format: ImageFormat.RAW, fileSizeBytes: 1024n ** 2n, sha256: '' };
    yield ImportImageRequest.fromPartial({ part: { $case: 'header', value: { name: 'debian', spec } } });
    for (;;) {
      await wait(20_000);
      yield ImportImageRequest.fromPartial({ part: { $case: 'chunk', value: Buffer.alloc(1, 7) } });
    }
  }
  const stream = open(dripping());
  const ended = (async () => {
    while (!(await stream.next()).done);
  })();
  await expect(rig.run(ended, 120_000)).rejects.toMatchObject({ reason: 'IMPORT_TOO_SLOW' });
  expect(rig.pool.images.size).toBe(0);
  expect([...(await rig.stored()).keys()].filter((key) => /image|import/.test(key))).toEqual([]);
  expect(rig.api.places.count('import')).toBe(0);
});
