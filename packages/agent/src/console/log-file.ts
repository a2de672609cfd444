// SPDX-License-Identifier: Apache-2.0
import { watch } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Clock } from '@busbar/core/clock/clock';

const CHUNK_BYTES = 64 * 1024;
/** inotify tells of growth at once; this is for what it cannot see (rotation by rename, network file systems). */
const LOOK_AGAIN_MS = 1000;

export interface ReadLogOptions {
  readonly tailBytes: number;
  readonly follow: boolean;
  readonly signal: AbortSignal;
  readonly clock: Clock;
}

/**
 * A log file from `tailBytes` before its end on. With `follow` it goes on until aborted, across a
 * new start (the file is emptied) and virtlogd's rotation (the file is replaced): then it continues
 * at the beginning of the new content. Throws ENOENT when there is no file at the start.
 */
export async function* readLog(path: string, options: ReadLogOptions): AsyncGenerator<Uint8Array, void, void> {
  const { signal } = options;
  if (signal.aborted) return;
  let file = await open(path, 'r');
  const growth = new Growth(path, options);
  try {
    let { size } = await file.stat();
    let position = Math.max(0, size - Math.max(0, options.tailBytes));
    for (;;) {
      const seen = growth.count;
      for (;;) {
        if (signal.aborted) return;
        const chunk = await readAt(file, position);
        if (chunk.length === 0) break;
        position += chunk.length;
        yield chunk;
      }
      if (!options.follow) return;
      ({ size } = await file.stat());
      if (size < position) {
        position = 0;
        continue;
      }
      const replaced = await replacement(path, file);
      if (replaced !== null) {
        await file.close();
        file = replaced;
        position = 0;
        continue;
      }
      await growth.beyond(seen);
    }
  } finally {
    growth.close();
    await file.close();
  }
}

async function readAt(file: FileHandle, position: number): Promise<Uint8Array> {
  const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(CHUNK_BYTES), 0, CHUNK_BYTES, position);
  return buffer.subarray(0, bytesRead);
}

/** The file that took the place of the open one; null while it is the same, or none is there. */
async function replacement(path: string, file: FileHandle): Promise<FileHandle | null> {
  try {
    const [now, mine] = [await stat(path), await file.stat()];
    return now.ino === mine.ino && now.dev === mine.dev ? null : await open(path, 'r');
  } catch {
    return null;
  }
}

/** Counts signs that the file may have changed. */
class Growth {
  count = 0;
  readonly #options: ReadLogOptions;
  readonly #watcher: { close(): void } | null;
  #wake: (() => void) | null = null;
  readonly #onAbort = () => this.#note();

  constructor(path: string, options: ReadLogOptions) {
    this.#options = options;
    options.signal.addEventListener('abort', this.#onAbort, { once: true });
    this.#watcher = options.follow ? watchQuietly(dirname(path), () => this.#note()) : null;
  }

  /** Waits until something was noted after `seen`, or it is time to look again anyway. */
  beyond(seen: number): Promise<void> {
    if (this.count !== seen || this.#options.signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = this.#options.clock.timer(LOOK_AGAIN_MS, () => this.#note());
      this.#wake = () => {
        timer[Symbol.dispose]();
        this.#wake = null;
        resolve();
      };
    });
  }

  close(): void {
    this.#options.signal.removeEventListener('abort', this.#onAbort);
    this.#watcher?.close();
  }

  #note(): void {
    this.count++;
    this.#wake?.();
  }
}

/** The directory, because a file's watch does not follow a rename. */
function watchQuietly(directory: string, onChange: () => void): { close(): void } | null {
  try {
    const watcher = watch(directory, { persistent: false }, onChange);
    watcher.on('error', () => watcher.close());
    return watcher;
  } catch {
    // Out of inotify watches; looking again has to do.
    return null;
  }
}
