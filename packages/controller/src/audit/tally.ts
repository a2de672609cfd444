// SPDX-License-Identifier: Apache-2.0
import type { AuditRecord } from '@busbar/proto/gen/busbar/v1/audit';
import { AUDIT_SORTS, type AuditSort, sortOf } from './policy.ts';

/** Records of one sort, by caller; of each caller in the order in which they came. */
interface Counted {
  total: number;
  readonly byCaller: Map<string, Map<string, number>>;
}

/**
 * How many records there are, of whom, from when. Kept up to date record by record from their text (7 µs each), since
 * reading all of them whenever somebody asks would hold up the controller for a third of a second.
 */
export class AuditTally {
  readonly #sorts = new Map<AuditSort, Counted>(AUDIT_SORTS.map((sort) => [sort, { total: 0, byCaller: new Map() }]));
  readonly #places = new Map<string, { readonly sort: AuditSort; readonly caller: string }>();

  put(id: string, text: string): void {
    if (this.#places.has(id)) return;
    const { sort, caller, timeMs } = headOf(text);
    const counted = this.#of(sort);
    counted.total++;
    const own = counted.byCaller.get(caller) ?? new Map<string, number>();
    counted.byCaller.set(caller, own);
    own.set(id, timeMs);
    this.#places.set(id, { sort, caller });
  }

  delete(id: string): void {
    const place = this.#places.get(id);
    if (place === undefined) return;
    this.#places.delete(id);
    const counted = this.#of(place.sort);
    counted.total--;
    const own = counted.byCaller.get(place.caller);
    own?.delete(id);
    if (own?.size === 0) counted.byCaller.delete(place.caller);
  }

  total(sort: AuditSort): number {
    return this.#of(sort).total;
  }

  of(sort: AuditSort, caller: string): number {
    return this.#of(sort).byCaller.get(caller)?.size ?? 0;
  }

  /** The caller with the most records of a sort; null when there are none. */
  busiest(sort: AuditSort): { readonly caller: string; readonly count: number } | null {
    let found: { caller: string; count: number } | null = null;
    for (const [caller, own] of this.#of(sort).byCaller)
      if (own.size > (found?.count ?? 0)) found = { caller, count: own.size };
    return found;
  }

  /** Ids and times of a sort's records, of each caller oldest first. */
  callers(sort: AuditSort): ReadonlyMap<string, ReadonlyMap<string, number>> {
    return this.#of(sort).byCaller;
  }

  #of(sort: AuditSort): Counted {
    const counted = this.#sorts.get(sort);
    if (counted === undefined) throw new Error(`no sort ${sort}`);
    return counted;
  }
}

/** Defaults are left out of the stored text. What this version cannot read is kept for ever: it may be a later one's. */
function headOf(text: string): { readonly sort: AuditSort; readonly caller: string; readonly timeMs: number } {
  try {
    const { caller = '', time, ...rest } = JSON.parse(text) as Partial<Omit<AuditRecord, 'time'>> & { time?: string };
    const { changed = false, reason = '', validateOnly = false, streamBeginId = '' } = rest;
    const sort = sortOf({ changed, reason, validateOnly, streamBeginId });
    return { sort, caller, timeMs: new Date(time ?? Number.NaN).getTime() };
  } catch {
    return { sort: 'changes', caller: '', timeMs: Number.NaN };
  }
}
