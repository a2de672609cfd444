// SPDX-License-Identifier: Apache-2.0
import { randomUUID } from 'node:crypto';

/** The only door to chance, so that a whole cluster can be replayed from one seed. */
export interface Random {
  /** Uniform in [0, 1). */
  next(): number;
  /** Lower-case version 4 UUID. */
  uuid(): string;
}

export const systemRandom: Random = { next: () => Math.random(), uuid: () => randomUUID() };

/** mulberry32 (public domain, T. Ettinger): small, fast, and good enough to vary tests; never for secrets. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const uuid = () => {
    const hex = Array.from({ length: 32 }, () => Math.floor(next() * 16).toString(16));
    hex[12] = '4';
    hex[16] = '89ab'.charAt(Math.floor(next() * 4));
    const s = hex.join('');
    return `${s.slice(0, 8)}-${s.slice(8, 12)}-${s.slice(12, 16)}-${s.slice(16, 20)}-${s.slice(20)}`;
  };
  return { next, uuid };
}
