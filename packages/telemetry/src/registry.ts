// SPDX-License-Identifier: Apache-2.0
import { assert } from '@busbar/core/assert';
import type { MetricDefinition, Metrics, Sample } from '@busbar/core/metrics';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

export interface MetricsRegistry extends Metrics {
  /** Everything in Prometheus' text format. Those who ask at the same time share one answer. */
  text(): Promise<string>;
  readonly contentType: string;
}

interface Known {
  readonly definition: MetricDefinition;
  readonly meter: Counter | Gauge | Histogram;
  readonly readers: (() => Iterable<Sample<string>>)[];
}

/** One per process: prom-client's own series about the process and Node come with it. */
export function metricsRegistry(): MetricsRegistry {
  const registry = new Registry();
  const known = new Map<string, Known>();
  let running: Promise<string> | null = null;
  collectDefaultMetrics({ register: registry });

  /** Two users of one definition (two transports, two native libraries) share one meter. */
  function find(definition: MetricDefinition): Known {
    const found = known.get(definition.name);
    if (found !== undefined) {
      assert(found.definition === definition, `two definitions of metric ${definition.name}`);
      return found;
    }
    const readers: Known['readers'] = [];
    const made = { definition, meter: make(registry, definition, readers), readers };
    known.set(definition.name, made);
    return made;
  }

  return {
    counter(definition) {
      const meter = find(definition).meter as Counter;
      return { add: (labels) => meter.inc(labels as Record<string, string>) };
    },
    histogram(definition) {
      const meter = find(definition).meter as Histogram;
      return { observe: (labels, value) => meter.observe(labels as Record<string, string>, value) };
    },
    read(definition, read) {
      find(definition).readers.push(read as () => Iterable<Sample<string>>);
    },
    text() {
      running ??= registry.metrics().finally(() => {
        running = null;
      });
      return running;
    },
    contentType: registry.contentType,
  };
}

function make(
  registry: Registry,
  definition: MetricDefinition,
  readers: readonly (() => Iterable<Sample<string>>)[],
): Counter | Gauge | Histogram {
  const { name, help } = definition;
  const common = { name, help, labelNames: [...definition.labels], registers: [registry] };
  switch (definition.type) {
    case 'histogram':
      return new Histogram({ ...common, buckets: [...definition.buckets] });
    case 'counter':
      return new Counter({
        ...common,
        collect() {
          if (readers.length === 0) return;
          this.reset();
          for (const { labels, value } of samples(readers)) this.inc(labels, value);
        },
      });
    case 'gauge':
      return new Gauge({
        ...common,
        collect() {
          // So that what is gone is not told with its last value.
          this.reset();
          for (const { labels, value } of samples(readers)) this.set(labels, value);
        },
      });
  }
}

function samples(readers: readonly (() => Iterable<Sample<string>>)[]): readonly Sample<string>[] {
  return readers.flatMap((read) => [...read()]);
}
