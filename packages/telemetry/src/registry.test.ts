// SPDX-License-Identifier: Apache-2.0
import { counter, gauge, histogram, noMetrics } from '@busbar/core/metrics';
import { describe, expect, it } from 'vitest';
import { metricsRegistry } from './registry.ts';

const CALLS = counter('test_calls_total', 'Calls.', ['method']);
const VMS = gauge('test_vms', 'VMs.', ['phase']);
const AGE = gauge('test_age_seconds', 'Age.', []);
const TOOK = histogram('test_took_seconds', 'Time.', [0.1, 1], ['method']);
const STARTS = counter('test_starts_total', 'Starts.', ['library']);

const ours = (text: string) => text.split('\n').filter((line) => /^test_/.test(line));

describe('the registry', () => {
  it('counts and sorts into buckets', async () => {
    const registry = metricsRegistry();
    const calls = registry.counter(CALLS);
    calls.add({ method: 'a' });
    calls.add({ method: 'a' });
    calls.add({ method: 'b' });
    const took = registry.histogram(TOOK);
    for (const seconds of [0.05, 0.1, 0.5, 7]) took.observe({ method: 'a' }, seconds);
    expect(ours(await registry.text())).toEqual([
      'test_calls_total{method="a"} 2',
      'test_calls_total{method="b"} 1',
      'test_took_seconds_bucket{le="0.1",method="a"} 2',
      'test_took_seconds_bucket{le="1",method="a"} 3',
      'test_took_seconds_bucket{le="+Inf",method="a"} 4',
      'test_took_seconds_sum{method="a"} 7.65',
      'test_took_seconds_count{method="a"} 4',
    ]);
  });

  it('reads what changes by itself for each scrape: what is gone is gone', async () => {
    const registry = metricsRegistry();
    let phases = new Map([
      ['running', 2],
      ['stopped', 1],
    ]);
    registry.read(VMS, () => [...phases].map(([phase, value]) => ({ labels: { phase }, value })));
    registry.read(AGE, () => [{ labels: {}, value: 1.5 }]);
    expect(ours(await registry.text())).toEqual([
      'test_vms{phase="running"} 2',
      'test_vms{phase="stopped"} 1',
      'test_age_seconds 1.5',
    ]);
    phases = new Map([['stopped', 3]]);
    expect(ours(await registry.text())).toContain('test_vms{phase="stopped"} 3');
    expect(await registry.text()).not.toContain('running');
  });

  it('reads counters that somebody else counts, and puts several readers together', async () => {
    const registry = metricsRegistry();
    const counts = { libvirt: 1, librados: 4 };
    for (const library of ['libvirt', 'librados'] as const)
      registry.read(STARTS, () => [{ labels: { library }, value: counts[library] }]);
    counts.libvirt = 2;
    expect(ours(await registry.text())).toEqual([
      'test_starts_total{library="libvirt"} 2',
      'test_starts_total{library="librados"} 4',
    ]);
    expect(ours(await registry.text())).toHaveLength(2);
  });

  it('knows one definition of a name, and takes it from several users', () => {
    const registry = metricsRegistry();
    registry.counter(CALLS);
    expect(() => registry.counter(CALLS)).not.toThrow();
    expect(() => registry.counter({ ...CALLS })).toThrow('two definitions of metric test_calls_total');
  });

  it('tells of the process, too', async () => {
    const text = await metricsRegistry().text();
    for (const name of [
      'process_cpu_seconds_total',
      'process_resident_memory_bytes',
      'nodejs_eventloop_lag_p99_seconds',
    ])
      expect(text).toMatch(new RegExp(`^${name} [\\d.e+-]+$`, 'm'));
  });

  it('answers all who ask at once with one collection', async () => {
    const registry = metricsRegistry();
    let reads = 0;
    registry.read(AGE, () => {
      reads++;
      return [{ labels: {}, value: 1 }];
    });
    const texts = await Promise.all([registry.text(), registry.text(), registry.text()]);
    expect([reads, new Set(texts).size]).toEqual([1, 1]);
  });

  it('has a twin that counts nothing', () => {
    noMetrics.read(AGE, () => {
      throw new Error('was read');
    });
    noMetrics.counter(CALLS).add({ method: 'a' });
    noMetrics.histogram(TOOK).observe({ method: 'a' }, 1);
  });
});
