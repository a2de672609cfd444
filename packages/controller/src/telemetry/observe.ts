// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import { type Metrics, one, type Sample } from '@busbar/core/metrics';
import type { OperationRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { type Operation, OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import type { Alarms } from '../alarm/alarm.ts';
import type { FillWatch } from '../budget/fill.ts';
import type { Leadership } from '../leadership/leadership.ts';
import { operationOf } from '../operation/progress.ts';
import { ENDED } from '../operation/state.ts';
import { KINDS } from '../records/kinds.ts';
import type { SessionRegistry } from '../session/registry.ts';
import type { MeasuredStore } from '../store/measured.ts';
import type { ClusterView } from '../view/view.ts';
import { phaseWord } from '../vm/state.ts';
import { CONTROLLER_METRICS as M } from './metrics.ts';

export interface Observed {
  readonly version: string;
  readonly store: MeasuredStore;
  readonly view: ClusterView;
  readonly sessions: SessionRegistry;
  readonly leadership: Leadership;
  readonly alarms: Alarms;
  readonly fill: FillWatch;
  readonly clock: Clock;
}

/** What a scrape reads from a controller as it is at that moment. Nothing here is counted beforehand but changes of the leadership. */
export function observe(
  metrics: Metrics,
  { version, store, view, sessions, leadership, alarms, fill, clock }: Observed,
): void {
  metrics.read(M.info, () => [{ labels: { version }, value: 1 }]);
  metrics.read(M.storeBytes, () => {
    const { store: usage, quotaBytes } = fill.now();
    const sizes =
      usage === null
        ? []
        : ([
            ['file', usage.fileBytes],
            ['in_use', usage.inUseBytes],
          ] as const);
    return [...sizes, ['quota', quotaBytes] as const].map(([what, value]) => ({ labels: { what }, value }));
  });
  metrics.read(M.viewBehind, () => {
    const behind = store.newestRevision() - view.revision;
    return one(behind > 0n ? Number(behind) : 0);
  });
  metrics.read(M.viewRelists, () => one(view.relists));
  metrics.read(M.viewRecords, () => KINDS.map((kind) => ({ labels: { kind }, value: view.tables[kind].size })));

  metrics.read(M.leader, () => one(leadership.isLeader() === null ? 0 : 1));
  metrics.read(M.leaderTerm, () => one(Number(leadership.isLeader()?.createRevision ?? 0n)));
  metrics.read(M.leaderRemaining, () => one(leadership.remainingMs() / 1000));
  const changes = metrics.counter(M.leaderChanges);
  leadership.onChange((term) => changes.add({ change: term === null ? 'ended' : 'began' }));

  const operations = () => view.tables.operation.sorted().map(({ record }) => record);
  metrics.read(M.operations, () =>
    counted(operations(), ({ saga, ...rest }) => [saga, stateWord(operationOf({ saga, ...rest }))]).map(
      ([[saga = '', state = ''], value]) => ({ labels: { saga, state }, value }),
    ),
  );
  const now = () => clock.wallTime().getTime();
  metrics.read(M.operationOldest, () => oldest(operations(), ({ state }) => !ENDED.has(state), now()));
  metrics.read(M.operationWaiting, () => oldest(operations(), ({ state }) => state === OperationState.PENDING, now()));
  metrics.read(M.vms, () =>
    counted(view.tables['vm-status'].sorted(), ({ record }) => [phaseWord(record.phase)]).map(
      ([[phase = ''], value]) => ({ labels: { phase }, value }),
    ),
  );
  metrics.read(M.hosts, () =>
    counted(view.tables['host-status'].sorted(), ({ record }) => [
      record.state.replace('HOST_STATE_', '').toLowerCase(),
    ]).map(([[state = ''], value]) => ({ labels: { state }, value })),
  );

  metrics.read(M.alarms, () =>
    counted(alarms.all(), ({ code, severity }) => [code, severity.replace('ALARM_SEVERITY_', '').toLowerCase()]).map(
      ([[alarm = '', severity = ''], value]) => ({ labels: { alarm, severity }, value }),
    ),
  );

  const heard = () => sessions.hosts().flatMap((host) => ({ host, seen: sessions.observed(host) }));
  metrics.read(M.agentsConnected, () => one(heard().filter(({ seen }) => seen?.connected).length));
  metrics.read(M.agentSilence, () =>
    heard().flatMap(({ host, seen }) =>
      seen === null ? [] : [{ labels: { host }, value: (clock.nowMs() - seen.heardMs) / 1000 }],
    ),
  );
}

/** How often each combination of words occurs. */
function counted<T>(
  items: readonly T[],
  words: (item: T) => readonly string[],
): readonly [readonly string[], number][] {
  const found = new Map<string, [readonly string[], number]>();
  for (const item of items) {
    const key = words(item);
    const entry = found.get(key.join('\0')) ?? [key, 0];
    entry[1]++;
    found.set(key.join('\0'), entry);
  }
  return [...found.values()];
}

/** Per saga, the age in seconds of the oldest operation that counts. By wall time, as people see it: the clocks of two controllers differ. */
function oldest(
  records: readonly OperationRecord[],
  counts: (operation: Operation) => boolean,
  nowMs: number,
): readonly Sample<'saga'>[] {
  const ages = new Map<string, number>();
  for (const record of records) {
    const operation = operationOf(record);
    if (!counts(operation)) continue;
    const ageMs = Math.max(0, nowMs - (operation.createTime?.getTime() ?? nowMs));
    ages.set(record.saga, Math.max(ages.get(record.saga) ?? 0, ageMs / 1000));
  }
  return [...ages].map(([saga, value]) => ({ labels: { saga }, value }));
}

function stateWord({ state }: Operation): string {
  return state.replace('OPERATION_STATE_', '').toLowerCase();
}
