// SPDX-License-Identifier: Apache-2.0
/** Every way to choose, to order, to split and to combine, for the oracle. */

export function* combinations<T>(items: readonly T[], count: number, from = 0): Generator<readonly T[]> {
  if (count === 0) yield [];
  else {
    for (let i = from; i <= items.length - count; i++) {
      for (const rest of combinations(items, count - 1, i + 1)) yield [items[i] as T, ...rest];
    }
  }
}

export function* arrangements<T>(items: readonly T[], count: number): Generator<readonly T[]> {
  if (count === 0) yield [];
  else if (count <= items.length) {
    for (const item of items) {
      for (const rest of arrangements(
        items.filter((other) => other !== item),
        count - 1,
      ))
        yield [item, ...rest];
    }
  }
}

/** All ways to write `sum` as so many parts, 0 included. */
export function* partitions(sum: number, parts: number): Generator<readonly number[]> {
  if (parts === 0) return;
  if (parts === 1) yield [sum];
  else {
    for (let first = 0; first <= sum; first++)
      for (const rest of partitions(sum - first, parts - 1)) yield [first, ...rest];
  }
}

export function* product<T>(choices: readonly (readonly T[])[]): Generator<readonly T[]> {
  const [first, ...others] = choices;
  if (first === undefined) yield [];
  else for (const item of first) for (const rest of product(others)) yield [item, ...rest];
}
