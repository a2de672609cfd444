// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type PlaceCaller, type PlaceRole, Places } from './places.ts';
import { numRuns } from './testing/runs.fixture.ts';

const LIMITS = {
  console: { what: 'consoles', perCaller: 3, upTo: { viewer: 0, operator: 5, admin: 6 } },
  log: { what: 'logs', perCaller: 3, upTo: { viewer: 4, operator: 7, admin: 8 } },
};
const as = (role: PlaceRole, name = `client/${role}`): PlaceCaller => ({ role, name });

describe('places', () => {
  it('of one kind are none of another: however many logs there are, a console finds its place', () => {
    const places = new Places('host1', LIMITS);
    for (let n = 0; n < 20; n++) places.take('log', as('viewer', `client/viewer${n}`));
    for (let n = 0; n < 20; n++) places.take('log', as('admin', `client/admin${n}`));
    expect(places.count('log')).toBe(8);
    expect(places.take('console', as('operator')).ok).toBe(true);
  });

  it('of one caller are a share, which is told', () => {
    const places = new Places('host1', LIMITS);
    for (let n = 0; n < 3; n++) expect(places.take('log', as('viewer')).ok).toBe(true);
    expect(places.take('log', as('viewer'))).toMatchObject({
      ok: false,
      error: { message: '"client/viewer" has 3 logs at host1, the most that one caller may have' },
    });
    expect(places.take('log', as('viewer', 'client/other')).ok).toBe(true);
  });

  it('are kept back from lower roles, and higher ones are told who holds them', () => {
    const places = new Places('host1', LIMITS);
    for (let n = 0; n < 9; n++) places.take('log', as('viewer', `client/v${n % 2}`));
    const viewer = places.take('log', as('viewer', 'client/v3'));
    expect(viewer).toMatchObject({
      error: { message: '4 logs are at host1 already; a caller with role viewer gets no more' },
    });
    for (let n = 0; n < 9; n++) places.take('log', as('operator', `client/o${n % 2}`));
    expect(places.take('log', as('operator', 'client/o3'))).toMatchObject({
      error: {
        message:
          '7 logs are at host1 already (client/o0 2, client/v0 2, client/v1 2, client/o1 1); a caller with role operator gets no more',
      },
    });
    expect(places.take('log', as('admin')).ok).toBe(true);
  });

  it('name five holders at most', () => {
    const places = new Places('host1', {
      log: { what: 'logs', perCaller: 1, upTo: { viewer: 0, operator: 7, admin: 8 } },
    });
    for (let n = 0; n < 7; n++) places.take('log', as('operator', `client/o${n}`));
    expect(places.take('log', as('operator'))).toMatchObject({
      error: { message: expect.stringMatching(/client\/o4 1 and 2 more\)/) },
    });
  });

  it('that are given back twice are given back once', () => {
    const places = new Places('host1', LIMITS);
    const first = places.take('log', as('viewer'));
    places.take('log', as('viewer'));
    if (!first.ok) throw new Error('no place');
    first.value[Symbol.dispose]();
    first.value[Symbol.dispose]();
    expect(places.count('log')).toBe(1);
  });

  it('are never more than the limits say, and all free in the end, whoever takes and gives back in which order', () => {
    const step = fc.record({
      kind: fc.constantFrom('console' as const, 'log' as const),
      role: fc.constantFrom<PlaceRole>('viewer', 'operator', 'admin'),
      name: fc.nat(4),
      giveBack: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
        const places = new Places('host1', LIMITS);
        const held: { kind: 'console' | 'log'; name: string; place: Disposable }[] = [];
        for (const { kind, role, name, giveBack } of steps) {
          if (giveBack) {
            held.shift()?.place[Symbol.dispose]();
            continue;
          }
          const caller = as(role, `client/${name}`);
          const own = held.filter((each) => each.kind === kind && each.name === caller.name).length;
          const may = own < LIMITS[kind].perCaller && places.count(kind) < LIMITS[kind].upTo[role];
          const place = places.take(kind, caller);
          expect(place.ok).toBe(may);
          if (place.ok) held.push({ kind, name: caller.name, place: place.value });
          expect(places.count(kind)).toBe(held.filter((each) => each.kind === kind).length);
        }
        for (const { place } of held) place[Symbol.dispose]();
        expect(places.count('console') + places.count('log')).toBe(0);
      }),
      { numRuns: numRuns(200) },
    );
  });
});
