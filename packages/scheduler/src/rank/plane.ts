// SPDX-License-Identifier: Apache-2.0
import { GENERAL, ISOLATED, MEMORY, PAGES_1G, PAGES_2M, THREADS, WIDE } from '../capacity/dimensions.ts';
import type { Shape } from '../shape/shape.ts';
import type { Mix } from './mix.ts';

/**
 * CPUs of one pool and memory of one kind: what most VMs take, and where room is wasted when one runs out before the other.
 * A plane knows what a NUMA node with c of the one and m of the other left will waste in the end, if it is filled on with the
 * VMs that are expected. A placement costs as much as it makes that worse.
 *
 * The expectation is of a chooser: of the next few requests, a node gets one that suits it, since the others go elsewhere. With
 * K requests to choose from, the i-th best of those that fit is taken with probability r^K - (r - q)^K, where q is its share
 * among them and r the share of it and all worse ones: the minimum of K draws. K is 8: 4 to 16 do equally well, fewer are too
 * pessimistic, many forget that a rare request may not come. Measured on streams in which CPUs and memory
 * both run out: 99 % and more of the volume bound, where best fit reaches 92 and the gradient of fragmentation 97.
 */
export interface Plane {
  readonly cpuDimension: number;
  /** Where a VM says what it takes: on hosts with two threads a core, a VM that wants cores takes both. */
  readonly demandDimension: number;
  readonly memoryDimension: number;
  /** How many expected VMs a node holds that is used up: turns waste into requests. */
  readonly requestsPerNode: number;
  readonly cpuUnit: number;
  readonly memoryUnit: number;
  readonly columns: number;
  /** Expected waste, in shares of the largest node's CPUs and memory, at their prices, added: [cpu * columns + memory]. */
  readonly waste: Float64Array;
}

/** Some 3 ms to fill. 64 CPUs in steps of one and 256 GiB in steps of one, for instance. */
const CELLS_MAX = 65 * 257;
/** Of the expected VMs: below, the rest is no exception any more. */
const SHARE_MIN = 0.9;
/** More kinds of requests say little more. */
const REQUESTS_MAX = 16;

export interface Request {
  readonly cpu: number;
  readonly memory: number;
  readonly weight: number;
}

/**
 * The plane on which nearly all expected VMs lie; null when they lie on several, as with hugepages for some of them: those compete
 * for CPUs, and what one plane wastes is another's gain.
 */
export function planeOf(mix: Mix, capacity: Int32Array, stride: number, smt: boolean): Plane | null {
  const key = (shape: Shape) => dimensionsOf(shape).join();
  const shares = new Map<string, number>();
  for (const [i, shape] of mix.shapes.entries()) {
    shares.set(key(shape), (shares.get(key(shape)) ?? 0) + (mix.weights[i] ?? 0));
  }
  const [most] = [...shares].toSorted(([, a], [, b]) => b - a);
  const first = mix.shapes.find((shape) => key(shape) === most?.[0]);
  if (most === undefined || first === undefined || most[1] < SHARE_MIN) return null;
  const [pool, memoryDimension] = dimensionsOf(first);
  const requests = mix.shapes.flatMap((shape, i): readonly Request[] => {
    if (key(shape) !== most[0]) return [];
    const cpu = amountOf(shape, pool + (smt ? WIDE : THREADS));
    return [{ cpu, memory: amountOf(shape, memoryDimension), weight: mix.weights[i] ?? 0 }];
  });
  const [cpuMost, memoryMost] = [pool + THREADS, memoryDimension].map((at) => largest(capacity, at, stride));
  if (cpuMost === undefined || memoryMost === undefined || cpuMost <= 0 || memoryMost <= 0) return null;
  const { cpuUnit, memoryUnit } = unitsFor(requests, cpuMost, memoryMost);
  const [rows, columns] = [Math.floor(cpuMost / cpuUnit) + 1, Math.floor(memoryMost / memoryUnit) + 1];
  const scaled = requests.map(({ cpu, memory, weight }) => ({
    cpu: Math.max(1, Math.round(cpu / cpuUnit)),
    memory: Math.max(1, Math.round(memory / memoryUnit)),
    weight,
  }));
  const size = requests.reduce(
    (sum, { cpu, memory, weight }) => sum + weight * (cpu / cpuMost + memory / memoryMost),
    0,
  );
  return {
    cpuDimension: pool + THREADS,
    demandDimension: pool + (smt ? WIDE : THREADS),
    memoryDimension,
    requestsPerNode: most[1] / Math.max(size, Number.EPSILON),
    cpuUnit,
    memoryUnit,
    columns,
    waste: rememberedTable(scaled, rows, columns, pricesOf(requests, cpuMost, memoryMost)),
  };
}

/** Whether the plane judges this shape. */
export function isOn(plane: Plane, shape: Shape): boolean {
  const [pool, memory] = dimensionsOf(shape);
  return plane.cpuDimension === pool + THREADS && plane.memoryDimension === memory;
}

function largest(capacity: Int32Array, dimension: number, stride: number): number {
  let most = 0;
  for (let at = dimension; at < capacity.length; at += stride) most = Math.max(most, capacity[at] as number);
  return most;
}

/** The waste of a node with that much left. */
export function wasteAt(plane: Plane, cpu: number, memory: number): number {
  const row = cpu <= 0 ? 0 : Math.floor(cpu / plane.cpuUnit);
  const column = memory <= 0 ? 0 : Math.floor(memory / plane.memoryUnit);
  return plane.waste[row * plane.columns + column] as number;
}

function dimensionsOf({ needs }: Shape): readonly [number, number] {
  const memory = needs.hugepageMib === 0 ? MEMORY : needs.hugepageMib === 2 ? PAGES_2M : PAGES_1G;
  return [needs.cpuPolicy === 'realtime' ? ISOLATED : GENERAL, memory];
}

function amountOf({ whole }: Shape, dimension: number): number {
  const at = whole?.general.dimensions.indexOf(dimension) ?? -1;
  return at < 0 ? 0 : (whole?.general.amounts[at] ?? 0);
}

/** Steps in which everything is a whole number, or coarser ones when the table would be too large. */
function unitsFor(
  requests: readonly Request[],
  cpuMost: number,
  memoryMost: number,
): { readonly cpuUnit: number; readonly memoryUnit: number } {
  const exact = (amounts: readonly number[]) => Math.max(1, amounts.reduce(greatestCommonDivisor, 0));
  let cpuUnit = exact(requests.map(({ cpu }) => cpu));
  let memoryUnit = exact(requests.map(({ memory }) => memory));
  const rows = () => Math.floor(cpuMost / cpuUnit) + 1;
  const columns = () => Math.floor(memoryMost / memoryUnit) + 1;
  while (rows() * columns() > CELLS_MAX) {
    if (rows() > columns()) cpuUnit *= 2;
    else memoryUnit *= 2;
  }
  return { cpuUnit, memoryUnit };
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

/** A planner is made for each round of decisions, with the expectations of the one before: the last few tables are kept. */
const tables = new Map<string, Float64Array>();
const TABLES_MAX = 8;

function rememberedTable(requests: readonly Request[], rows: number, columns: number, prices: Prices): Float64Array {
  const key = JSON.stringify([rows, columns, prices, requests.map(({ cpu, memory, weight }) => [cpu, memory, weight])]);
  const table = tables.get(key) ?? wasteTable(requests, rows, columns, prices);
  tables.delete(key);
  tables.set(key, table);
  const [oldest] = tables.keys();
  if (tables.size > TABLES_MAX && oldest !== undefined) tables.delete(oldest);
  return table;
}

/** What a share of a node's CPUs and of its memory is worth when it is wasted. */
export interface Prices {
  readonly cpu: number;
  readonly memory: number;
}

/** What is asked for less, in shares of a node, will be left over anyway: it is worth the square of the ratio of the two. */
function pricesOf(requests: readonly Request[], cpuMost: number, memoryMost: number): Prices {
  const cpu = requests.reduce((sum, request) => sum + request.weight * request.cpu, 0) / cpuMost;
  const memory = requests.reduce((sum, request) => sum + request.weight * request.memory, 0) / memoryMost;
  return { cpu: Math.min(1, cpu / memory) ** 2, memory: Math.min(1, memory / cpu) ** 2 };
}

/** By dynamic programming over what is left, from nothing upwards. */
export function wasteTable(all: readonly Request[], rows: number, columns: number, prices: Prices): Float64Array {
  const requests = merged(all);
  const waste = new Float64Array(rows * columns);
  const value = new Float64Array(requests.length);
  const weight = new Float64Array(requests.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      let count = 0;
      let sum = 0;
      for (const request of requests) {
        if (request.cpu > row || request.memory > column) continue;
        const after = waste[(row - request.cpu) * columns + column - request.memory] as number;
        // Kept in order of their value: there are few.
        let at = count++;
        for (; at > 0 && (value[at - 1] as number) > after; at--) {
          value[at] = value[at - 1] as number;
          weight[at] = weight[at - 1] as number;
        }
        value[at] = after;
        weight[at] = request.weight;
        sum += request.weight;
      }
      if (count === 0) {
        waste[row * columns + column] =
          (prices.cpu * row) / Math.max(1, rows - 1) + (prices.memory * column) / Math.max(1, columns - 1);
        continue;
      }
      let expected = 0;
      let rest = 1;
      for (let i = 0; i < count; i++) {
        const worse = Math.max(0, rest - (weight[i] as number) / sum);
        expected += (chosen(rest) - chosen(worse)) * (value[i] as number);
        rest = worse;
      }
      waste[row * columns + column] = expected;
    }
  }
  return waste;
}

/** r^8. Multiplied out: this is where the time goes. */
function chosen(rest: number): number {
  const squared = rest * rest;
  const fourth = squared * squared;
  return fourth * fourth;
}

/** Equal ones as one, and of too many those that take most in all. */
function merged(requests: readonly Request[]): readonly Request[] {
  const groups = Map.groupBy(requests, ({ cpu, memory }) => `${cpu} ${memory}`);
  return [...groups.values()]
    .map((equal) => ({ ...(equal[0] as Request), weight: equal.reduce((sum, { weight }) => sum + weight, 0) }))
    .toSorted(
      (a, b) => b.weight * (b.cpu + b.memory) - a.weight * (a.cpu + a.memory) || a.cpu - b.cpu || a.memory - b.memory,
    )
    .slice(0, REQUESTS_MAX);
}
