// SPDX-License-Identifier: Apache-2.0
import type { Limits } from './limits.ts';

/** What a scan found, in the words of a violation. */
export interface Excess {
  readonly field: string;
  readonly problem: string;
  readonly expected: string;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const OPEN_LIST = 0x5b;
const CLOSE_LIST = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;

/**
 * Counts what JSON.parse would make of a body, without making anything: members and elements, and how deep they are. Whether it is
 * JSON is not its question; of what is JSON it never counts more than there is. UTF-8 keeps the bytes of ASCII to itself.
 */
export function scanJson(
  body: Uint8Array,
  { valuesMax, depthMax }: Pick<Limits, 'valuesMax' | 'depthMax'>,
): Excess | null {
  let values = 0;
  let depth = 0;
  for (let at = 0; at < body.length; at++) {
    switch (body[at] ?? 0) {
      case QUOTE:
        for (at++; at < body.length && body[at] !== QUOTE; at++) if (body[at] === BACKSLASH) at++;
        break;
      case OPEN_LIST:
      case OPEN_OBJECT:
        if (++depth > depthMax) return tooDeep(depthMax);
        if (++values > valuesMax) return tooMany(valuesMax);
        break;
      case CLOSE_LIST:
      case CLOSE_OBJECT:
        depth--;
        break;
      case COMMA:
        if (++values > valuesMax) return tooMany(valuesMax);
    }
  }
  return null;
}

export function tooMany(valuesMax: number): Excess {
  return {
    field: 'the request',
    problem: `has more than ${valuesMax} fields and elements`,
    expected: 'as many as its longest lists allow',
  };
}

export function tooDeep(depthMax: number): Excess {
  return {
    field: 'the request',
    problem: `is nested more than ${depthMax} levels deep`,
    expected: 'the levels that its message has',
  };
}

/** Generated code and JSON libraries alike assign it, and a JavaScript object drops such a key without a word. */
export function prototypeKey(field: string): Excess {
  return { field, problem: 'has the key "__proto__"', expected: 'another key, JavaScript keeps this one to itself' };
}
