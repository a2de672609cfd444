// SPDX-License-Identifier: Apache-2.0
import { createConnection, type Socket } from 'node:net';
import type { Clock } from '@busbar/core/clock/clock';
import { FanOut, type Reader } from './fan-out.ts';

/** A local socket answers at once or never. */
const CONNECT_DEADLINE_MS = 2000;
/** A guest that does not read its serial line stops taking input; a person sees that as an error. */
const WRITE_DEADLINE_MS = 5000;

/**
 * The serial line of one domain: QEMU's socket takes one client, so all consoles share one
 * connection. It is made for the first reader and dropped after the last.
 */
class SerialLine {
  readonly #socket: Socket;
  readonly #fanOut: FanOut;
  readonly #clock: Clock;

  constructor(socket: Socket, clock: Clock, tooSlow: () => Error, onEnd: () => void) {
    this.#socket = socket;
    this.#clock = clock;
    this.#fanOut = new FanOut(tooSlow);
    socket.on('data', (chunk: Buffer) => this.#fanOut.publish(chunk));
    // An error is always followed by close, and both mean that QEMU or its side is gone.
    socket.on('error', () => {});
    socket.on('close', () => {
      onEnd();
      this.#fanOut.end();
    });
  }

  join(signal: AbortSignal): Reader {
    return this.#fanOut.subscribe(signal, () => {
      if (this.#fanOut.readers === 0) this.#socket.destroy();
    });
  }

  write(input: Uint8Array, unavailable: (why: string) => Error): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = this.#clock.timer(WRITE_DEADLINE_MS, () => {
        reject(unavailable('the guest does not read its input'));
        // Else the input that waits would be typed whenever the guest wakes up.
        this.#socket.destroy();
      });
      this.#socket.write(input, (error) => {
        timer[Symbol.dispose]();
        if (error) reject(unavailable('the domain ended'));
        else resolve();
      });
    });
  }

  close(): void {
    this.#socket.destroy();
  }
}

export interface OpenLine {
  readonly reader: Reader;
  write(input: Uint8Array): Promise<void>;
}

/** All serial lines that somebody reads, by the path of their socket. */
export class SerialLines {
  readonly #clock: Clock;
  readonly #lines = new Map<string, Promise<SerialLine>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Rejects with Node's own error when nobody listens on the socket. */
  async open(path: string, signal: AbortSignal, unavailable: (why: string) => Error): Promise<OpenLine> {
    let opening = this.#lines.get(path);
    if (opening === undefined) {
      opening = this.#connect(path, unavailable);
      this.#lines.set(path, opening);
    }
    const line = await opening;
    const reader = line.join(signal);
    return { reader, write: (input) => line.write(input, unavailable) };
  }

  async close(): Promise<void> {
    const lines = await Promise.allSettled(this.#lines.values());
    for (const line of lines) if (line.status === 'fulfilled') line.value.close();
  }

  #connect(path: string, unavailable: (why: string) => Error): Promise<SerialLine> {
    return new Promise((resolve, reject) => {
      const forget = () => this.#lines.delete(path);
      const socket = createConnection(path);
      const fail = (error: Error) => {
        timer[Symbol.dispose]();
        forget();
        socket.destroy();
        reject(error);
      };
      const timer = this.#clock.timer(CONNECT_DEADLINE_MS, () => fail(unavailable('its socket does not answer')));
      socket.once('error', fail);
      socket.once('connect', () => {
        timer[Symbol.dispose]();
        socket.off('error', fail);
        resolve(new SerialLine(socket, this.#clock, () => unavailable('the reader was too slow'), forget));
      });
    });
  }
}
