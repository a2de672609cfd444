// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import { type PlaceLimits, Places } from '@busbar/core/places';
import type { Caller } from './call.ts';

/**
 * What lasts has a place, of its kind, at this controller. The hosts of consoles and logs have places of their own
 * beside these (agent/src/attach/places.ts): several controllers ask them, and they know what the guests' host can bear.
 */
export const API_PLACES = {
  /** A call holds up to 4 MiB of an unfinished message (ADR 0029): 64 of them are 256 MiB at the worst. */
  console: { what: 'consoles', perCaller: 16, upTo: { viewer: 0, operator: 60, admin: 64 } },
  /** As for consoles; nothing comes from the caller. */
  log: { what: 'logs', perCaller: 16, upTo: { viewer: 48, operator: 60, admin: 64 } },
  /**
   * A program has one for each kind of resource, a person one for each tab and kind. Each change wakes all: of 500
   * watchers the last one has it after some 20 ms (docs/benchmarks.md).
   */
  watch: { what: 'watches', perCaller: 1_000, upTo: { viewer: 3_000, operator: 3_800, admin: 4_000 } },
  /** A playbook waits for one operation of each of its VMs. Each is looked at whenever anything changes. */
  wait: { what: 'waiting calls', perCaller: 500, upTo: { viewer: 1_500, operator: 1_900, admin: 2_000 } },
  /** 35 MB of memory each, an `rbd` program of its own included; four make a disk or a network busy. */
  import: { what: 'image imports', perCaller: 2, upTo: { viewer: 0, operator: 3, admin: 4 } },
} as const satisfies Record<string, PlaceLimits>;

export type PlaceKind = keyof typeof API_PLACES;
export type ApiPlaces = Places<PlaceKind>;

export function apiPlaces(host: string): ApiPlaces {
  return new Places(`the controller of ${host}`, API_PLACES);
}

/** Throws PLACES_TAKEN. Hosts and controllers, which have no role, call the API for renewals alone. */
export function takePlace<K extends string>(
  places: Places<K>,
  kind: K,
  caller: Pick<Caller, 'name' | 'role'>,
): Disposable {
  const { name, role } = caller;
  const place = places.take(kind, { name, role: role ?? 'viewer' });
  if (place.ok) return place.value;
  throw new BusbarError({ kind: 'exhausted', reason: 'PLACES_TAKEN', ...place.error });
}
