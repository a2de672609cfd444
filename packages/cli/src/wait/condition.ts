// SPDX-License-Identifier: Apache-2.0
/** What `busbar wait` can wait for. Pure. */
import { usageError } from '../cli/exit.ts';
import { nearest } from '../manifest/suggest.ts';
import { isKind, KINDS, type KindName } from '../resource/kinds.ts';

export const CONDITIONS_HELP = `
Conditions:
  NAME=VALUE[,…]   as in --filter (busbar vm list --help), e.g. phase=running,host!=host3
  deleted          the resource is gone
  operation        no operation on it is under way; fails when the last one failed
Ends with 0, or with 5 and the state it was in when the time is over (--timeout, default 10min).
What is deleted meanwhile ends the waiting for anything else with 3.`;

export type Condition =
  | { readonly kind: 'deleted' }
  | { readonly kind: 'operation' }
  | { readonly kind: 'filter'; readonly text: string };

export interface Target {
  readonly kind: KindName;
  readonly name: string;
}

export function parseTarget(text: string): Target {
  const [kind = '', ...rest] = text.split('/');
  const name = rest.join('/');
  if (isKind(kind) && name !== '') return { kind, name };
  const kinds = Object.keys(KINDS);
  if (rest.length === 0) {
    throw usageError(`${JSON.stringify(text)} is no resource`, 'a resource is KIND/NAME', `write e.g. vm/${text}`);
  }
  const near = nearest(kind, kinds);
  throw usageError(
    `${JSON.stringify(text)} is no resource`,
    name === '' ? 'the name is missing' : `there is no kind ${JSON.stringify(kind)}`,
    near === undefined ? `kinds are ${kinds.join(', ')}` : `write ${near}/${name || 'NAME'}`,
  );
}

export function parseCondition(text: string): Condition {
  if (text === 'deleted' || text === 'operation') return { kind: text };
  if (/[=<>~]/.test(text)) return { kind: 'filter', text };
  const near = nearest(text, ['deleted', 'operation']);
  throw usageError(
    `--for ${text} is not understood`,
    'a condition is NAME=VALUE, deleted or operation',
    near === undefined ? 'write e.g. --for phase=running' : `did you mean ${near}?`,
  );
}
