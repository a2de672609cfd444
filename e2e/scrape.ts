// SPDX-License-Identifier: Apache-2.0
// Reads Prometheus' text format. Not with prom-client, which wrote it.
export interface Scrape {
  /** `name{label="x"}` → value, as written. */
  readonly values: ReadonlyMap<string, number>;
  /** Sum over all series of a name whose labels contain these. */
  readonly sum: (name: string, labels?: Readonly<Record<string, string>>) => number;
}

const LINE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\.)*",?)*\})? (\S+)$/;

export function parseScrape(text: string): Scrape {
  const values = new Map<string, number>();
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('#')) continue;
    const [, name, labels = '', value] = LINE.exec(line) ?? [];
    // As Prometheus' own parser takes them, in any case: prom-client writes Nan for the mean of nothing.
    if (name === undefined || value === undefined || !/^(nan|[+-]?(inf|[\d.]+(e[+-]?\d+)?))$/i.test(value))
      throw new Error(`no line of Prometheus' format: ${line}`);
    if (values.has(name + labels)) throw new Error(`twice: ${name}${labels}`);
    values.set(name + labels, Number(value));
  }
  return {
    values,
    sum: (name, labels = {}) =>
      [...values]
        .filter(([series]) => series === name || series.startsWith(`${name}{`))
        .filter(([series]) => Object.entries(labels).every(([key, value]) => series.includes(`${key}="${value}"`)))
        .reduce((sum, [, value]) => sum + value, 0),
  };
}
