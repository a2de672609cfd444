// SPDX-License-Identifier: Apache-2.0
import { expect, test } from 'vitest';
import { volumeBound } from './bound.ts';
import { HOST } from './flavour.ts';
import { generate, MIXES, meanOf } from './generate.ts';
import { streamOf } from './stream.ts';
import { packTrace, parseTrace, readTrace, TraceUnreadable, unpackTrace } from './trace.ts';

test('the same seed gives the same stream, a longer one begins as a shorter one, another seed gives another', () => {
  const stream = generate(MIXES.skew, 7, 200);
  expect(generate(MIXES.skew, 7, 200)).toEqual(stream);
  expect(generate(MIXES.skew, 7, 100)).toEqual(stream.slice(0, 100));
  expect(generate(MIXES.skew, 8, 200)).not.toEqual(stream);
});

test.each(Object.entries(MIXES))('the shares of %s add up to 1', (_, mix) => {
  expect(mix.reduce((sum, { share }) => sum + share, 0)).toBeCloseTo(1, 9);
});

test('skew asks for a little more memory per vCPU than a host has, ot for less', () => {
  const perVcpu = (mix: Parameters<typeof meanOf>[0]) => meanOf(mix).memoryGib / meanOf(mix).vcpus;
  expect(perVcpu(MIXES.skew)).toBeCloseTo(4.06, 1);
  expect(perVcpu(MIXES.ot)).toBeLessThan(3);
});

test('a stream goes on behind its bound, on every size of cluster', () => {
  const trace = readTrace();
  for (const hosts of [20, 100, 400]) {
    for (const name of ['ot', 'skew', 'uniform', 'trace'] as const) {
      const { arrivals, bound } = streamOf(name, 1, hosts, trace);
      expect(arrivals.length).toBe(Math.ceil(bound * 1.15));
    }
  }
});

test('a seed of the trace begins at its own part', () => {
  const trace = readTrace();
  expect(streamOf('trace', 1, 20, trace).arrivals[0]).toEqual(trace[0]);
  expect(streamOf('trace', 3, 20, trace).arrivals[0]).toEqual(trace[24_000]);
});

test('the volume bound ends where the first dimension does', () => {
  const vm = (vcpus: number, gib: number) => ({ vcpus, memoryMib: gib * 1024, batch: 0 });
  expect(volumeBound([vm(32, 1), vm(32, 1), vm(1, 1)], 1, HOST)).toBe(2);
  expect(volumeBound([vm(1, 200), vm(1, 56), vm(1, 1)], 1, HOST)).toBe(2);
  expect(volumeBound([vm(32, 1), vm(32, 1), vm(1, 1)], 2, HOST)).toBe(3);
});

test('the trace survives packing', () => {
  const csv = 'seq,time_s,batch,vcpu,mem_gib,mem_mib\n0,0,0,8,14.0,14336\n1,0,1,1,0.75,768\n2,0,1,1,0.75,768\n';
  const arrivals = parseTrace(csv);
  expect(arrivals).toEqual([
    { vcpus: 8, memoryMib: 14336, batch: 0 },
    { vcpus: 1, memoryMib: 768, batch: 1 },
    { vcpus: 1, memoryMib: 768, batch: 1 },
  ]);
  expect(unpackTrace(`# a comment\n${packTrace(arrivals)}`)).toEqual(arrivals);
});

test('a trace without its columns, or with a word for a number, is refused with the reason', () => {
  expect(() => parseTrace('vcpu,mem_mib\n1,2\n')).toThrow(TraceUnreadable);
  expect(() => parseTrace('batch,vcpu,mem_mib\n1,two,3\n')).toThrow('line 2 of the trace: vcpu is no whole number');
});

test('the committed trace has all 60,000 arrivals', () => {
  const trace = readTrace();
  expect(trace).toHaveLength(60_000);
  expect(trace[0]).toEqual({ vcpus: 8, memoryMib: 14336, batch: 0 });
  expect(trace.at(-1)?.batch).toBe(13_766);
});
