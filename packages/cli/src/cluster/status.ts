// SPDX-License-Identifier: Apache-2.0
/** The cluster on one screen. Pure. */
import { type Alarm, AlarmSeverity } from '@busbar/proto/gen/busbar/v1/alarm';
import type { Cluster } from '@busbar/proto/gen/busbar/v1/cluster';
import { formatBytes, oneLine } from '../output/format.ts';
import { paint } from '../output/table.ts';
import { wrap } from '../output/wrap.ts';

export function renderStatus(cluster: Cluster, colours: boolean): string {
  const health = (healthy: boolean | undefined, message: string | undefined) => {
    const text = healthy === true ? 'healthy' : 'UNHEALTHY';
    const painted = paint(text, colours ? (healthy === true ? 'green' : 'red') : undefined);
    return message === undefined || message === '' ? painted : `${painted}: ${oneLine(message)}`;
  };
  const { store, storage } = cluster;
  const space =
    storage === undefined || storage.totalBytes === 0n
      ? ''
      : `, ${formatBytes(storage.availableBytes)} of ${formatBytes(storage.totalBytes)} free`;
  const lines: (readonly [string, string])[] = [
    ['cluster', cluster.name],
    [
      'leader',
      cluster.leader === ''
        ? paint('none', colours ? 'red' : undefined)
        : `${cluster.leader} (term ${cluster.leaderTerm})`,
    ],
    ['store', health(store?.healthy, store?.message)],
    ['storage', `${health(storage?.healthy, storage?.message)} (${storage?.driver ?? 'none'}${space})`],
    ['hosts', counts(cluster.hostsByState)],
    ['vms', counts(cluster.vmsByPhase)],
    ['alarms', countAlarms(cluster.alarms)],
    ['controllers', cluster.controllers.map(({ host, address }) => `${host} ${address}`).join(', ')],
    ['answered by', `${cluster.answeredBy}, version ${cluster.version}`],
  ];
  const fields = lines.map(([name, value]) => `${`${name}:`.padEnd(14)}${value}`);
  return [...fields, ...cluster.alarms.flatMap((alarm) => alarmLines(alarm, colours))]
    .map((line) => `${line}\n`)
    .join('');
}

/** Wide enough for sentences, narrow enough for every screen that status is looked at on. */
const ALARM_WIDTH = 100;
const ALARM_INDENT = 2;

/** Code and subject stand out; what is the matter and what to do follow as sentences. */
function alarmLines(alarm: Alarm, colours: boolean): readonly string[] {
  const critical = alarm.severity === AlarmSeverity.CRITICAL;
  const since = alarm.raiseTime === undefined ? '' : `, since ${alarm.raiseTime.toISOString().slice(0, 19)}Z`;
  const title = `ALARM (${critical ? 'critical' : 'warning'}) ${oneLine(alarm.code)}: ${oneLine(alarm.subject)}${since}`;
  const sentences = [alarm.message, alarm.hint === '' ? '' : `do: ${alarm.hint}`].filter((text) => text !== '');
  return [
    '',
    paint(title, colours ? (critical ? 'red' : 'yellow') : undefined),
    ...sentences.flatMap((text) => wrap(oneLine(text), ALARM_WIDTH, ALARM_INDENT)),
  ];
}

function countAlarms(alarms: readonly Alarm[]): string {
  const critical = alarms.filter(({ severity }) => severity === AlarmSeverity.CRITICAL).length;
  return counts({
    ...(critical === 0 ? {} : { critical }),
    ...(alarms.length === critical ? {} : { warning: alarms.length - critical }),
  });
}

export function counts(by: Readonly<Record<string, number>>): string {
  const text = Object.entries(by).map(([state, count]) => `${count} ${state}`);
  return text.length === 0 ? 'none' : text.join(', ');
}
