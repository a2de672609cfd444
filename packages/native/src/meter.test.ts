// SPDX-License-Identifier: Apache-2.0
import type {
  CounterDefinition,
  GaugeDefinition,
  HistogramDefinition,
  Labels,
  Metrics,
  Sample,
} from '@busbar/core/metrics';
import { afterEach, expect, test, vi } from 'vitest';
import type { FixtureEvent, FixtureMethods } from './host.fixture.ts';
import { NativeHost } from './host.ts';

/** Keeps what it is told: `name label…` → the values. */
class Recorder implements Metrics {
  readonly told = new Map<string, number[]>();
  readonly #readers: { readonly name: string; readonly read: () => Iterable<Sample<string>> }[] = [];

  counter<L extends string>(definition: CounterDefinition<L>) {
    return { add: (labels: Labels<L>) => this.#tell(definition.name, labels, 1) };
  }
  histogram<L extends string>(definition: HistogramDefinition<L>) {
    return { observe: (labels: Labels<L>, value: number) => this.#tell(definition.name, labels, value) };
  }
  read<L extends string>(definition: GaugeDefinition<L> | CounterDefinition<L>, read: () => Iterable<Sample<L>>) {
    this.#readers.push({ name: definition.name, read });
  }
  now(name: string, label: string): number | undefined {
    const samples = this.#readers.filter((reader) => reader.name === name).flatMap(({ read }) => [...read()]);
    return samples.find(({ labels }) => Object.values(labels).join(' ') === label)?.value;
  }
  #tell(name: string, labels: object, value: number) {
    const key = `${name} ${Object.values(labels).join(' ')}`;
    this.told.set(key, [...(this.told.get(key) ?? []), value]);
  }
}

let recorder: Recorder;
let host: NativeHost<FixtureMethods, FixtureEvent, 'narrow'>;
function open(): void {
  recorder = new Recorder();
  host = new NativeHost({
    name: 'fixture',
    entry: new URL('./host.fixture.ts', import.meta.url),
    lanes: { narrow: { concurrency: 1, queueLimit: 2 } },
    backoffMs: { first: 10, max: 200 },
    metrics: recorder,
  });
}
afterEach(() => host.close());

const options = { lane: 'narrow', deadlineMs: 10_000 } as const;
const calls = (method: string, outcome: string) =>
  recorder.told.get(`busbar_native_call_seconds fixture ${method} ${outcome}`) ?? [];

test('a call is told with its time in the child, and apart from it its wait in the lane', async () => {
  open();
  await host.call('echo', 1, options);
  await Promise.all([host.call('slow', { ms: 200 }, options), host.call('slow', { ms: 200 }, options)]);
  await expect(host.call('refuse', null, options)).rejects.toThrow('it is there');
  expect(calls('echo', 'ok')).toHaveLength(1);
  expect(calls('refuse', 'already-exists')).toHaveLength(1);
  const waits = recorder.told.get('busbar_native_wait_seconds fixture narrow') ?? [];
  expect(waits).toHaveLength(4);
  // The second of the slow ones waited for the first, and that is no time of its own.
  expect(waits[2]).toBeGreaterThan(0.19);
  expect(waits[1]).toBeLessThan(waits[2] ?? 0);
  for (const seconds of calls('slow', 'ok')) expect(seconds).toBeGreaterThan(0.19);
});

test('what waits and what runs is read when asked, and so is how often a child was started', async () => {
  open();
  await host.call('echo', 1, options);
  const running = [1, 2, 3].map(() => host.call('slow', { ms: 100 }, options));
  expect(recorder.now('busbar_native_calls_waiting', 'fixture narrow')).toBe(2);
  expect(recorder.now('busbar_native_calls_running', 'fixture')).toBe(1);
  // A fourth finds no room.
  await expect(host.call('echo', 1, options)).rejects.toMatchObject({ reason: 'NATIVE_QUEUE_FULL' });
  expect(recorder.told.get('busbar_native_calls_refused_total fixture narrow')).toEqual([1]);
  await Promise.all(running);
  expect(recorder.now('busbar_native_calls_waiting', 'fixture narrow')).toBe(0);
  expect(recorder.now('busbar_native_calls_running', 'fixture')).toBe(0);
  expect(recorder.now('busbar_native_child_starts_total', 'fixture')).toBe(1);
});

test('a child that dies is told: its calls by their outcome, the next one as a start', async () => {
  open();
  await expect(host.call('crash', { words: 'boom' }, options)).rejects.toThrow('boom');
  await vi.waitFor(() => host.call('echo', 1, options), { timeout: 10_000 });
  expect(calls('crash', 'unavailable')).toHaveLength(1);
  expect(recorder.now('busbar_native_child_starts_total', 'fixture')).toBe(2);
});

test('a call that hangs counts as out of time', async () => {
  open();
  await host.call('echo', 1, options);
  await expect(host.call('hang', null, { lane: 'narrow', deadlineMs: 100 })).rejects.toMatchObject({ kind: 'timeout' });
  expect(calls('hang', 'timeout')).toHaveLength(1);
});
