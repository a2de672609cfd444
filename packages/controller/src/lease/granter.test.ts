// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { type Boot, certainEndMs, GONE_AFTER_MS, Granter } from './granter.ts';

const TTL_MS = 2_500;
const END_MS = certainEndMs(TTL_MS);
const A: Boot = { bootId: 'a', address: '10.0.0.2' };
const B: Boot = { bootId: 'b', address: '10.0.0.9' };
/** Started long ago. */
const old = () => new Granter({ startedAtMs: -1_000_000, leaseTtlMs: TTL_MS });

describe('a granter', () => {
  it('grants one boot, and another when the lease of the first has certainly ended', () => {
    const granter = old();
    expect(granter.hear('h', A, 0)).toEqual({ kind: 'granted' });
    expect(granter.hear('h', B, 1)).toEqual({ kind: 'refused', admitted: A, untilMs: END_MS });
    expect(granter.hear('h', B, END_MS - 0.001)).toMatchObject({ kind: 'refused' });
    expect(granter.admitted('h')).toEqual(A);
    expect(granter.hear('h', B, END_MS)).toEqual({ kind: 'granted' });
    expect(granter.hear('h', A, END_MS + 1)).toEqual({ kind: 'refused', admitted: B, untilMs: END_MS * 2 });
    // Who asks and is refused gains nothing.
    for (let at = END_MS; at < END_MS + 2_000; at += 100) granter.hear('h', A, at);
    expect(granter.hear('h', A, END_MS * 2)).toEqual({ kind: 'granted' });
  });

  it('tells hosts apart', () => {
    const granter = old();
    expect(granter.hear('h', A, 0).kind).toBe('granted');
    expect(granter.hear('i', B, 0).kind).toBe('granted');
  });

  it('takes one boot id at two addresses for two machines', () => {
    const granter = old();
    granter.hear('h', A, 0);
    expect(granter.hear('h', { ...A, address: '10.0.0.3' }, 100).kind).toBe('refused');
  });

  it('that was just started grants nothing until all that its former self granted has ended, and admits the first', () => {
    const granter = new Granter({ startedAtMs: 100, leaseTtlMs: TTL_MS });
    const opensAtMs = 100 + END_MS;
    expect(granter.hear('h', A, 101)).toEqual({ kind: 'waits', untilMs: opensAtMs });
    expect(granter.hear('h', B, 102).kind).toBe('refused');
    expect(granter.hear('h', A, opensAtMs - 0.001).kind).toBe('waits');
    expect(granter.hear('h', A, opensAtMs)).toEqual({ kind: 'granted' });
  });

  it('says that two are there when each is heard after the other, and until one was silent for a minute', () => {
    const granter = old();
    for (let at = 0; at < 10_000; at += 250) {
      granter.hear('h', A, at);
      if (at >= 5_000) granter.hear('h', B, at + 1);
      expect(granter.beside('h', at + 1).length).toBe(at < 7_750 ? 0 : 2);
    }
    expect(granter.beside('h', 10_000)).toEqual([A, B]);
    for (let at = 10_000; at < 100_000; at += 250) {
      granter.hear('h', A, at);
      // Last heard at 9,751.
      expect(granter.beside('h', at).length).toBe(at - 9_751 < GONE_AFTER_MS ? 2 : 0);
    }
    expect(granter.beside('other', 0)).toEqual([]);
  });

  it('does not take for two: a host that boots anew, one that changes its address, news of both in one moment', () => {
    const granter = old();
    for (let at = 0; at <= 5_000; at += 250) granter.hear('h', A, at);
    // This process stood still: what both said meanwhile is read in any order.
    for (const boot of [B, A, B, A]) granter.hear('h', boot, 9_000);
    for (let at = 9_000; at < 80_000; at += 250) {
      granter.hear('h', B, at);
      expect(granter.beside('h', at)).toEqual([]);
    }
    granter.hear('h', { ...B, address: '10.0.0.5' }, 81_000);
    expect(granter.beside('h', 81_000)).toEqual([]);
  });

  it('remembers a bounded number of boots', () => {
    const granter = old();
    for (let i = 0; i < 1_000; i++) granter.hear('h', { ...A, bootId: `b${i}` }, i * 10);
    for (let at = 10_000; at < 20_000; at += 250) for (const boot of [A, B]) granter.hear('h', boot, at);
    expect(granter.beside('h', 20_000)).toEqual([A, B]);
  });
});
