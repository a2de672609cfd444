// SPDX-License-Identifier: Apache-2.0
/** What the user wants to see of a list: which rows, in which order, in which columns. */
import { usageError } from '../cli/exit.ts';
import { isTable } from '../cli/output.ts';
import type { Session } from '../cli/session.ts';
import type { Column } from '../output/table.ts';
import type { Shown } from './resource.ts';

export interface ListOptions {
  readonly watch?: boolean;
  readonly columns?: string;
  readonly sort?: string;
  readonly filter?: string;
  /** False with --no-headers. */
  readonly headers?: boolean;
}

export interface Listing<T> {
  readonly columns: readonly Column<T>[];
  readonly headers: boolean;
  /** Somebody filters: an empty list then means less. */
  readonly filtered: boolean;
  keeps(item: T): boolean;
  /** Undefined when no order was asked for. */
  readonly sorted: ((items: readonly T[]) => readonly T[]) | undefined;
}

export async function makeListing<T>(session: Session, resource: Shown<T>, options: ListOptions): Promise<Listing<T>> {
  const { filter, sort } = options;
  const now = session.io.now();
  const columns = await columnsOf(session, resource, options);
  const keeps =
    filter === undefined ? () => true : await (await import('./filter.ts')).compileFilter(resource, filter, '--filter');
  const order = sort === undefined ? undefined : await (await import('./sort.ts')).compileSort(resource, sort);
  return {
    columns,
    headers: options.headers !== false,
    filtered: filter !== undefined,
    // The clock of the moment: a watch goes on for hours.
    keeps: (item) => keeps(item, session.io.now()),
    sorted: order === undefined ? undefined : (items) => items.toSorted((a, b) => order(a, b, now)),
  };
}

async function columnsOf<T>(
  session: Session,
  resource: Shown<T>,
  { columns: wanted }: ListOptions,
): Promise<readonly Column<T>[]> {
  const wide = session.output === 'wide';
  if (wanted === undefined) return resource.columns.filter((column) => wide || column.wide !== true);
  if (!isTable(session.output)) {
    throw usageError(
      '--columns is for tables',
      `-o ${session.output} holds every field already`,
      `leave --columns out, or leave -o ${session.output} out`,
    );
  }
  const { columnFor, UnknownSubject } = await import('./subject.ts');
  const names = wanted.split(',').map((name) => name.trim());
  const columns: Column<T>[] = [];
  for (const name of names) {
    columns.push(
      await columnFor(resource, name).catch((error: unknown) => {
        if (!(error instanceof UnknownSubject)) throw error;
        throw usageError(`--columns ${wanted} is not possible`, error.message, hint(error.expected));
      }),
    );
  }
  return columns;
}

export function hint(expected: string): string {
  return expected.startsWith('did you mean') ? expected : `name ${expected}`;
}
