// SPDX-License-Identifier: Apache-2.0
import { AuditFilter } from '@busbar/proto/gen/busbar/v1/audit';
import type { Command } from 'commander';
import { examples, listOptions } from '../cli/options.ts';
import type { Session } from '../cli/session.ts';
import { sinceFlag } from '../cli/values.ts';
import { type ListOptions, runList } from '../resource/resource.ts';
import { auditRecords } from './resource.ts';

interface Options extends ListOptions {
  readonly caller?: string;
  readonly target?: string;
  readonly method?: string;
  readonly since?: string;
  readonly serial?: string;
  readonly address?: string;
}

export function define(noun: Command, session: Session): void {
  const lines = [
    'busbar audit list --since 24h',
    'busbar audit list --target scada-1',
    'busbar audit list --caller client/anna --watch',
    'busbar audit list --address 10.77.0.9 -o wide',
  ];
  examples(noun, lines);
  const list = listOptions(
    noun
      .command('list')
      .alias('ls')
      .description('Mutating calls, newest first, refused ones included; kept for 90 days at least.'),
  )
    .option('--caller <identity>', 'only calls of this caller, e.g. client/anna')
    .option('--target <name>', 'only calls about the resource with this name or id')
    .option('--method <prefix>', 'only methods that begin so, e.g. DeleteVm or busbar.v1.VmService/')
    .option('--serial <hex>', 'only calls with this certificate (see "busbar certificate list")')
    .option('--address <ip>', 'only calls from this IP address')
    .option('--since <when>', 'only newer ones: a duration such as 2h, or a time');
  examples(list, lines).action((options: Options) =>
    runList(session, auditRecords, filterOf(session, options), options),
  );
}

function filterOf(session: Session, options: Options): AuditFilter {
  return AuditFilter.create({
    caller: options.caller ?? '',
    target: options.target ?? '',
    methodPrefix: options.method ?? '',
    certificateSerial: options.serial ?? '',
    address: options.address ?? '',
    since: options.since === undefined ? undefined : sinceFlag('--since', options.since, session.io.now()),
  });
}
