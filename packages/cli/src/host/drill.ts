// SPDX-License-Identifier: Apache-2.0
/** `busbar drill HOST`: what happens if the host dies now. Changes nothing. */
import { DrillHostResponse, HostServiceDefinition } from '@busbar/proto/gen/busbar/v1/host';
import type { Session } from '../cli/session.ts';
import { plural } from '../output/format.ts';
import { print, tableStyle } from '../output/print.ts';
import { type Column, renderTable } from '../output/table.ts';
import { wrap } from '../output/wrap.ts';
import { placedAt } from '../vm/preview.ts';

type Move = DrillHostResponse['moves'][number];

const COLUMNS: readonly Column<Move>[] = [
  { header: 'VM', value: ({ vm }) => vm },
  { header: 'GOES TO', value: ({ placement }) => placement?.host ?? '' },
  { header: 'RUNS AGAIN AFTER', right: true, value: ({ recoveryMs }) => seconds(recoveryMs) },
  {
    header: 'EXACTLY',
    shrinks: true,
    value: ({ placement }) =>
      placedAt(placement)
        .map((line) => line.trim())
        .join('; '),
  },
];

const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;

export async function drillHost(session: Session, host: string): Promise<void> {
  session.doing = `drill host ${host}`;
  const api = await session.api();
  const answer = await api.call(HostServiceDefinition, (client, options) => client.drillHost({ host }, options));
  await print(session, {
    json: () => DrillHostResponse.toJSON(answer),
    lines: () => answer.moves.map((move) => move),
    names: () => answer.moves.map(({ vm }) => `vm/${vm}`),
    table: () => render(host, answer, session),
  });
}

function render(host: string, { moves, losses, steps }: DrillHostResponse, session: Session): string {
  const style = tableStyle(session);
  const lines: string[] = [];
  const say = (text: string, indent = 0) => lines.push(...wrap(text, style.width, indent, indent + 2));
  if (moves.length + losses.length === 0) return `nothing runs on ${host}\n`;
  const total = steps.reduce((sum, { durationMs }) => sum + durationMs, 0);
  say(
    `if ${host} died now, ${plural(moves.length, 'VM')} would be restarted elsewhere and ${plural(losses.length, 'VM')} would stay down`,
  );
  if (moves.length > 0) {
    say(
      `restarts begin after ${seconds(total)}: ${steps.map(({ name, durationMs }) => `${name} (${seconds(durationMs)})`).join(', ')}`,
    );
  }
  const text = lines.map((line) => `${line}\n`).join('');
  const table = moves.length === 0 ? '' : `\n${renderTable(COLUMNS, moves, style)}`;
  const down = losses.flatMap(({ vm, reason }) => wrap(`${vm}: ${reason}`, style.width, 2, 4));
  return `${text}${table}${down.length === 0 ? '' : `\nstay down:\n${down.map((line) => `${line}\n`).join('')}`}`;
}
