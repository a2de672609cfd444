// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import { type Alarm, AlarmSeverity } from '@busbar/proto/gen/busbar/v1/alarm';
import type { StorageDriver } from '@busbar/storage/driver';
import { cut } from '../api/validation.ts';
import type { AuditRoom } from '../audit/room.ts';
import { type Fill, UNKNOWN_FILL } from '../budget/fill.ts';
import type { SessionRegistry } from '../session/registry.ts';
import type { ClusterView } from '../view/view.ts';

/**
 * A condition that wants a response. Sources say which conditions hold at this moment; nobody raises or clears an alarm by
 * hand, so none can be forgotten. Every controller looks for itself and shows what it sees together with what the leader has
 * recorded: some conditions (a full disk beside a controller) are seen by one controller alone. The leader's records
 * give an alarm its beginning, its events, and a place where every controller finds it.
 */
export interface AlarmDraft {
  /** Stable upper-snake word, e.g. STORE_BEHIND. */
  readonly code: string;
  readonly severity: 'critical' | 'warning';
  /** "cluster", or kind and name, e.g. "host/host1". */
  readonly subject: string;
  readonly message: string;
  /** What to do. */
  readonly hint: string;
}

/** What sources look at. */
export interface AlarmWorld {
  readonly cluster: string;
  /** Host of this controller. */
  readonly host: string;
  readonly view: ClusterView;
  readonly sessions: SessionRegistry;
  readonly audit: Pick<AuditRoom, 'fill'>;
  readonly storage: Pick<StorageDriver, 'diskKeys'>;
  readonly nowMs: number;
  readonly wallTime: Date;
  /** How full the store and the spool's disk are. */
  readonly fill: Fill;
}

/** Pure: the conditions that hold now. */
export type AlarmSource = (world: AlarmWorld) => readonly AlarmDraft[];

/** Of all sources together: a list that nobody reads to its end is no alarm any more. The most urgent ones are kept. */
const ALARMS_MAX = 100;
const MESSAGE_MAX = 1_000;
const HINT_MAX = 500;

export interface Alarms {
  /** What this controller sees now; the most urgent first. */
  seen(): readonly Alarm[];
  /** What it sees, and what the leader has recorded besides; what is recorded keeps its beginning. */
  all(): readonly Alarm[];
}

export function createAlarms(
  deps: Omit<AlarmWorld, 'nowMs' | 'wallTime' | 'fill'> & {
    readonly clock: Clock;
    /** Default: unknown. */
    readonly fill?: () => Fill;
  },
  sources: readonly AlarmSource[],
): Alarms {
  const { clock, fill = () => UNKNOWN_FILL, ...world } = deps;
  /** Since when this controller has seen each alarm that it sees. */
  let since = new Map<string, Date>();
  const seen = (): readonly Alarm[] => {
    const wallTime = clock.wallTime();
    const drafts = sources.flatMap((source) => source({ ...world, nowMs: clock.nowMs(), wallTime, fill: fill() }));
    const unique = new Map(drafts.map((draft) => [alarmId(draft), draft]));
    since = new Map([...unique.keys()].map((id) => [id, since.get(id) ?? wallTime]));
    return ordered([...unique].map(([id, draft]) => presentAlarm(draft, since.get(id) ?? wallTime)));
  };
  return {
    seen,
    all() {
      const recorded = deps.view.tables.alarm.sorted().map(({ record }) => record);
      const begun = new Map(recorded.map((alarm) => [alarmId(alarm), alarm]));
      const own = seen().map((alarm) => ({
        ...alarm,
        raiseTime: begun.get(alarmId(alarm))?.raiseTime ?? alarm.raiseTime,
      }));
      const known = new Set(own.map(alarmId));
      return ordered([...own, ...recorded.filter((alarm) => !known.has(alarmId(alarm)))]);
    },
  };
}

/** One alarm for each code and subject. */
export function alarmId({ code, subject }: Pick<Alarm, 'code' | 'subject'>): string {
  return `${code}.${subject.replaceAll('/', '.')}`;
}

function presentAlarm(draft: AlarmDraft, raiseTime: Date): Alarm {
  return {
    code: draft.code,
    severity: draft.severity === 'critical' ? AlarmSeverity.CRITICAL : AlarmSeverity.WARNING,
    subject: draft.subject,
    message: cut(draft.message, MESSAGE_MAX),
    hint: cut(draft.hint, HINT_MAX),
    raiseTime,
  };
}

function ordered(alarms: readonly Alarm[]): readonly Alarm[] {
  const urgency = (alarm: Alarm) => (alarm.severity === AlarmSeverity.CRITICAL ? 0 : 1);
  const byUrgency = (a: Alarm, b: Alarm) => urgency(a) - urgency(b) || (alarmId(a) < alarmId(b) ? -1 : 1);
  return [...alarms].sort(byUrgency).slice(0, ALARMS_MAX);
}
