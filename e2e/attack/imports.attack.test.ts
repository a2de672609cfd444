// SPDX-License-Identifier: Apache-2.0
import { ImageFormat, ImportImageRequest } from '@busbar/proto/gen/busbar/v1/image';
import { describe, expect, it } from 'vitest';
import { addressOf, clientOf, eventually, inside, json, VOTERS } from './lab.ts';
import { call, framed, type RawStream, session } from './streams.ts';

/** Goal: imports that send next to nothing take neither the memory of a voter nor programs on it. */
const IMPORTS = 40;
const GIB = 1024n ** 3n;
const HOST = VOTERS[0];

/** Megabytes of everything that the controller of this host runs. */
async function controllerMemory(): Promise<{ readonly mib: number; readonly programs: number }> {
  const { stdout } = await inside(HOST, 'ps', '-eo', 'rss=,args=');
  const lines = stdout.split('\n').filter((line) => /busbar-controller|controller\/src\/main|import-diff/.test(line));
  return {
    mib: lines.reduce((sum, line) => sum + Number.parseInt(line, 10) / 1024, 0),
    programs: lines.filter((line) => line.includes('import-diff')).length,
  };
}

describe('an operator who begins forty imports and sends 64 KiB of each', () => {
  it('has two, is told so of the others, and the controller has the memory of two', async () => {
    const before = await controllerMemory();
    const over = await session(await addressOf(HOST), clientOf('operator'));
    try {
      const imports: RawStream[] = [];
      for (let n = 0; n < IMPORTS; n++) {
        const one = call(over, '/busbar.v1.ImageService/ImportImage');
        const spec = { format: ImageFormat.RAW, fileSizeBytes: GIB, sha256: '' };
        const header = { part: { $case: 'header' as const, value: { name: `flood-${n}`, spec } } };
        one.stream.write(framed(ImportImageRequest.encode(ImportImageRequest.fromPartial(header)).finish()));
        const chunk = { part: { $case: 'chunk' as const, value: Buffer.alloc(65_536, 7) } };
        one.stream.write(framed(ImportImageRequest.encode(ImportImageRequest.fromPartial(chunk)).finish()));
        imports.push(one);
      }
      const refused = () => imports.filter((each) => each.ended() !== null);
      await eventually('all but two are refused', 20_000, async () => (refused().length >= IMPORTS - 2 ? true : null));
      expect(refused()).toHaveLength(IMPORTS - 2);
      for (const each of refused()) {
        expect(each.ended()?.code).toBe(8);
        expect(each.ended()?.message).toContain('2 image imports at the controller of');
      }
      const during = await controllerMemory();
      expect(during.programs).toBeLessThanOrEqual(2);
      expect(during.mib - before.mib).toBeLessThan(300);
    } finally {
      over.destroy();
    }
    await eventually('nothing is left of them', 60_000, async () => {
      const { images } = await json<{ images: { meta: { name: string } }[] }>(['image', 'list']);
      return images.every(({ meta }) => !meta.name.startsWith('flood-')) && (await controllerMemory()).programs === 0
        ? true
        : null;
    });
  });
});
