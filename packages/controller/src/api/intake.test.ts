// SPDX-License-Identifier: Apache-2.0
import { VirtualClock } from '@busbar/core/clock/virtual';
import { describe, expect, it } from 'vitest';
import { newIntake, READ_AT_ONCE, READ_DEADLINE_MS } from './intake.ts';

function setUp() {
  const clock = new VirtualClock();
  const intake = newIntake(clock);
  const begun: string[] = [];
  const slow: string[] = [];
  const enter = (name: string, address = 'a') =>
    intake.enter(
      address,
      () => begun.push(name),
      (error) => slow.push(`${name} ${error.reason}`),
    );
  return { clock, begun, slow, enter };
}

describe('the intake', () => {
  it('reads so many of one address, and the next when one is there', () => {
    const { begun, enter } = setUp();
    const leave = Array.from({ length: READ_AT_ONCE }, (_, i) => enter(String(i)));
    enter('x');
    enter('y');
    expect(begun).toHaveLength(READ_AT_ONCE);
    leave[3]?.();
    leave[3]?.();
    expect(begun.slice(READ_AT_ONCE)).toEqual(['x']);
  });

  it('lets nobody wait for another address', () => {
    const { begun, enter } = setUp();
    for (let i = 0; i < 100; i++) enter(String(i));
    enter('other', 'b');
    expect(begun.at(-1)).toBe('other');
  });

  it('gives up on whoever is too slow, and goes on with those who wait', async () => {
    const { clock, begun, slow, enter } = setUp();
    for (let i = 0; i < READ_AT_ONCE; i++) enter('slow');
    const leave = enter('quick');
    await clock.advance(READ_DEADLINE_MS - 1);
    expect([begun.length, slow.length]).toEqual([READ_AT_ONCE, 0]);
    await clock.advance(1);
    expect(slow).toEqual(Array.from({ length: READ_AT_ONCE }, () => 'slow REQUEST_TOO_SLOW'));
    expect(begun.at(-1)).toBe('quick');
    leave();
    await clock.advance(READ_DEADLINE_MS * 2);
    expect(slow).toHaveLength(READ_AT_ONCE);
  });

  it('forgets who hung up while waiting', () => {
    const { begun, enter } = setUp();
    const leave = Array.from({ length: READ_AT_ONCE }, () => enter('first'));
    enter('gone')();
    enter('there');
    leave[0]?.();
    expect(begun.at(-1)).toBe('there');
    expect(begun).not.toContain('gone');
  });
});
