// SPDX-License-Identifier: Apache-2.0
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { AGENT_METRICS } from '@busbar/agent/telemetry/metrics';
import { measuredPipeline } from '@busbar/controller/api/measured';
import { pipeline } from '@busbar/controller/api/pipeline';
import { CONTROLLER_METRICS } from '@busbar/controller/telemetry/metrics';
import { ADMIT_ALL } from '@busbar/controller/testing/callers';
import { silentLogger } from '@busbar/core/log';
import { nativeMeter } from '@busbar/native/meter';
import { NATIVE_METRICS } from '@busbar/native/metrics';
import { type MetricsRegistry, metricsRegistry } from '@busbar/telemetry/registry';
import { describe, expect, it } from 'vitest';
import { World } from './world.ts';

/** Prometheus' own tool judges what we serve and what we ship. */
const RULES = fileURLToPath(new URL('../../deploy/prometheus', import.meta.url));

function promtool(args: readonly string[], input = '') {
  const { status, stdout, stderr, error } = spawnSync('promtool', args, {
    input,
    cwd: RULES,
    encoding: 'utf8',
    timeout: 30_000,
  });
  if (error !== undefined) throw error;
  return { status, output: `${stdout}${stderr}`.trim() };
}

describe('promtool', () => {
  it('finds nothing wrong with the metrics of a controller and an agent', async () => {
    const registries = new Map<string, MetricsRegistry>();
    const world = new World({
      seed: 3,
      metricsOf: (who) => {
        const registry = metricsRegistry();
        registries.set(who, registry);
        return registry;
      },
    });
    await world.clock.advance(10_000);
    for (const who of ['controller host1', 'agent host1']) {
      const registry = registries.get(who) as MetricsRegistry;
      measuredPipeline(
        pipeline({
          logger: silentLogger,
          trail: { note: () => null, admit() {} },
          admission: ADMIT_ALL,
          clock: world.clock,
        }),
        'grpc',
        {
          metrics: registry,
          clock: world.clock,
        },
      );
      nativeMeter('librados', registry, world.clock, {
        lanes: () => [['short', 0]],
        running: () => 0,
        starts: () => 1,
      });
      const ours = (await registry.text()).replace(/^(# \w+ )?(process|nodejs)_.*\n/gm, '');
      expect(promtool(['check', 'metrics'], ours)).toEqual({ status: 0, output: '' });
      // And it can tell.
      expect(promtool(['check', 'metrics'], ours.replaceAll('_total', '')).status).not.toBe(0);
    }
  });

  it('finds the alert rules sound, and that each fires when it shall and not otherwise', () => {
    expect(promtool(['check', 'rules', 'busbar.rules.yaml'])).toMatchObject({ status: 0 });
    expect(promtool(['test', 'rules', 'busbar.rules.test.yaml'])).toMatchObject({ status: 0 });
    expect(promtool(['check', 'config', '--syntax-only', 'prometheus.yaml'])).toMatchObject({ status: 0 });
  });
});

describe('the alert rules', () => {
  it('speak of metrics that exist', () => {
    const known = [CONTROLLER_METRICS, AGENT_METRICS, NATIVE_METRICS]
      .flatMap((table) => Object.values(table))
      .map(({ name }) => name);
    const used = new Set(readFileSync(`${RULES}/busbar.rules.yaml`, 'utf8').match(/\bbusbar_\w+/g));
    expect(used.size).toBeGreaterThan(8);
    for (const name of used) expect(known).toContain(name.replace(/_(bucket|count|sum)$/, ''));
  });
});
