// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import type { Logger } from '@busbar/core/log';
import { type Alarm, AlarmSeverity } from '@busbar/proto/gen/busbar/v1/alarm';
import type { Leader } from '../leader/leader.ts';
import { deleteRecord, putRecord, recordKey } from '../records/kinds.ts';
import { absent, type Entry, unchanged } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';
import type { Alarms } from './alarm.ts';
import { planAlarms } from './plan.ts';

/** People look at alarms; sources look through whole tables. */
const LOOK_EVERY_MS = 1_000;
/**
 * A condition must have been over for this long: a new leader has not heard every host yet, and one that comes and goes
 * shall be one alarm.
 */
const CLEAR_AFTER_MS = 5_000;
/** An alarm whose words change all the time is rewritten at most this often. */
const WORDS_EVERY_MS = 60_000;

interface AlarmReconcilerDeps {
  readonly view: ClusterView;
  readonly alarms: Alarms;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly leader: Leader;
}

/** Reconciler of all alarm records. Owns every `alarm/ID`. */
export class AlarmReconciler {
  readonly #deps: AlarmReconcilerDeps;
  #lookedMs = Number.NEGATIVE_INFINITY;
  /** Since when each recorded condition does not hold. */
  #overSinceMs = new Map<string, number>();
  /** When this leader last wrote each alarm. A new leader begins anew. */
  readonly #writtenMs = new Map<string, number>();

  constructor(deps: AlarmReconcilerDeps) {
    this.#deps = deps;
  }

  async reconcile(): Promise<void> {
    const { view, alarms, clock, leader } = this.#deps;
    const nowMs = clock.nowMs();
    if (nowMs - this.#lookedMs < LOOK_EVERY_MS) return;
    this.#lookedMs = nowMs;
    const table = view.tables.alarm;
    const recorded = new Map(table.sorted().map((entry) => [entry.id, entry.record]));
    const wordsDue = (id: string) => nowMs - (this.#writtenMs.get(id) ?? Number.NEGATIVE_INFINITY) >= WORDS_EVERY_MS;
    const plan = planAlarms(alarms.seen(), recorded, wordsDue);
    for (const { id, alarm } of plan.put) {
      const entry = table.get(id);
      const compare = [entry === undefined ? absent(recordKey('alarm', id)) : unchanged('alarm', entry)];
      const { succeeded, revision } = await leader.txn({ compare, writes: [putRecord('alarm', id, alarm)] });
      if (!succeeded) continue;
      this.#writtenMs.set(id, nowMs);
      this.#tell(alarm, entry);
      await view.waitFor(revision);
    }
    this.#overSinceMs = new Map(plan.cleared.map((id) => [id, this.#overSinceMs.get(id) ?? nowMs]));
    for (const [id, sinceMs] of this.#overSinceMs) {
      const entry = table.get(id);
      if (entry === undefined || nowMs - sinceMs < CLEAR_AFTER_MS) continue;
      const writes = [deleteRecord('alarm', id)];
      const { succeeded, revision } = await leader.txn({ compare: [unchanged('alarm', entry)], writes });
      this.#writtenMs.delete(id);
      if (succeeded)
        this.#deps.logger.info({ alarm: entry.record.code, subject: entry.record.subject }, 'alarm is over');
      await view.waitFor(revision);
    }
  }

  #tell({ code, severity, subject, message }: Alarm, former: Entry<Alarm> | undefined): void {
    if (former?.record.severity === severity) return;
    const line = { alarm: code, subject, reason: message };
    if (severity === AlarmSeverity.CRITICAL) this.#deps.logger.error(line, 'alarm');
    else this.#deps.logger.warn(line, 'alarm');
  }
}
