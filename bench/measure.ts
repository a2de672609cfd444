// SPDX-License-Identifier: Apache-2.0
/** One figure: ours and the peer's, taken in turn in the same run, so that a machine that gets slower slows both. */
export interface Comparison {
  readonly what: string;
  readonly peer: string;
  readonly rounds: number;
  readonly ours: (round: number) => Promise<number>;
  readonly theirs: (round: number) => Promise<number>;
}

export interface Row {
  readonly what: string;
  readonly peer: string;
  readonly oursMs: number;
  readonly theirsMs: number;
  /** Median of the ratios of each pair: ours / theirs. */
  readonly ratio: number;
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

/** One uncounted round first: caches, connections and children are warm on both sides. */
export async function compare(comparison: Comparison): Promise<Row> {
  const ours: number[] = [];
  const theirs: number[] = [];
  for (let round = 0; round <= comparison.rounds; round++) {
    const mine = await comparison.ours(round);
    const other = await comparison.theirs(round);
    if (round === 0) continue;
    ours.push(mine);
    theirs.push(other);
  }
  return {
    what: comparison.what,
    peer: comparison.peer,
    oursMs: median(ours),
    theirsMs: median(theirs),
    ratio: median(ours.map((value, index) => value / (theirs[index] ?? Number.NaN))),
    rounds: comparison.rounds,
  };
}

export function table(rows: readonly Row[]): string {
  const cells = [
    ['measure', 'ours ms', 'peer ms', 'ratio', 'n', 'peer'],
    ...rows.map((row) => [
      row.what,
      row.oursMs.toFixed(0),
      row.theirsMs.toFixed(0),
      `${row.ratio.toFixed(2)}×`,
      String(row.rounds),
      row.peer,
    ]),
  ];
  const widths = (cells[0] ?? []).map((_, column) => Math.max(...cells.map((line) => (line[column] ?? '').length)));
  return cells
    .map((line) =>
      line
        .map((cell, column) =>
          column === 0 || column === 5 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
        )
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
