// SPDX-License-Identifier: Apache-2.0
/**
 * `busbar explain` and the check of manifests tell limits that the controller enforces. Each side has its own code,
 * because neither may import the other; this holds them together.
 */
import { DOCUMENTS } from '@busbar/cli/manifest/kinds';
import type { ObjectShape, Shape } from '@busbar/cli/manifest/shape';
import { vmSpecSchema } from '@busbar/controller/vm/spec';
import { CpuPolicy, VmSpec } from '@busbar/proto/gen/busbar/v1/vm';
import { describe, expect, test } from 'vitest';

interface Limit {
  readonly path: readonly string[];
  readonly min: number;
  readonly max: number;
}

function limits(shape: Shape, path: readonly string[]): Limit[] {
  switch (shape.type) {
    case 'int':
      return [{ path, min: shape.min, max: shape.max }];
    case 'object':
      return [...shape.fields].flatMap(([name, inner]) => limits(inner, [...path, name]));
    case 'list':
      return limits(shape.of, [...path, '0']);
    default:
      return [];
  }
}

/** A spec that the controller takes, with one number in it. */
function withNumber(path: readonly string[], value: number): VmSpec {
  const spec = VmSpec.fromPartial({
    cpu: { vcpus: 2, topology: {}, policy: CpuPolicy.REALTIME },
    memoryBytes: 1024n ** 3n,
    disks: [{ name: 'boot', sizeBytes: 1024n ** 3n }],
    nics: [{ name: 'nic0', network: 'plant' }],
    ha: {},
    numa: { cells: [{ vcpus: 2, memoryBytes: 1024n ** 3n }] },
    devices: [{ class: 'nic' }],
    placement: {},
  });
  let at = spec as unknown as Record<string, unknown>;
  for (const step of path.slice(0, -1)) at = at[step] as Record<string, unknown>;
  at[path.at(-1) ?? ''] = value;
  return spec;
}

/** Whether the controller has something against exactly this field. */
function refused(path: readonly string[], value: number): boolean {
  const result = vmSpecSchema.safeParse(withNumber(path, value));
  const text = path.join('.');
  return !result.success && result.error.issues.some((issue) => issue.path.join('.') === text);
}

const shape = DOCUMENTS.Vm.fields.get('spec') as ObjectShape;
const all = limits(shape, []);

test('there are numbers to compare', () => expect(all.length).toBeGreaterThanOrEqual(6));

describe.each(all)('$path: $min to $max', ({ path, min, max }) => {
  test.each([
    [min, false],
    [max, false],
    [min - 1, true],
    [max + 1, true],
  ])('%i', (value, wrong) => expect(refused(path, value)).toBe(wrong));
});
