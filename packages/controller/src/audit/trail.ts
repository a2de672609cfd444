// SPDX-License-Identifier: Apache-2.0
import { type Clock, sleep } from '@busbar/core/clock/clock';
import type { Logger } from '@busbar/core/log';
import type { Random } from '@busbar/core/random';
import type { AuditRecord } from '@busbar/proto/gen/busbar/v1/audit';
import type { Caller } from '../api/call.ts';
import { putRecord, recordKey } from '../records/kinds.ts';
import type { ClusterStore } from '../store/cluster-store.ts';
import { absent } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';
import { auditRecord, resolved } from './record.ts';

/**
 * Records calls that changed nothing: refused ones, dry runs, opened consoles. (A change carries its record in its own
 * transaction: audit/change.ts.) Nobody waits for it, and whoever makes refusals by the thousand fills neither the store
 * nor this process: of each caller a few are recorded one by one, the rest is counted, and one record a minute tells the count.
 * All of them are in the controller's log as well.
 */
export interface Noted {
  readonly method: string;
  readonly caller: Caller | null;
  /** Of a record that a transaction of unknown outcome carries as well: whichever comes first stays alone. */
  readonly id: string | null;
  readonly details: Pick<AuditRecord, 'target' | 'requestId' | 'validateOnly' | 'reason' | 'message'>;
}

/** What a person does wrong in a sitting. */
const BURST = 20;
/** One more a minute, and one count a minute: 3,000 records a day of a caller that never stops. */
const REFILL_MS = 60_000;
const COUNT_EVERY_MS = 60_000;
/** About 100 KB; while the store is away, the log has the rest. */
const QUEUE_MAX = 200;
/** More identities than a cluster has; beyond it they share one allowance. */
const CALLERS_MAX = 1_000;
const RETRY_MS = 1_000;
const EVERYBODY_ELSE: Caller = { name: 'others', role: 'viewer', certificate: null };

interface Allowance {
  readonly caller: Caller | null;
  left: number;
  refilledMs: number;
  /** Calls that were not recorded one by one and not told of yet. */
  further: number;
}

export interface TrailDeps {
  readonly host: string;
  readonly store: ClusterStore;
  readonly view: ClusterView;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

export class AuditTrail {
  readonly #deps: TrailDeps;
  readonly #allowances = new Map<string, Allowance>();
  readonly #queue: AuditRecord[] = [];
  #countedMs: number;
  #wake = () => {};

  constructor(deps: TrailDeps) {
    this.#deps = deps;
    this.#countedMs = deps.clock.nowMs();
  }

  /** Never waits and never fails. */
  note(noted: Noted): void {
    const allowance = this.#allowance(noted);
    if (allowance.left === 0 || this.#queue.length >= QUEUE_MAX) {
      allowance.further++;
      this.#wake();
      return;
    }
    allowance.left--;
    const { clock, host, random, view } = this.#deps;
    this.#queue.push(
      auditRecord(
        {
          id: noted.id ?? random.uuid(),
          time: clock.wallTime(),
          method: noted.method,
          controller: host,
          ...noted.details,
          target: resolved(view, noted.details.target),
        },
        noted.caller,
      ),
    );
    this.#wake();
  }

  /** Writes what was noted until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#deps;
    const wake = () => this.#wake();
    signal.addEventListener('abort', wake, { once: true });
    while (!signal.aborted) {
      const dueMs = this.#countedMs + COUNT_EVERY_MS - clock.nowMs();
      if (dueMs <= 0 && this.#allowances.size > 0) this.#count();
      // Nobody has used any of theirs: nothing to count, however long that lasts.
      else if (this.#queue.length === 0) await this.#rung(this.#allowances.size > 0 ? dueMs : null);
      const next = this.#queue[0];
      if (next === undefined || signal.aborted) continue;
      try {
        await this.#write(next);
        this.#queue.shift();
      } catch (error) {
        logger.debug({ err: error }, 'audit record of a call that changed nothing waits for the store');
        await sleep(clock, RETRY_MS, signal).catch(() => {});
      }
    }
  }

  /** A repeat after an unknown outcome finds the record there already. */
  async #write(record: AuditRecord): Promise<void> {
    await this.#deps.store.txn({
      compare: [absent(recordKey('audit', record.id))],
      writes: [putRecord('audit', record.id, record)],
    });
  }

  #count(): void {
    const { clock, host, random } = this.#deps;
    this.#countedMs = clock.nowMs();
    for (const [key, allowance] of this.#allowances) {
      refill(allowance, this.#countedMs);
      if (allowance.further === 0) {
        if (allowance.left === BURST) this.#allowances.delete(key);
        continue;
      }
      if (this.#queue.length >= QUEUE_MAX) continue;
      const { further, caller } = allowance;
      allowance.further = 0;
      this.#queue.push(
        auditRecord(
          {
            id: random.uuid(),
            time: clock.wallTime(),
            method: '',
            controller: host,
            reason: 'NOT_RECORDED_SINGLY',
            message: `${further} further calls of ${caller?.name ?? 'nobody'} that changed nothing`,
            furtherCalls: further,
          },
          caller,
        ),
      );
    }
  }

  #allowance({ caller, details }: Noted): Allowance {
    // Refusals must not use up what tells that a console was opened.
    const accepted = details.reason === '' && !details.validateOnly;
    let who = caller;
    const keyOf = () => `${who?.name ?? ''} ${accepted}`;
    if (!this.#allowances.has(keyOf()) && this.#allowances.size >= CALLERS_MAX) who = EVERYBODY_ELSE;
    const nowMs = this.#deps.clock.nowMs();
    const known = this.#allowances.get(keyOf());
    if (known !== undefined) {
      refill(known, nowMs);
      return known;
    }
    const fresh: Allowance = { caller: who, left: BURST, refilledMs: nowMs, further: 0 };
    this.#allowances.set(keyOf(), fresh);
    return fresh;
  }

  async #rung(timeoutMs: number | null): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = timeoutMs === null ? null : this.#deps.clock.timer(timeoutMs, resolve);
      this.#wake = () => {
        timer?.[Symbol.dispose]();
        resolve();
      };
    });
    this.#wake = () => {};
  }
}

function refill(allowance: Allowance, nowMs: number): void {
  const earned = Math.floor((nowMs - allowance.refilledMs) / REFILL_MS);
  if (earned <= 0) return;
  allowance.left = Math.min(BURST, allowance.left + earned);
  allowance.refilledMs += earned * REFILL_MS;
}
