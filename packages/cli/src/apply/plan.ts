// SPDX-License-Identifier: Apache-2.0
/** From one document and what exists to the calls that make them agree. Pure. */
import type { ResourceMeta } from '@busbar/proto/gen/busbar/v1/common';
import { RunPolicy } from '@busbar/proto/gen/busbar/v1/vm';
import type { PlainObject } from '../manifest/check.ts';
import { networkSpec, vmSpec, volumeSpec } from '../manifest/kinds.ts';
import type { Manifest } from '../manifest/parse.ts';
import { map, type ObjectShape } from '../manifest/shape.ts';
import { type Difference, differences, overlay, type Resolve, sameMap } from './compare.ts';

export interface Existing {
  readonly meta?: ResourceMeta | undefined;
  readonly spec?: object | undefined;
}

export type Step =
  | { readonly type: 'create' }
  /** Labels and spec by the Update call. */
  | {
      readonly type: 'update';
      readonly labels: Record<string, string>;
      readonly spec: PlainObject;
      readonly mask: readonly string[];
    }
  | { readonly type: 'start' }
  | { readonly type: 'stop' }
  | { readonly type: 'resize'; readonly sizeBytes: bigint };

export interface Plan {
  readonly steps: readonly Step[];
  /** Paths that differ, for people. */
  readonly changed: readonly string[];
  /** The same with the values. */
  readonly differences: readonly Difference[];
  /** Differences that no call can remove. */
  readonly impossible: readonly string[];
}

export const SHAPES: Readonly<Record<Manifest['kind'], ObjectShape>> = {
  Vm: vmSpec,
  Volume: volumeSpec,
  Network: networkSpec,
};

export function plan(manifest: Manifest, existing: Existing | undefined, resolve: Resolve): Plan {
  if (existing === undefined) return { steps: [{ type: 'create' }], changed: [], differences: [], impossible: [] };
  const { labels } = manifest;
  const before = existing.meta?.labels ?? {};
  const labelsChanged = labels !== undefined && !sameMap(labels, before);
  const specDiffers = differences(manifest.spec, existing.spec, SHAPES[manifest.kind], 'spec', resolve);
  const specChanged = specDiffers.map(({ path }) => path);
  const changed = [...(labelsChanged ? ['labels'] : []), ...specChanged];
  const all = labelsChanged ? [{ path: 'labels', shape: map, before, after: labels }, ...specDiffers] : specDiffers;
  const newLabels = { ...(labels ?? before) };
  switch (manifest.kind) {
    case 'Vm':
      return { ...planVm(manifest.spec, existing, newLabels, changed), differences: all };
    case 'Volume': {
      const size = manifest.spec['sizeBytes'];
      const resizes = changed.includes('spec.sizeBytes') && typeof size === 'bigint';
      const steps: Step[] = resizes ? [{ type: 'resize', sizeBytes: size }] : [];
      return { steps, changed, differences: all, impossible: changed.filter((path) => path !== 'spec.sizeBytes') };
    }
    case 'Network': {
      const steps: Step[] = labelsChanged ? [{ type: 'update', labels: newLabels, spec: {}, mask: ['labels'] }] : [];
      return { steps, changed, differences: all, impossible: specChanged };
    }
  }
}

function planVm(
  wanted: PlainObject,
  existing: Existing,
  labels: Record<string, string>,
  changed: readonly string[],
): Omit<Plan, 'differences'> {
  const power = changed.includes('spec.runPolicy');
  // Starting and stopping are calls of their own, because they can be waited for.
  const updated = changed.filter((path) => path !== 'spec.runPolicy');
  const mask = [...new Set(updated.map((path) => /^(labels|spec\.[A-Za-z0-9]+)/.exec(path)?.[0] ?? path))];
  const { runPolicy, ...rest } = wanted;
  const steps: Step[] = [];
  if (mask.length > 0) steps.push({ type: 'update', labels, spec: overlay(existing.spec, rest, vmSpec), mask });
  if (power) steps.push({ type: runPolicy === RunPolicy.STOPPED ? 'stop' : 'start' });
  return { steps, changed, impossible: [] };
}
