// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { harmless } from './log.ts';

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString('latin1');

describe('a log on a terminal', () => {
  it('shows text, tabs and line ends as they are', () => {
    const printed = 'relay\t1 µA\r\nok\n';
    expect(Buffer.from(harmless(Buffer.from(printed))).toString()).toBe(printed);
  });

  it('does not let a guest move the cursor, set the clipboard or send a C1 control', () => {
    expect(text(harmless(Buffer.from('\u001b[2J\u001b]52;c;AAAA\u0007\u007f')))).toBe('.[2J.]52;c;AAAA..');
    expect(harmless(Buffer.from('\u009b2J'))).not.toContain(0x9b);
  });

  it('keeps every length and lets no ESC through, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const shown = harmless(bytes);
        expect(shown).toHaveLength(bytes.length);
        expect(shown.some((byte) => byte === 0x1b || byte === 0x7f || byte === 0x00)).toBe(false);
      }),
    );
  });
});
