// SPDX-License-Identifier: Apache-2.0
import { numRuns } from '@busbar/core/testing/runs.fixture';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BLOCK_BYTES, SparseWriter } from './sparse.ts';

const DISK = 2 * BLOCK_BYTES + 70_000;

test('what comes out is what went in, without zeros, inside one block each', async () => {
  const piece = fc.record({ at: fc.nat(DISK - 1), bytes: fc.integer({ min: 1, max: 200_000 }), fill: fc.nat(3) });
  await fc.assert(
    fc.asyncProperty(fc.array(piece, { maxLength: 6 }), async (pieces) => {
      const wanted = Buffer.alloc(DISK);
      const got = Buffer.alloc(DISK);
      let last = 0;
      const sparse = new SparseWriter(async (offset, data) => {
        expect(offset).toBeGreaterThanOrEqual(last);
        last = offset + data.length;
        expect(Math.floor(offset / BLOCK_BYTES)).toBe(Math.floor((last - 1) / BLOCK_BYTES));
        expect(data.some((byte) => byte !== 0)).toBe(true);
        data.copy(got, offset);
      });
      let end = 0;
      for (const { at, bytes, fill } of pieces.toSorted((a, b) => a.at - b.at)) {
        const from = Math.max(at, end);
        const data = Buffer.alloc(Math.max(0, Math.min(bytes, DISK - from)), fill);
        data.copy(wanted, from);
        await sparse.push(from, data);
        end = from + data.length;
      }
      await sparse.flush();
      expect(got.equals(wanted)).toBe(true);
    }),
    { numRuns: numRuns(30) },
  );
});
