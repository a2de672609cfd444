// SPDX-License-Identifier: Apache-2.0
import { type PlaceLimits, type PlaceRole, Places } from '@busbar/core/places';

/**
 * What this host serves at a time, through all controllers together. A console is a person at a screen and costs a
 * connection to QEMU and a stream; a log costs a file and a stream. 48 of them are some 10 MB. One caller's eight are as
 * many as fit on screens; the places above a role's level are kept for those who can do more.
 */
const LIMITS = {
  console: { what: 'consoles', perCaller: 8, upTo: { viewer: 0, operator: 14, admin: 16 } },
  log: { what: 'logs', perCaller: 8, upTo: { viewer: 24, operator: 30, admin: 32 } },
} as const satisfies Record<string, PlaceLimits>;

export type AttachPlaces = Places<keyof typeof LIMITS>;

export function attachPlaces(): AttachPlaces {
  return new Places('this host', LIMITS);
}

/** A controller that is older than this agent does not say who asks: its callers are one, with the commonest role. */
export function placeRole(word: string): PlaceRole {
  return word === 'viewer' || word === 'admin' ? word : 'operator';
}
