// SPDX-License-Identifier: Apache-2.0
import { type Clock, systemClock } from '@busbar/core/clock/clock';
import { describe, expect, it } from 'vitest';
import { Bells } from './bells.ts';

/** Turns of the event loop are taken when the test says so. */
function handTurned() {
  const waiting: (() => void)[] = [];
  const clock: Clock = { ...systemClock, turn: () => new Promise((resolve) => waiting.push(resolve)) };
  const turn = async () => {
    for (const go of waiting.splice(0)) go();
    await Promise.resolve();
  };
  return { bells: new Bells(clock), turn, isWaiting: () => waiting.length > 0 };
}

describe('bells', () => {
  it('ring for a few at once, and for a hundred at a time', async () => {
    const { bells, turn, isWaiting } = handTurned();
    const rung: number[] = [];
    const all = Array.from({ length: 250 }, (_, i) => bells.add('', () => rung.push(i)));
    bells.ring();
    expect(rung.length).toBe(100);
    await turn();
    expect(rung.length).toBe(200);
    // Who leaves while waiting is not rung for.
    all[249]?.[Symbol.dispose]();
    await turn();
    expect(rung).toEqual(Array.from({ length: 249 }, (_, i) => i));
    expect(isWaiting()).toBe(false);
  });

  it('of one connection ring one after the other', () => {
    const { bells } = handTurned();
    const rung: number[] = [];
    const all = Array.from({ length: 9 }, (_, i) => bells.add(`10.0.0.${i % 3}`, () => rung.push(i)));
    bells.ring();
    expect(rung).toEqual([0, 3, 6, 1, 4, 7, 2, 5, 8]);
    for (const each of all.slice(0, 7)) each[Symbol.dispose]();
    bells.ring();
    expect(rung.slice(9)).toEqual([7, 8]);
  });

  it('that are rung again meanwhile ring for everybody once more', async () => {
    const { bells, turn, isWaiting } = handTurned();
    const rung = new Map<number, number>();
    for (let i = 0; i < 150; i++) bells.add('', () => rung.set(i, (rung.get(i) ?? 0) + 1));
    bells.ring();
    bells.ring();
    bells.ring();
    while (isWaiting()) await turn();
    expect([rung.size, ...new Set(rung.values())]).toEqual([150, 2]);
  });
});
