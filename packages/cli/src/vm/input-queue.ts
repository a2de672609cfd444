// SPDX-License-Identifier: Apache-2.0
/**
 * What was typed and not yet sent. It outlives connections: taking can be called off without losing a byte, so that
 * what is typed while a controller dies goes to the next.
 */
export class InputQueue {
  readonly #chunks: Buffer[] = [];
  #bytes = 0;
  #wake: (() => void) | undefined;

  get bytes(): number {
    return this.#bytes;
  }

  push(chunk: Buffer): void {
    if (chunk.length === 0) return;
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    this.#wake?.();
  }

  /** At most `limit` bytes; undefined once the signal is aborted. */
  async take(limit: number, signal: AbortSignal): Promise<Buffer | undefined> {
    while (!signal.aborted) {
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) {
        if (chunk.length > limit) this.#chunks.unshift(chunk.subarray(limit));
        const taken = chunk.subarray(0, limit);
        this.#bytes -= taken.length;
        return taken;
      }
      await new Promise<void>((done) => {
        const wake = () => {
          signal.removeEventListener('abort', wake);
          this.#wake = undefined;
          done();
        };
        this.#wake = wake;
        signal.addEventListener('abort', wake, { once: true });
      });
    }
    return undefined;
  }
}
