// SPDX-License-Identifier: Apache-2.0
import { EventFilter, EventSeverity } from '@busbar/proto/gen/busbar/v1/event';
import { type Command, Option } from 'commander';
import { examples, listOptions } from '../cli/options.ts';
import type { Session } from '../cli/session.ts';
import { sinceFlag } from '../cli/values.ts';
import { type ListOptions, runList } from '../resource/resource.ts';
import { events } from './resource.ts';

interface Options extends ListOptions {
  readonly subject?: string;
  readonly severity?: keyof typeof SEVERITIES;
  readonly reason?: string;
  readonly since?: string;
}

const SEVERITIES = { info: EventSeverity.INFO, warning: EventSeverity.WARNING, error: EventSeverity.ERROR } as const;

export function define(noun: Command, session: Session): void {
  const lines = [
    'busbar event list --since 1h',
    'busbar event list --subject vm/scada-1',
    'busbar event list --severity warning --watch',
  ];
  examples(noun, lines);
  const list = listOptions(
    noun.command('list').alias('ls').description('What happened, newest first; kept for a week.'),
  )
    .option('--subject <kind/name>', 'only what happened to this, e.g. vm/scada-1, host/host1, or to all of a kind: vm')
    .addOption(
      new Option('--severity <level>', 'only events of this severity or a higher one').choices(Object.keys(SEVERITIES)),
    )
    .option('--reason <word>', 'only events of this reason, e.g. VM_ENDED')
    .option('--since <when>', 'only newer ones: a duration such as 2h, or a time');
  examples(list, lines).action((options: Options) => runList(session, events, filterOf(session, options), options));
}

function filterOf(session: Session, options: Options): EventFilter {
  const [subjectKind = '', subject = ''] = (options.subject ?? '').split('/');
  return EventFilter.create({
    subjectKind,
    subject,
    minSeverity: options.severity === undefined ? EventSeverity.UNSPECIFIED : SEVERITIES[options.severity],
    reason: options.reason ?? '',
    since: options.since === undefined ? undefined : sinceFlag('--since', options.since, session.io.now()),
  });
}
