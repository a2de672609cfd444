// SPDX-License-Identifier: Apache-2.0
/** One figure: ours and the peer's, taken in turn in the same run, so that a machine that gets slower slows both. */
export interface Comparison<T> {
  readonly what: string;
  readonly peer: string;
  readonly rounds: number;
  readonly ours: (round: number) => Promise<T>;
  readonly theirs: (round: number) => Promise<T>;
}

export interface Row {
  readonly what: string;
  readonly peer: string;
  /** With its unit. */
  readonly ours: string;
  readonly theirs: string;
  /** Median over the pairs; null when there is no peer. */
  readonly ratio: number | null;
  /** What the ratio is asked to be, e.g. "≤ 1.10". */
  readonly goal: string;
  readonly rounds: number;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const [low, high] = [sorted[middle - 1] ?? Number.NaN, sorted[middle] ?? Number.NaN];
  return sorted.length % 2 === 1 ? high : (low + high) / 2;
}

export async function timed(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

/** One uncounted round first: caches, connections and children are warm on both sides. Who begins a pair alternates. */
async function pairs<T>(
  comparison: Comparison<T>,
): Promise<{ readonly ours: readonly T[]; readonly theirs: readonly T[] }> {
  const ours: T[] = [];
  const theirs: T[] = [];
  for (let round = 0; round <= comparison.rounds; round++) {
    const first = round % 2 === 0 ? await comparison.ours(round) : null;
    const other = await comparison.theirs(round);
    const mine = first ?? (await comparison.ours(round));
    if (round === 0) continue;
    ours.push(mine);
    theirs.push(other);
  }
  return { ours, theirs };
}

const ratios = (ours: readonly number[], theirs: readonly number[]): number =>
  median(ours.map((value, index) => value / (theirs[index] ?? Number.NaN)));

/** Milliseconds: the ratio is ours / theirs, below 1 is faster than the peer. */
export async function timeRow(comparison: Comparison<number> & { readonly goal: string }): Promise<Row> {
  const { ours, theirs } = await pairs(comparison);
  const { what, peer, goal, rounds } = comparison;
  return { what, peer, goal, rounds, ours: ms(median(ours)), theirs: ms(median(theirs)), ratio: ratios(ours, theirs) };
}

export interface Load {
  readonly perSecond: number;
  readonly medianMs: number;
}

/** Calls per second: the ratio is ours / theirs, above 1 is more than the peer. */
export async function rateRow(comparison: Comparison<Load> & { readonly goal: string }): Promise<Row> {
  const { ours, theirs } = await pairs(comparison);
  const { what, peer, goal, rounds } = comparison;
  const rates = (loads: readonly Load[]) => loads.map(({ perSecond }) => perSecond);
  const text = (loads: readonly Load[]): string =>
    `${Math.round(median(rates(loads)))}/s ${ms(median(loads.map(({ medianMs }) => medianMs)))}`;
  return {
    what,
    peer,
    goal,
    rounds,
    ours: text(ours),
    theirs: text(theirs),
    ratio: ratios(rates(ours), rates(theirs)),
  };
}

export function ms(value: number): string {
  return `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ms`;
}

function times(ratio: number | null): string {
  if (ratio === null) return '–';
  return `${ratio < 100 ? ratio.toFixed(2) : Math.round(ratio).toLocaleString('en')}×`;
}

export function table(rows: readonly Row[]): string {
  const cells = [
    ['measure', 'ours', 'peer', 'ratio', 'goal', 'n', 'peer is'],
    ...rows.map((row) => [row.what, row.ours, row.theirs, times(row.ratio), row.goal, String(row.rounds), row.peer]),
  ];
  const widths = (cells[0] ?? []).map((_, column) => Math.max(...cells.map((line) => (line[column] ?? '').length)));
  const left = new Set([0, 4, 6]);
  return cells
    .map((line) =>
      line
        .map((cell, column) =>
          left.has(column) ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
        )
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
