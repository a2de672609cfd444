// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { AGENT_METRICS } from '@busbar/agent/telemetry/metrics';
import { CONTROLLER_METRICS } from '@busbar/controller/telemetry/metrics';
import type { MetricDefinition } from '@busbar/core/metrics';
import { NATIVE_METRICS } from '@busbar/native/metrics';
import { describe, expect, it } from 'vitest';

/** docs/metrics.md is the operators' page: it lists every metric, as it is. */
const PAGE = readFileSync(fileURLToPath(new URL('../docs/metrics.md', import.meta.url)), 'utf8');
const TABLES: Readonly<Record<string, Readonly<Record<string, MetricDefinition>>>> = {
  Controller: CONTROLLER_METRICS,
  Agent: AGENT_METRICS,
  'Native children': NATIVE_METRICS,
};

function row({ name, type, labels, help }: MetricDefinition): string {
  return `| \`${name}\` | ${type} | ${labels.map((label) => `\`${label}\``).join(', ')} | ${help} |`;
}

describe('docs/metrics.md', () => {
  it.each(Object.keys(TABLES))('lists the metrics of: %s', (title) => {
    const section = PAGE.split(/^### /m).find((text) => text.startsWith(`${title}\n`)) ?? '';
    const rows = section.split('\n').filter((line) => line.startsWith('| `busbar_'));
    expect(rows).toEqual(Object.values(TABLES[title] ?? {}).map(row));
  });

  it('knows each alert rule', () => {
    const rules = readFileSync(
      fileURLToPath(new URL('../deploy/prometheus/busbar.rules.yaml', import.meta.url)),
      'utf8',
    );
    const alerts = [...rules.matchAll(/- alert: (\w+)/g)].map(([, name = '']) => name);
    const told = [...PAGE.matchAll(/^\| `(Busbar\w+)` \|/gm)].map(([, name = '']) => name);
    expect(told).toEqual(alerts);
  });
});

describe('the names', () => {
  const all = Object.values(TABLES).flatMap((table) => Object.values(table));

  it.each(all.map((definition) => [definition.name, definition] as const))(
    '%s follows the rules',
    (name, definition) => {
      expect(name).toMatch(/^busbar_[a-z_]+$/);
      // Base units, and the suffix that says what it is.
      expect(name).not.toMatch(/_(ms|milliseconds|kib|mib|percent)\b/);
      expect(name.endsWith('_total')).toBe(definition.type === 'counter');
      if (definition.type === 'histogram') {
        expect(name).toMatch(/_seconds$/);
        expect([...definition.buckets].sort((a, b) => a - b)).toEqual([...definition.buckets]);
      }
      expect(definition.help).toMatch(/\.$/);
      // Few values each: no label may hold a VM, an operation, a volume or a caller.
      for (const label of definition.labels)
        expect(['vm', 'id', 'name', 'operation', 'volume', 'caller']).not.toContain(label);
    },
  );

  it('are each used once', () => {
    expect(new Set(all.map(({ name }) => name)).size).toBe(all.length);
  });
});
