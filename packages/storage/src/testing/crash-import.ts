// SPDX-License-Identifier: Apache-2.0
/**
 * A process that dies in the middle of an import. `node crash-import.ts CONFIG_JSON IMAGE_ID` sends a
 * part of an image, says "stalled" and waits to be killed.
 */

import { spawn } from 'node:child_process';
import type { ImageId } from '@busbar/core/ids';
import { openStorage } from '../open.ts';
import { MIB, noise, stallAfter } from './streams.ts';

if (process.argv[1] === import.meta.filename) {
  const [config = '', imageId = ''] = process.argv.slice(2);
  const driver = openStorage(JSON.parse(config), { anyMount: true });
  await driver.importImage({
    imageId: imageId as ImageId,
    format: 'raw',
    sizeBytes: BigInt(64 * MIB),
    sha256: null,
    source: stallAfter(noise(12 * MIB, 1), () => console.log('stalled')),
    signal: new AbortController().signal,
  });
}

/** Resolves when an import by another process was killed in its middle. */
export async function crashMidImport(config: object, imageId: ImageId): Promise<void> {
  const child = spawn(process.execPath, [import.meta.filename, JSON.stringify(config), imageId], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { PATH: process.env.PATH },
    timeout: 30_000,
    killSignal: 'SIGKILL',
  });
  const exited = new Promise((resolve) => child.once('exit', resolve));
  await Promise.race([new Promise((resolve) => child.stdout.once('data', resolve)), exited]);
  if (child.exitCode !== null) throw new Error(`the import ended with ${child.exitCode} before it could be killed`);
  child.kill('SIGKILL');
  await exited;
}
