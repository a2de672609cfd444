// SPDX-License-Identifier: Apache-2.0
import { Allowances } from '@busbar/core/allowances';
import type { Clock } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import { isEssential } from '../api/essential.ts';
import type { Write } from '../store/cluster-store.ts';
import type { ClusterView } from '../view/view.ts';
import { AUDIT_SORTS, type AuditPolicy, type AuditSort, NEARLY_FULL, roomFor, shareAt } from './policy.ts';
import { expiredAuditRecords } from './retention.ts';
import { AuditTally } from './tally.ts';

/**
 * Of what is done to save a plant, by a caller who has used up his share: some at once, then one every ten minutes on each
 * controller. Somebody who never stops adds 39,000 records in 90 days with all three: as much as there is room for anyway.
 */
const ESSENTIAL_BURST = 20;
const ESSENTIAL_REFILL_MS = 600_000;
/** More identities than a cluster has. */
const CALLERS_MAX = 1_000;

/** How full the places for one sort of records are. */
export interface Fill {
  readonly sort: AuditSort;
  readonly used: number;
  readonly room: number;
  readonly busiest: { readonly caller: string; readonly count: number } | null;
}

/**
 * The room for audit records: nobody's record makes place for another's, so whoever fills it is held back, and others go on.
 * What is decided on is the view: controllers that lag a little let in a few records more.
 */
export class AuditRoom {
  readonly #policy: AuditPolicy;
  readonly #clock: Clock;
  readonly #tally = new AuditTally();
  readonly #essential = new Allowances<null>({
    burst: ESSENTIAL_BURST,
    refillMs: ESSENTIAL_REFILL_MS,
    sourcesMax: CALLERS_MAX,
    others: null,
  });

  constructor(deps: { readonly view: ClusterView; readonly policy: AuditPolicy; readonly clock: Clock }) {
    this.#policy = deps.policy;
    this.#clock = deps.clock;
    deps.view.tables.audit.observe({
      put: (id, text) => this.#tally.put(id, text),
      delete: (id) => this.#tally.delete(id),
    });
  }

  /** Lets a call begin that would be recorded as a change or a console, or refuses it. */
  admit(caller: string, method: string): void {
    const sort = method.endsWith('/OpenConsole') ? 'consoles' : 'changes';
    if (this.mayTake(sort, caller)) return;
    const nowMs = this.#clock.nowMs();
    // Forgets whoever has waited long enough; the count itself is of no use here.
    this.#essential.countOut(nowMs, () => true);
    if (isEssential(method) && this.#essential.take(caller, null, nowMs)) return;
    const { used, room } = this.#fillOf(sort);
    throw new BusbarError({
      kind: 'exhausted',
      reason: 'AUDIT_FULL',
      message: `${used} of ${room} places for audit records of ${sort} are taken, ${this.#tally.of(sort, caller)} of them by "${caller}"; none of them may go for ${this.#policy.keepDays} days`,
      hint: isEssential(method)
        ? 'calls that save a plant go on, for this caller one every ten minutes; others are not held back'
        : 'have an administrator raise audit.records in the file of each controller, or lower audit.keepDays if an archive has the records; others are not held back',
    });
  }

  /** Whether a caller is within his share, which is the smaller the fuller it is. */
  mayTake(sort: AuditSort, caller: string): boolean {
    const { used, room } = this.#fillOf(sort);
    const filled = used / room;
    return filled < NEARLY_FULL || this.#tally.of(sort, caller) < Math.floor(shareAt(filled) * room);
  }

  fill(): readonly Fill[] {
    return AUDIT_SORTS.map((sort) => ({ ...this.#fillOf(sort), busiest: this.#tally.busiest(sort) }));
  }

  /** For the clean-up of the leader. */
  expired(): readonly Write[] {
    return expiredAuditRecords(this.#tally, this.#policy, this.#clock.wallTime());
  }

  #fillOf(sort: AuditSort): Omit<Fill, 'busiest'> {
    return { sort, used: this.#tally.total(sort), room: roomFor(this.#policy, sort) };
  }
}
