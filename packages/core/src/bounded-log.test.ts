// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { type BoundedLog, boundedLog, MANY } from './bounded-log.ts';
import { VirtualClock } from './clock/virtual.ts';

/** Goal: nobody writes the log by the thousand, and nothing that happened is told of not at all. */
let clock: VirtualClock;
let lines: { level: string; fields: Record<string, unknown>; message: string }[];
let log: BoundedLog;
beforeEach(() => {
  clock = new VirtualClock();
  lines = [];
  const write = (level: string) => (fields: object, message: string) =>
    void lines.push({ level, fields: fields as Record<string, unknown>, message });
  log = boundedLog({
    clock,
    logger: { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') },
  });
});
const refused = (address: string) =>
  log.write('warn', { kind: 'refused', name: address, fields: { address } }, { address, result: 'NO' }, 'refused');
const counted = () => lines.reduce((sum, { fields }) => sum + ((fields.further as number | undefined) ?? 1), 0);

describe('lines that somebody elsewhere causes', () => {
  it('are told singly at first, then as a count a minute, and the others’ as before', async () => {
    for (let i = 0; i < 9_066; i++) refused('10.77.2.9');
    refused('10.77.2.10');
    expect(lines).toHaveLength(21);
    expect(lines.at(-1)?.fields).toEqual({ address: '10.77.2.10', result: 'NO' });
    await clock.advance(60_000);
    expect(lines.slice(21)).toEqual([
      {
        level: 'warn',
        fields: { address: '10.77.2.9', kind: 'refused', further: 9_046 },
        message: 'further lines of this kind are left out',
      },
    ]);
    await clock.advance(600_000);
    expect(lines).toHaveLength(22);
  });

  it('of one kind do not use up what another may say', () => {
    for (let i = 0; i < 100; i++) refused('client/anna');
    log.write('info', { kind: 'changed', name: 'client/anna', allowance: MANY, fields: {} }, {}, 'changed');
    expect(lines.at(-1)?.message).toBe('changed');
  });

  it('of a whole network of addresses are bounded, and all counted', async () => {
    for (let i = 0; i < 5_000; i++) refused(`fe80::${i.toString(16)}`);
    await clock.advance(60_000);
    expect(lines.length).toBeLessThanOrEqual(64 * 20 + 65);
    expect(lines.at(-1)?.fields).toMatchObject({ source: 'others' });
    expect(counted()).toBe(5_000);
  });

  it('are never more than the allowance, and never fewer than happened, in whatever order', async () => {
    const step = fc.tuple(fc.integer({ min: 0, max: 80 }), fc.integer({ min: 0, max: 400 }), fc.nat(90_000));
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
        lines = [];
        clock = new VirtualClock();
        log = boundedLog({
          clock,
          logger: {
            debug() {},
            info() {},
            error() {},
            warn: (fields, message) =>
              void lines.push({ level: 'warn', fields: fields as Record<string, unknown>, message }),
          },
        });
        let sent = 0;
        for (const [who, times, pauseMs] of steps) {
          for (let i = 0; i < times; i++) refused(`a${who}`);
          sent += times;
          await clock.advance(pauseMs);
        }
        await clock.advance(60_000);
        expect(counted()).toBe(sent);
        const minutes = clock.nowMs() / 60_000 + 1;
        const sources = new Set(steps.map(([who]) => who)).size;
        expect(lines.length).toBeLessThanOrEqual(Math.min(64, sources) * (20 + 2 * minutes) + 20 + 2 * minutes);
      }),
      { numRuns: 50 },
    );
  });
});
