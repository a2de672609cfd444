// SPDX-License-Identifier: Apache-2.0
import { readFileSync, writeFileSync } from 'node:fs';
import { type StateTable, toMermaid } from '@busbar/core/state-table';
import { OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import { VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import { describe, expect, it } from 'vitest';
import { ENDED, OPERATION_STATES } from './operation/state.ts';
import { ON_HOST, phaseWord, VM_PHASES } from './vm/state.ts';

/** docs/states.md shows the tables as they are. To renew it: UPDATE_STATES=1 vitest run --project unit packages/controller/src/states.test.ts */
const FILE = new URL('../../../docs/states.md', import.meta.url);

/** The same table in the words that users see. */
function worded<S extends string>(table: StateTable<S>, word: (state: S) => string): StateTable<string> {
  const states = Object.keys(table) as S[];
  return Object.fromEntries(states.map((from) => [word(from), table[from].map(word)]));
}

const operationWord = (state: OperationState) => state.replace('OPERATION_STATE_', '').toLowerCase();

function page(): string {
  const diagram = (text: string) => `\`\`\`mermaid\n${text}\n\`\`\`\n`;
  return [
    '# States\n',
    'Generated from the tables in the code (`packages/controller/src/states.test.ts`); do not edit.\n',
    '## VM (`packages/controller/src/vm/state.ts`)\n',
    `On a host, which then owns the VM's epoch: ${[...ON_HOST].map(phaseWord).join(', ')}. The host's silence leads to \`unknown\` and nowhere else.\n`,
    diagram(toMermaid(worded(VM_PHASES, phaseWord), phaseWord(VmPhase.CREATING))),
    '## Operation (`packages/controller/src/operation/state.ts`)\n',
    `Ended: ${[...ENDED].map(operationWord).join(', ')}.\n`,
    diagram(toMermaid(worded(OPERATION_STATES, operationWord), operationWord(OperationState.PENDING))),
  ].join('\n');
}

describe('docs/states.md', () => {
  it('shows the state tables as they are', () => {
    if (process.env.UPDATE_STATES === '1') writeFileSync(FILE, page());
    expect(readFileSync(FILE, 'utf8')).toBe(page());
  });

  it.each([
    ['VM', VM_PHASES, VmPhase.CREATING],
    ['operation', OPERATION_STATES, OperationState.PENDING],
  ] as const)('%s: every state can be reached, and every one is in the table', (_name, table, start) => {
    const edges = table as StateTable<string>;
    const reached = new Set<string>([start]);
    for (const state of reached) for (const next of edges[state] ?? []) reached.add(next);
    expect([...reached].sort()).toEqual(Object.keys(edges).sort());
  });
});
