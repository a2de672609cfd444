// SPDX-License-Identifier: Apache-2.0
import { ok, type Result, refuse } from './result.ts';

/**
 * Places for what lasts: streams, waits, imports. Each has a kind, and no kind can use up another's. Within a kind one
 * caller has a share, and roles have levels: a viewer gets a place while fewer than `upTo.viewer` are taken, an
 * operator a few more, an admin the last ones. So who may do less never keeps out who may do more.
 */
export interface PlaceLimits {
  /** A noun in the plural, for people. */
  readonly what: string;
  readonly perCaller: number;
  /** How many may be taken, by whomever, for one more caller of that role to get a place. */
  readonly upTo: Readonly<Record<PlaceRole, number>>;
}

export type PlaceRole = 'viewer' | 'operator' | 'admin';

export interface PlaceCaller {
  /** E.g. "client/anna". */
  readonly name: string;
  readonly role: PlaceRole;
}

export interface PlacesTaken {
  readonly message: string;
  readonly hint: string;
}

/** As many names fit on a line. */
const HOLDERS_TOLD = 5;

export class Places<K extends string> {
  readonly #limits: Readonly<Record<K, PlaceLimits>>;
  /** Who has them, for the message of a refusal. */
  readonly #where: string;
  readonly #taken = new Map<K, Map<string, number>>();

  constructor(where: string, limits: Readonly<Record<K, PlaceLimits>>) {
    this.#where = where;
    this.#limits = limits;
  }

  /** A place until it is disposed of, or why there is none. */
  take(kind: K, caller: PlaceCaller): Result<Disposable, PlacesTaken> {
    const { what, perCaller, upTo } = this.#limits[kind];
    const holders = this.#taken.get(kind) ?? new Map<string, number>();
    const own = holders.get(caller.name) ?? 0;
    if (own >= perCaller) {
      return refuse({
        message: `"${caller.name}" has ${own} ${what} at ${this.#where}, the most that one caller may have`,
        hint: 'end one of them first',
      });
    }
    const taken = this.count(kind);
    if (taken >= upTo[caller.role]) {
      // Who calls is not for everybody to know.
      const who = caller.role === 'viewer' ? '' : ` (${show(holders)})`;
      return refuse({
        message: `${taken} ${what} are at ${this.#where} already${who}; a caller with role ${caller.role} gets no more`,
        hint: caller.role === 'viewer' ? 'try again later' : 'have one of these callers end theirs, or try again later',
      });
    }
    this.#taken.set(kind, holders.set(caller.name, own + 1));
    let held = true;
    return ok({
      [Symbol.dispose]: () => {
        if (!held) return;
        held = false;
        const left = (holders.get(caller.name) ?? 1) - 1;
        if (left > 0) holders.set(caller.name, left);
        else holders.delete(caller.name);
      },
    });
  }

  count(kind: K): number {
    let sum = 0;
    for (const own of this.#taken.get(kind)?.values() ?? []) sum += own;
    return sum;
  }
}

function show(holders: ReadonlyMap<string, number>): string {
  const most = [...holders].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1));
  const told = most.slice(0, HOLDERS_TOLD).map(([name, count]) => `${name} ${count}`);
  return most.length > HOLDERS_TOLD ? `${told.join(', ')} and ${most.length - HOLDERS_TOLD} more` : told.join(', ');
}
