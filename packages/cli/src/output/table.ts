// SPDX-License-Identifier: Apache-2.0
/** Tables that stay readable: no lines, two blanks between columns, columns that give way. Pure. */
import { oneLine } from './format.ts';

export type Colour = 'green' | 'yellow' | 'red' | 'dim' | 'bold';

/** What sorting and filtering compare, where that is not the text shown. */
export type Measure<T> =
  | { readonly kind: 'number' | 'bytes'; of(item: T): number | bigint }
  /** A moment; compared by how long ago it was. */
  | { readonly kind: 'age'; of(item: T): Date | undefined }
  /** One or several of a few words. */
  | { readonly kind: 'words'; readonly known: readonly string[]; of(item: T): readonly string[] };

export interface Column<T> {
  readonly header: string;
  /** What --columns, --sort and --filter call it; the header in lower case unless said. */
  readonly key?: string;
  value(item: T, now: Date): string;
  readonly right?: true;
  /** Cut with "…" when the line would be too long. */
  readonly shrinks?: true;
  /** Only with -o wide, or when --columns names it. */
  readonly wide?: true;
  colour?(item: T): Colour | undefined;
  readonly measure?: Measure<T>;
}

export interface TableStyle {
  readonly width: number;
  readonly now: Date;
  readonly colours: boolean;
}

const GAP = 2;
const MIN_SHRUNK = 8;
const CODES: Record<Colour, number> = { green: 32, yellow: 33, red: 31, dim: 2, bold: 1 };

export function renderTable<T>(
  columns: readonly Column<T>[],
  items: readonly T[],
  style: TableStyle,
  headers = true,
): string {
  const { header, line } = tableLines(columns, items, style);
  const lines = items.map((item) => line(item, style.now));
  return [...(headers ? [header] : []), ...lines].map((text) => `${text}\n`).join('');
}

/** Lines for a stream of changes: the widths of the first table are kept, so that columns stay in place. */
export function tableLines<T>(columns: readonly Column<T>[], first: readonly T[], style: TableStyle) {
  const rows = first.map((item) => cellsOf(columns, item, style.now));
  const widths = fit(columns, rows, style.width);
  const titles = columns.map((column) => column.header);
  return {
    header: renderRow(columns, titles, widths),
    line: (item: T, now: Date) =>
      renderRow(columns, cellsOf(columns, item, now), widths, (column, text) =>
        paint(text, style.colours ? column.colour?.(item) : undefined),
      ),
  };
}

function cellsOf<T>(columns: readonly Column<T>[], item: T, now: Date): readonly string[] {
  return columns.map((column) => oneLine(column.value(item, now)) || '-');
}

/** First the columns that are made to shrink; if that is not enough, the widest of the others. */
function fit<T>(columns: readonly Column<T>[], rows: readonly (readonly string[])[], limit: number): number[] {
  const widths = columns.map((column, index) =>
    rows.reduce((width, row) => Math.max(width, length(row[index] ?? '')), column.header.length),
  );
  let excess = widths.reduce((sum, width) => sum + width, 0) + GAP * (columns.length - 1) - limit;
  for (const [index, column] of columns.entries()) {
    const width = widths[index] ?? 0;
    if (column.shrinks !== true || excess <= 0) continue;
    const narrowed = Math.max(Math.min(width, MIN_SHRUNK), width - excess);
    excess -= width - narrowed;
    widths[index] = narrowed;
  }
  while (excess > 0) {
    const widest = Math.max(...widths);
    if (widest <= MIN_SHRUNK) break;
    widths[widths.indexOf(widest)] = widest - 1;
    excess -= 1;
  }
  return widths;
}

function renderRow<T>(
  columns: readonly Column<T>[],
  cells: readonly string[],
  widths: readonly number[],
  decorate: (column: Column<T>, text: string) => string = (_, text) => text,
): string {
  return columns
    .map((column, index) => {
      const width = widths[index] ?? 0;
      const cell = truncate(cells[index] ?? '', width);
      const pad = ' '.repeat(Math.max(0, width - length(cell)));
      const text = decorate(column, cell);
      if (column.right === true) return pad + text;
      return index === columns.length - 1 ? text : text + pad;
    })
    .join(' '.repeat(GAP))
    .trimEnd();
}

export function truncate(text: string, width: number): string {
  const characters = [...text];
  return characters.length <= width ? text : `${characters.slice(0, Math.max(0, width - 1)).join('')}…`;
}

function length(text: string): number {
  return [...text].length;
}

export function paint(text: string, colour: Colour | undefined): string {
  return colour === undefined ? text : `\u001b[${CODES[colour]}m${text}\u001b[0m`;
}
