// SPDX-License-Identifier: Apache-2.0
/** The user's side of a console: raw keys on a terminal or bytes from a pipe. Restores the terminal on every exit path. */
import type { Io } from '../cli/io.ts';
import { InputQueue } from './input-queue.ts';

/** Ctrl-], as telnet and virsh do. */
const ESCAPE = 0x1d;
/** Stop reading a pipe while this much waits to be sent. */
const HIGH_WATER_BYTES = 256 * 1024;

export interface Terminal {
  readonly input: InputQueue;
  readonly raw: boolean;
  /** The pipe has ended. */
  readonly ended: boolean;
  /** Call when input was taken. */
  resume(): void;
  restore(): void;
}

export function openTerminal(io: Io, onEscape: () => void): Terminal {
  const { stdin } = io;
  const raw = stdin.isTTY === true && stdin.setRawMode !== undefined;
  const input = new InputQueue();
  let ended = false;
  const onData = (data: Buffer | string) => {
    const bytes = Buffer.from(data as Uint8Array);
    const at = raw ? bytes.indexOf(ESCAPE) : -1;
    input.push(at < 0 ? bytes : bytes.subarray(0, at));
    if (at >= 0) onEscape();
    if (input.bytes > HIGH_WATER_BYTES) stdin.pause();
  };
  const onEnd = () => {
    ended = true;
  };
  let restored = false;
  const restore = () => {
    if (restored) return;
    restored = true;
    process.off('exit', restore);
    stdin.off('data', onData);
    stdin.off('end', onEnd);
    stdin.pause();
    if (raw) stdin.setRawMode?.(false);
  };
  if (raw) stdin.setRawMode?.(true);
  // Also when something calls process.exit or an exception ends the process: a raw shell is worse than any error.
  process.on('exit', restore);
  stdin.on('data', onData);
  stdin.on('end', onEnd);
  stdin.resume();
  return {
    input,
    raw,
    get ended() {
      return ended;
    },
    resume() {
      if (!restored && !ended && input.bytes <= HIGH_WATER_BYTES / 2) stdin.resume();
    },
    restore,
  };
}
