// SPDX-License-Identifier: Apache-2.0
/** `busbar explain placement VM`: where it is and why, what every host says, and what would make room. */
import {
  ExplainPlacementResponse,
  type HostVerdict,
  type Placement,
  type PlacementAdvice,
  PlacementAdviceKind,
  type Vm,
  VmServiceDefinition,
} from '@busbar/proto/gen/busbar/v1/vm';
import { usageError } from '../cli/exit.ts';
import type { Session } from '../cli/session.ts';
import { formatBytes } from '../output/format.ts';
import { print, tableStyle } from '../output/print.ts';
import { wrap } from '../output/wrap.ts';
import { placedAt } from '../vm/preview.ts';

export async function explainPlacement(
  session: Session,
  path: string | undefined,
  name: string | undefined,
): Promise<void> {
  if (path !== 'placement' || name === undefined) {
    throw usageError(
      name === undefined ? 'cannot explain placement' : `cannot explain ${path} ${name}`,
      name === undefined ? 'no VM is named' : 'only a placement has a VM behind it',
      'busbar explain placement VM',
    );
  }
  session.doing = `explain the placement of vm ${name}`;
  const api = await session.api();
  const answer = await api.call(VmServiceDefinition, (client, options) =>
    client.explainPlacement({ vm: name }, options),
  );
  const { vm } = await api.call(VmServiceDefinition, (client, options) => client.getVm({ vm: name }, options));
  await print(session, {
    json: () => ExplainPlacementResponse.toJSON(answer),
    table: () => render(answer, vm, tableStyle(session).width),
  });
}

function render(
  { preview, current, advice, held }: ExplainPlacementResponse,
  vm: Vm | undefined,
  width: number,
): string {
  const lines: string[] = [];
  const say = (text: string, indent = 0) => lines.push(...wrap(text, width, indent, indent + 2));
  if (current !== undefined) {
    say(`runs on ${current.host}${exactly(current)}`);
    const why = vm?.status?.placementReason ?? '';
    if (why !== '') say(`chosen as ${why}`, 2);
    const drift = vm?.status?.placementDrift ?? '';
    if (drift !== '') say(`not placed as decided: ${drift}`, 2);
  }
  if (held !== '') say(held);
  const chosen = preview?.host ?? '';
  if (chosen === '') say('no host fits now');
  else if (chosen !== current?.host) say(`would go to ${chosen} now${exactly(preview?.placement)}`);
  else say('would stay there if it were placed anew');
  for (const verdict of ranked(preview?.verdicts ?? [])) say(`${verdict.host}  ${verdictText(verdict, chosen)}`, 2);
  if (advice.length > 0) {
    say('each of these would make room:');
    for (const each of advice) say(adviceText(each), 2);
  }
  return lines.map((line) => `${line}\n`).join('');
}

const exactly = (placement: Placement | undefined) =>
  placedAt(placement)
    .map((line) => `; ${line.trim()}`)
    .join('');

/** Those that fit first, best first; then the others by name. */
function ranked(verdicts: readonly HostVerdict[]): readonly HostVerdict[] {
  const sum = ({ scoreParts }: HostVerdict) => scoreParts.reduce((total, { value }) => total + value, 0);
  return verdicts.toSorted((a, b) => Number(b.fits) - Number(a.fits) || (a.fits ? sum(a) - sum(b) : 0));
}

function verdictText({ host, fits, refusals, scoreParts }: HostVerdict, chosen: string): string {
  if (!fits) return refusals.map(({ checker, reason }) => `${checker}: ${reason}`).join('; ');
  const score = scoreParts.map(({ name, value }) => `${name} ${Number(value.toPrecision(3))}`).join(', ');
  return `fits${host === chosen ? ', best' : ''}${score === '' ? '' : ` (${score}; less is better)`}`;
}

function adviceText({ kind, vm, host, toHost, vcpus, memoryBytes, placement }: PlacementAdvice): string {
  const then = placement === undefined ? '' : `; it would then run on ${placement.host}`;
  switch (kind) {
    case PlacementAdviceKind.MOVE:
      return `move vm ${vm} from ${host} to ${toHost}${then}`;
    case PlacementAdviceKind.STOP:
      return `stop vm ${vm} on ${host}, of lower priority${then}`;
    case PlacementAdviceKind.RESIZE:
      return `ask for ${vcpus} vCPUs and ${formatBytes(memoryBytes)}${then}`;
    default:
      return 'a change that this version of the command does not know';
  }
}
