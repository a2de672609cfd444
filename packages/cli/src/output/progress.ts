// SPDX-License-Identifier: Apache-2.0
/** One line of progress on stderr: redrawn on a terminal, a line every few seconds in a log. */
import type { Io } from '../cli/io.ts';
import { truncate } from './table.ts';

const REDRAW_MS = 100;
const LOG_EVERY_MS = 3000;

export class ProgressLine {
  readonly #io: Io;
  readonly #redraws: boolean;
  #shown = '';
  #lastMs = Number.NEGATIVE_INFINITY;

  constructor(io: Io) {
    this.#io = io;
    this.#redraws = io.stderr.isTTY === true && io.env['TERM'] !== 'dumb';
  }

  /** Shows the text unless it was shown a moment ago. */
  update(text: string): void {
    const now = performance.now();
    if (text === this.#shown || now - this.#lastMs < (this.#redraws ? REDRAW_MS : LOG_EVERY_MS)) return;
    this.#lastMs = now;
    this.#draw(text);
  }

  /** A line that stays, e.g. a finished step. */
  keep(text: string): void {
    this.clear();
    this.#io.stderr.write(`${text}\n`);
  }

  clear(): void {
    if (this.#redraws && this.#shown !== '') this.#io.stderr.write('\r\u001b[K');
    this.#shown = '';
  }

  #draw(text: string): void {
    this.#shown = text;
    if (this.#redraws) this.#io.stderr.write(`\r\u001b[K${truncate(text, (this.#io.stderr.columns ?? 100) - 1)}`);
    else this.#io.stderr.write(`${text}\n`);
  }
}
