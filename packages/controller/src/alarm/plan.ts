// SPDX-License-Identifier: Apache-2.0
import type { Alarm } from '@busbar/proto/gen/busbar/v1/alarm';
import { alarmId } from './alarm.ts';

export interface AlarmPlan {
  /** To be recorded: new ones, and ones that became more or less urgent or read differently. */
  readonly put: readonly { readonly id: string; readonly alarm: Alarm; readonly recorded: Alarm | undefined }[];
  /** Records of conditions that do not hold any more. */
  readonly cleared: readonly string[];
}

/**
 * Reconciler of alarm records: what the leader sees against what is recorded. Pure. Only words that changed are no reason to
 * write at once: `wordsDue` says for which alarms it is time, since some name a number that changes all the time.
 */
export function planAlarms(
  seen: readonly Alarm[],
  recorded: ReadonlyMap<string, Alarm>,
  wordsDue: (id: string) => boolean,
): AlarmPlan {
  const put: AlarmPlan['put'][number][] = [];
  const standing = new Set<string>();
  for (const alarm of seen) {
    const id = alarmId(alarm);
    standing.add(id);
    const former = recorded.get(id);
    const sameWords = former?.message === alarm.message && former.hint === alarm.hint;
    if (former?.severity === alarm.severity && (sameWords || !wordsDue(id))) continue;
    put.push({ id, alarm: { ...alarm, raiseTime: former?.raiseTime ?? alarm.raiseTime }, recorded: former });
  }
  return { put, cleared: [...recorded.keys()].filter((id) => !standing.has(id)) };
}
