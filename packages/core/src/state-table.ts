// SPDX-License-Identifier: Apache-2.0
import { assert } from './assert.ts';

/** A state machine is a table: for each state, the states that may follow. */
export type StateTable<S extends string> = Readonly<Record<S, readonly S[]>>;

export function mayMove<S extends string>(table: StateTable<S>, from: S, to: S): boolean {
  return table[from].includes(to);
}

/** Asserts that the step is in the table and returns the new state. */
export function move<S extends string>(table: StateTable<S>, from: S, to: S): S {
  assert(mayMove(table, from, to), `no transition from "${from}" to "${to}"`);
  return to;
}

/** The table as a Mermaid diagram for docs/. */
export function toMermaid<S extends string>(table: StateTable<S>, start: S): string {
  const lines = ['stateDiagram-v2', `  [*] --> ${start}`];
  for (const from of Object.keys(table) as S[]) {
    for (const to of table[from]) lines.push(`  ${from} --> ${to}`);
  }
  return lines.join('\n');
}
