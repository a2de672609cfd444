// SPDX-License-Identifier: Apache-2.0
import { Allowances } from '@busbar/core/allowances';
import { type Clock, sleep } from '@busbar/core/clock/clock';
import type { Logger } from '@busbar/core/log';
import type { Random } from '@busbar/core/random';
import type { AuditRecord } from '@busbar/proto/gen/busbar/v1/audit';
import { type Arrival, INSIDE } from '../api/arrival.ts';
import type { Caller } from '../api/call.ts';
import { putRecord, recordKey } from '../records/kinds.ts';
import type { ClusterStore } from '../store/cluster-store.ts';
import { absent } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';
import { auditRecord, resolved } from './record.ts';
import type { AuditRoom } from './room.ts';

/**
 * Records calls that changed nothing: refused ones, dry runs, consoles. (A change carries its record in its own
 * transaction: audit/change.ts.) Nobody waits for it, and whoever makes refusals by the thousand fills neither the store
 * nor this process: of each caller, and of each address that nobody calls from, a few are recorded one by one, the rest is
 * counted, and one record a minute tells the count.
 */
export interface Noted {
  readonly method: string;
  readonly caller: Caller | null;
  readonly arrival: Arrival;
  /** Of a record that a transaction of unknown outcome carries as well: whichever comes first stays alone. */
  readonly id: string | null;
  readonly details: Pick<AuditRecord, 'target' | 'requestId' | 'validateOnly' | 'reason' | 'message'> &
    Partial<Pick<AuditRecord, 'streamBeginTime' | 'streamEndTime' | 'streamBeginId'>>;
}

/** What a person does wrong in a sitting. */
const BURST = 20;
/** One more a minute, and one count a minute: 3,000 records a day of a caller that never stops. */
const REFILL_MS = 60_000;
const COUNT_EVERY_MS = 60_000;
/** Of a caller who has had his share of the room: 2,200 records in 90 days. */
const COUNT_OVER_SHARE_MS = 3_600_000;
/** About 100 KB; while the store is away, the log has the rest. */
export const QUEUE_MAX = 200;
/** More identities than a cluster has; beyond it they share one allowance. */
const CALLERS_MAX = 1_000;
/** Addresses of callers without a certificate. Apart from the above: a stranger has as many as he likes. */
const ADDRESSES_MAX = 32;
const RETRY_MS = 1_000;

interface Who {
  readonly caller: Caller | null;
  readonly arrival: Arrival;
}
const OTHER_CALLERS: Who = { caller: { name: 'others', role: 'viewer', certificate: null }, arrival: INSIDE };
const OTHER_ADDRESSES: Who = { caller: null, arrival: INSIDE };

export interface TrailDeps {
  readonly host: string;
  readonly store: ClusterStore;
  readonly view: ClusterView;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly room: Pick<AuditRoom, 'admit' | 'mayTake'>;
}

export class AuditTrail {
  readonly #deps: TrailDeps;
  readonly #callers = new Allowances<Who>({
    burst: BURST,
    refillMs: REFILL_MS,
    sourcesMax: CALLERS_MAX,
    others: OTHER_CALLERS,
  });
  readonly #strangers = new Allowances<Who>({
    burst: BURST,
    refillMs: REFILL_MS,
    sourcesMax: ADDRESSES_MAX,
    others: OTHER_ADDRESSES,
  });
  readonly #queue: AuditRecord[] = [];
  #countedMs: number;
  #hourMs: number;
  #wake = () => {};

  constructor(deps: TrailDeps) {
    this.#deps = deps;
    this.#countedMs = deps.clock.nowMs();
    this.#hourMs = this.#countedMs;
  }

  /** Never waits and never fails. Returns the id of the record; null when the call is only counted. */
  note(noted: Noted): string | null {
    const { clock, host, random, view } = this.#deps;
    const { caller, arrival, details } = noted;
    const allowances = caller === null ? this.#strangers : this.#callers;
    // Refusals must not use up what tells that a console was opened.
    const accepted = details.reason === '' && !details.validateOnly;
    const key = `${caller === null ? arrival.address : caller.name} ${accepted}`;
    const nowMs = clock.nowMs();
    const isFull = this.#queue.length >= QUEUE_MAX;
    // The end of a console: as many as there are records of beginnings, which the room has let in.
    const isEnd = details.streamBeginId !== undefined;
    const who = { caller, arrival };
    let singly = false;
    if (!isEnd && !accepted && !this.#isWithin(caller)) {
      // Of all strangers together: their addresses are no longer worth a record each.
      if (caller === null) allowances.count('', OTHER_ADDRESSES, nowMs);
      else allowances.count(key, who, nowMs);
    } else if (isFull) allowances.count(key, who, nowMs);
    else singly = isEnd || allowances.take(key, who, nowMs);
    this.#wake();
    if (!singly) return null;
    const id = noted.id ?? random.uuid();
    const known = { id, time: clock.wallTime(), method: noted.method, controller: host, ...details };
    this.#queue.push(auditRecord({ ...known, target: resolved(view, details.target) }, caller, arrival));
    return id;
  }

  /** Lets a call begin that would be recorded as a change or a console; throws AUDIT_FULL when its caller has had his share. */
  admit(caller: Caller | null, method: string): void {
    this.#deps.room.admit(caller?.name ?? 'nobody', method);
  }

  #isWithin(caller: Caller | null): boolean {
    return this.#deps.room.mayTake('refusals', caller?.name ?? 'nobody');
  }

  /** Writes what was noted until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, logger } = this.#deps;
    const wake = () => this.#wake();
    signal.addEventListener('abort', wake, { once: true });
    while (!signal.aborted) {
      const dueMs = this.#countedMs + COUNT_EVERY_MS - clock.nowMs();
      const used = this.#callers.size + this.#strangers.size > 0;
      if (dueMs <= 0 && used) this.#count();
      // Nobody has used any of theirs: nothing to count, however long that lasts.
      else if (this.#queue.length === 0) await this.#rung(used ? dueMs : null);
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
    const { clock } = this.#deps;
    this.#countedMs = clock.nowMs();
    const isHour = this.#countedMs - this.#hourMs >= COUNT_OVER_SHARE_MS;
    if (isHour) this.#hourMs = this.#countedMs;
    for (const allowances of [this.#callers, this.#strangers])
      allowances.countOut(this.#countedMs, (who, further) => {
        if (this.#queue.length >= QUEUE_MAX) return false;
        if (!isHour && !this.#isWithin(who.caller)) return false;
        this.#queue.push(this.#countRecord(who, further));
        return true;
      });
  }

  #countRecord({ caller, arrival }: Who, further: number): AuditRecord {
    const { clock, host, random } = this.#deps;
    const from = caller === null && arrival.address !== '' ? ` at ${arrival.address}` : '';
    const record = auditRecord(
      {
        id: random.uuid(),
        time: clock.wallTime(),
        method: '',
        controller: host,
        reason: 'NOT_RECORDED_SINGLY',
        message: `${further} further calls of ${caller?.name ?? 'nobody'}${from} that changed nothing`,
        furtherCalls: further,
      },
      caller,
      arrival,
    );
    // Of a caller they may have come with several certificates, from several places.
    return from !== '' ? record : { ...record, certificateSerial: '', address: '', transport: '' };
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
