// SPDX-License-Identifier: Apache-2.0
/** `busbar cluster adopt`: takes over what really runs after the cluster store went back in time. */
import {
  AdoptClusterRequest,
  AdoptClusterResponse,
  AdoptionAction,
  type AdoptionPlan,
  type AdoptionVm,
  ClusterServiceDefinition,
} from '@busbar/proto/gen/busbar/v1/cluster';
import { VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import { usageError } from '../cli/exit.ts';
import type { ChangeOptions, Session } from '../cli/session.ts';
import { runChange } from '../operation/change.ts';
import { oneLine, plural } from '../output/format.ts';
import { tableStyle } from '../output/print.ts';
import { type Column, renderTable } from '../output/table.ts';
import { wrap } from '../output/wrap.ts';

export interface AdoptOptions extends ChangeOptions {
  readonly plan?: boolean;
  readonly run?: boolean;
  readonly without?: readonly string[];
  readonly keep?: readonly string[];
}

export async function adopt(session: Session, options: AdoptOptions): Promise<void> {
  if ((options.plan === true) === (options.run === true)) {
    throw usageError(
      'cannot adopt the cluster',
      'either --plan or --run must be given',
      'begin with "busbar cluster adopt --plan": it changes nothing',
    );
  }
  const request = AdoptClusterRequest.create({
    withoutHosts: [...(options.without ?? [])],
    keep: (options.keep ?? []).map(keepFlag),
    validateOnly: options.plan === true,
    requestId: session.requestId(options),
  });
  await runChange<AdoptClusterResponse>(
    session,
    { ...options, dryRun: options.plan === true },
    {
      doing: 'adopt the cluster',
      target: 'cluster',
      done: 'adopted',
      message: AdoptClusterResponse,
      send: (api) =>
        api.call(ClusterServiceDefinition, (client, callOptions) => client.adoptCluster(request, callOptions)),
      text: ({ plan }) => (options.plan === true || plan?.behind !== true ? renderAdoption(plan, session) : undefined),
    },
  );
}

const NOTHING = 'the cluster store did not go back in time: there is nothing to adopt\n';

function keepFlag(text: string): { vm: string; host: string } {
  const at = text.lastIndexOf('=');
  if (at < 1 || at === text.length - 1)
    throw usageError(`--keep ${text} is not understood`, 'it is VM=HOST', 'write e.g. --keep scada-1=host2');
  return { vm: text.slice(0, at), host: text.slice(at + 1) };
}

const WORDS: Readonly<Record<AdoptionAction, string>> = {
  [AdoptionAction.UNSPECIFIED]: 'unknown',
  [AdoptionAction.AS_RECORDED]: 'stays as recorded',
  [AdoptionAction.TAKE_OVER]: 'taken over',
  [AdoptionAction.START]: 'will be started',
  [AdoptionAction.STAY_OFF]: 'stays off',
  [AdoptionAction.LEAVE_ALONE]: 'left alone',
  [AdoptionAction.UNDECIDED]: 'UNDECIDED',
  [AdoptionAction.UNRECOGNIZED]: 'unknown',
};

const COLUMNS: readonly Column<AdoptionVm>[] = [
  { header: 'VM', value: ({ vm }) => vm?.name || vm?.id || '', shrinks: true },
  { header: 'RECORDED', value: recorded },
  {
    header: 'RUNS ON',
    value: ({ found }) => found.map(({ host, epoch }) => `${host} (${epoch})`).join(', ') || 'no host',
  },
  {
    header: 'BECOMES',
    value: ({ action }) => WORDS[action],
    colour: ({ action }) => (action === AdoptionAction.UNDECIDED ? 'red' : undefined),
  },
  { header: 'NOTE', value: ({ message }) => oneLine(message), shrinks: true },
];

/** Host and epoch, as beside it. */
function recorded({ recordedHost, recordedEpoch, recordedPhase }: AdoptionVm): string {
  if (recordedPhase === VmPhase.UNSPECIFIED) return 'not at all';
  const phase = recordedPhase.replace('VM_PHASE_', '').toLowerCase();
  return recordedHost === '' ? phase : `${recordedHost} (${recordedEpoch})`;
}

function renderAdoption(plan: AdoptionPlan | undefined, session: Session): string {
  if (plan?.behind !== true) return NOTHING;
  const style = tableStyle(session);
  const lines: string[] = [];
  const say = (text: string, indent = 0) => lines.push(...wrap(oneLine(text), style.width, indent, indent + 2));
  say('the cluster store went back in time:');
  for (const sign of plan.signs) say(sign, 2);
  const heard = plan.hosts.filter((host) => host.heard);
  say(
    `hosts that report: ${heard.map(({ host, domains }) => `${host} (${plural(domains, 'VM')})`).join(', ') || 'none'}`,
  );
  for (const { host, message } of plan.hosts) if (message !== '') say(`${host}: ${message}`, 2);
  const table = plan.vms.length === 0 ? '' : `\n${renderTable(COLUMNS, plan.vms, style)}`;
  const alone = plan.vms.filter(({ action }) => action === AdoptionAction.LEAVE_ALONE);
  const unknown = alone.map(({ vm, found }) => `  ${vm?.id} on ${found.map(({ host }) => host).join(', ')}\n`).join('');
  const blocked: string[] = [];
  for (const { message, hint } of plan.obstacles)
    blocked.push(...wrap(oneLine(message), style.width, 2, 4), ...wrap(`do: ${oneLine(hint)}`, style.width, 4, 6));
  const end =
    blocked.length === 0
      ? `\nhosts that are not listed are not known: is every host of the plant there?\nafterwards every start has an epoch above ${plan.epochFloor}; "busbar cluster adopt --run" does it\n`
      : `\nin the way:\n${blocked.map((line) => `${line}\n`).join('')}`;
  const aside = unknown === '' ? '' : `\nwithout a record:\n${unknown}`;
  return `${lines.map((line) => `${line}\n`).join('')}${table}${aside}${end}`;
}
