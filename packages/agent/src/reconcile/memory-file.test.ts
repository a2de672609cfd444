// SPDX-License-Identifier: Apache-2.0
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { BootId, VmId } from '@busbar/core/ids';
import { EndReason } from '@busbar/proto/gen/busbar/agent/v1/agent';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Memory, VmMemory } from './memory.ts';
import { decode, encode, MemoryFile } from './memory-file.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'busbar-memory-'));
});
afterEach(() => rm(folder, { recursive: true }));

const memory: Memory = {
  bootId: 'boot-1' as BootId,
  accepted: { term: 9_007_199_254_740_993n, generation: 2n },
  storeRevision: 9_007_199_254_740_994n,
  vms: new Map([
    ['v1' as VmId, { highestEpoch: 3n, startedEpoch: 3n, endedEpoch: 2n, end: undefined }],
    [
      'v2' as VmId,
      { highestEpoch: 1n, startedEpoch: 1n, endedEpoch: 1n, end: { reason: EndReason.CRASHED, message: '"' } },
    ],
  ]),
};

describe('memory file', () => {
  it('gives back what it was given, and nothing when there is none', async () => {
    const file = new MemoryFile(join(folder, 'state', 'memory.json'));
    expect(await file.load()).toBeUndefined();
    await file.save({ ...memory, vms: new Map() });
    await file.save(memory);
    expect(await file.load()).toEqual(memory);
    expect(await readdir(join(folder, 'state'))).toEqual(['memory.json']);
  });

  it('reads the file of a version that did not remember how far the store was', () => {
    const former = encode(memory).replace(/ "storeRevision": "\d+",\n/, '');
    expect(former).not.toBe(encode(memory));
    expect(decode(former)).toEqual({ ...memory, storeRevision: 0n });
  });

  it('survives an interrupted write', async () => {
    const path = join(folder, 'memory.json');
    const file = new MemoryFile(path);
    await file.save(memory);
    await writeFile(`${path}.new`, '{"version":1,');
    expect(await file.load()).toEqual(memory);
    await file.save(memory);
    expect(await file.load()).toEqual(memory);
  });

  it.each(['', '{}', 'not json', '{"version":2}'])('refuses %j and leaves it alone', async (text) => {
    const path = join(folder, 'memory.json');
    await writeFile(path, text);
    await expect(new MemoryFile(path).load()).rejects.toThrow(/cannot be read/);
    expect(await readFile(path, 'utf8')).toBe(text);
  });

  it('encodes every memory', () => {
    const epoch = fc.bigInt({ min: 0n, max: 2n ** 63n - 1n });
    const end = fc.option(fc.record({ reason: fc.constantFrom(...REASONS), message: fc.string() }), { nil: undefined });
    const vm = fc.record({ highestEpoch: epoch, startedEpoch: epoch, endedEpoch: epoch, end });
    fc.assert(
      fc.property(fc.dictionary(fc.uuid(), vm, { noNullPrototype: true }), epoch, (vms, term) => {
        const entries = Object.entries(vms) as [VmId, VmMemory][];
        const accepted = { term, generation: 0n };
        const all: Memory = { bootId: 'b' as BootId, accepted, storeRevision: term, vms: new Map(entries) };
        expect(decode(encode(all))).toEqual(all);
      }),
    );
  });
});

const REASONS = [EndReason.GUEST_SHUTDOWN, EndReason.DESTROYED, EndReason.START_FAILED, EndReason.VANISHED];
