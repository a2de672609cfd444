// SPDX-License-Identifier: Apache-2.0
import { z } from 'zod';

const Answer = z.object({ name: z.string(), counter: z.number() });
export type GuestAnswer = z.infer<typeof Answer>;

/** What the guest's disk holds, asked over its network; null while it does not answer. */
export async function guestCounter(address: string): Promise<GuestAnswer | null> {
  try {
    const response = await fetch(`http://${address}/counter`, { signal: AbortSignal.timeout(2_000) });
    return response.ok ? Answer.parse(await response.json()) : null;
  } catch {
    return null;
  }
}

/** Waits for a condition; the last thing seen is part of the error. */
export async function eventually<T>(what: string, timeoutMs: number, look: () => Promise<T | null>): Promise<T> {
  const endMs = performance.now() + timeoutMs;
  for (;;) {
    const seen = await look();
    if (seen !== null) return seen;
    if (performance.now() > endMs) throw new Error(`${what}: not within ${timeoutMs / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}
