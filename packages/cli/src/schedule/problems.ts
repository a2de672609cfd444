// SPDX-License-Identifier: Apache-2.0
/** Mistakes in a file, told with the field, its value and what would be right. */
import type { z } from 'zod';
import { CliError, EXIT, type FieldProblem } from '../cli/exit.ts';

/** Enough to correct the file by. */
const PROBLEMS_MAX = 10;

export function check<T>(schema: z.ZodType<T>, value: unknown, file: string, path: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const fields = result.error.issues.slice(0, PROBLEMS_MAX).flatMap((issue): readonly FieldProblem[] => {
    const at = issue.path.reduce<string>(
      (text, part) =>
        typeof part === 'number' ? `${text}[${part}]` : `${text}${text === '' ? '' : '.'}${String(part)}`,
      path,
    );
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((key) => ({
        field: `${at}${at === '' ? '' : '.'}${key}`,
        problem: 'is unknown',
        expected: 'no such field',
      }));
    }
    const found = issue.path.reduce<unknown>(
      (inner, part) => (inner as Record<PropertyKey, unknown> | undefined)?.[part],
      value,
    );
    const shown = found === undefined ? 'is missing' : `is ${cut(JSON.stringify(found))}`;
    return [{ field: at === '' ? 'the file' : at, problem: shown, expected: issue.message }];
  });
  throw wrong(file, fields);
}

const cut = (text: string) => (text.length <= 60 ? text : `${text.slice(0, 57)}…`);

export function assertUnique(names: readonly string[], file: string, field: string): void {
  const seen = new Set<string>();
  for (const each of names) {
    if (seen.has(each)) throw problem(file, field, `names "${each}" twice`, 'a name of its own for each');
    seen.add(each);
  }
}

export const problem = (file: string, field: string, what: string, expected: string) =>
  wrong(file, [{ field, problem: what, expected }]);

function wrong(file: string, fields: readonly FieldProblem[]): CliError {
  return new CliError({
    exit: EXIT.usage,
    reason: 'FILE_INVALID',
    what: `${file} cannot be used`,
    why: fields.map((each) => `${each.field} ${each.problem}, expected ${each.expected}`),
    hint: 'correct the file; `busbar schedule --help` shows what may be in it',
    fields,
  });
}
