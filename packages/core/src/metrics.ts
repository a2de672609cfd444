// SPDX-License-Identifier: Apache-2.0
import type { Clock } from './clock/clock.ts';
import { BusbarError } from './errors.ts';

/**
 * What the daemons count and time through; packages/telemetry makes Prometheus series of it. A metric is a definition,
 * kept in one table per package, so that docs/metrics.md can list all of them.
 *
 * What changes by itself (how many, how old) is read when somebody asks and stored nowhere: what is gone is gone from
 * the answer, too. Labels have few values: never the name or the id of a VM, an operation or a caller.
 */
interface Definition<L extends string> {
  /** Prometheus' rules: base units, the unit as the suffix, `_total` for what only grows. */
  readonly name: string;
  /** One sentence; it is the page's text and Prometheus' HELP. */
  readonly help: string;
  readonly labels: readonly L[];
}
export interface CounterDefinition<L extends string = string> extends Definition<L> {
  readonly type: 'counter';
}
export interface GaugeDefinition<L extends string = string> extends Definition<L> {
  readonly type: 'gauge';
}
export interface HistogramDefinition<L extends string = string> extends Definition<L> {
  readonly type: 'histogram';
  /** Upper bounds, growing; the one to infinity is added. */
  readonly buckets: readonly number[];
}
export type MetricDefinition = CounterDefinition | GaugeDefinition | HistogramDefinition;

export function counter<L extends string>(name: string, help: string, labels: readonly L[]): CounterDefinition<L> {
  return { type: 'counter', name, help, labels };
}
export function gauge<L extends string>(name: string, help: string, labels: readonly L[]): GaugeDefinition<L> {
  return { type: 'gauge', name, help, labels };
}
export function histogram<L extends string>(
  name: string,
  help: string,
  buckets: readonly number[],
  labels: readonly L[],
): HistogramDefinition<L> {
  return { type: 'histogram', name, help, labels, buckets };
}

export type Labels<L extends string> = Readonly<Record<L, string>>;
export interface Sample<L extends string> {
  readonly labels: Labels<L>;
  readonly value: number;
}

export interface Counter<L extends string> {
  add(labels: Labels<L>): void;
}
export interface Histogram<L extends string> {
  observe(labels: Labels<L>, value: number): void;
}

export interface Metrics {
  counter<L extends string>(definition: CounterDefinition<L>): Counter<L>;
  histogram<L extends string>(definition: HistogramDefinition<L>): Histogram<L>;
  /** `read` is called for every scrape: quick, and without effects. Several readers of one metric are put together. */
  read<L extends string>(
    definition: GaugeDefinition<L> | CounterDefinition<L>,
    read: () => Iterable<Sample<NoInfer<L>>>,
  ): void;
}

/** Counts nothing: for tests and the simulation. */
export const noMetrics: Metrics = {
  counter: () => ({ add() {} }),
  histogram: () => ({ observe() {} }),
  read() {},
};

/**
 * Store, API and reconcilers: from 1 ms (one etcd write on a good disk takes 1 to 5 ms) to 5 s, behind the 3.5 s after
 * which a store call is given up. Factors of 2 to 2.5 tell p99 apart well enough to alert on.
 */
export const SHORT_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5] as const;
/** The pool and the hypervisor: a look takes milliseconds, a start seconds, a deletion in the pool minutes. */
export const LONG_BUCKETS = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300] as const;

/** One word for how something ended, for a label: `ok`, or the kind of the error. */
export function outcomeOf(error: unknown): string {
  if (error === null) return 'ok';
  return error instanceof BusbarError ? error.kind : 'internal';
}

export function one(value: number): readonly [Sample<never>] {
  return [{ labels: {}, value }];
}

/** Runs `work` and tells how long it took, in seconds, and what it threw; null when it went well. */
export async function timed<T>(
  clock: Clock,
  work: () => Promise<T>,
  tell: (seconds: number, error: unknown) => void,
): Promise<T> {
  const beganMs = clock.nowMs();
  const seconds = () => (clock.nowMs() - beganMs) / 1000;
  try {
    const value = await work();
    tell(seconds(), null);
    return value;
  } catch (error) {
    tell(seconds(), error ?? new Error('nothing was thrown'));
    throw error;
  }
}

/** The same object, with calls of the named methods timed: a driver does not know that it is watched. */
export function measured<T extends object, K extends string & keyof T>(
  target: T,
  methods: readonly K[],
  clock: Clock,
  tell: (method: K, seconds: number, error: unknown) => void,
): T {
  type Call = (...args: unknown[]) => Promise<unknown>;
  const wrapped = new Map<PropertyKey, Call>(
    methods.map((method) => {
      const call = (args: unknown[]) => (target[method] as Call).apply(target, args);
      const told = (seconds: number, error: unknown) => tell(method, seconds, error);
      return [method, (...args) => timed(clock, () => call(args), told)];
    }),
  );
  return new Proxy(target, {
    get(object, property) {
      const call = wrapped.get(property);
      if (call !== undefined) return call;
      const value: unknown = Reflect.get(object, property, object);
      // Bound to the object itself: private fields are not reached through a proxy.
      return typeof value === 'function' ? (value.bind(object) as unknown) : value;
    },
  });
}
