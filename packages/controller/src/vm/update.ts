// SPDX-License-Identifier: Apache-2.0
import type { VmRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import type { UpdateVmRequest, VmSpec } from '@busbar/proto/gen/busbar/v1/vm';
import { z } from 'zod';
import type { Api } from '../api/call.ts';
import type { Plan } from '../api/mutate.ts';
import { assertNotDeleting, assertRevision, find } from '../api/refusals.ts';
import { invalid, parse, show } from '../api/validation.ts';
import { putRecord } from '../records/kinds.ts';
import type { Compare, Write } from '../store/cluster-store.ts';
import { unchanged } from '../view/table.ts';
import { resealCloudInit } from './cloud-init.ts';
import { resolveReferences } from './create.ts';
import { assertSameDisks, vmSpecSchema, withDefaults } from './spec.ts';

/** Every field of VmSpec that a mask may name. The type makes a forgotten one a compile error. */
const SPEC_FIELDS: Readonly<Record<keyof VmSpec, true>> = {
  runPolicy: true,
  cpu: true,
  memoryBytes: true,
  machineType: true,
  firmware: true,
  disks: true,
  nics: true,
  serialConsoleDisabled: true,
  guestAgentDisabled: true,
  watchdog: true,
  cloudInit: true,
  ha: true,
  isolationPolicy: true,
  placement: true,
  shutdownTimeoutMs: true,
  hugepages: true,
  memoryLocked: true,
  numa: true,
  devices: true,
};

export function planUpdate(api: Api, request: UpdateVmRequest): Plan<VmRecord> {
  const entry = find(api.view.tables.vm, request.vm);
  const { meta, spec } = entry.record;
  const name = meta?.name ?? '';
  assertRevision('vm', name, entry, request.revision);
  assertNotDeleting('vm', entry);
  if (meta === undefined || spec === undefined)
    throw invalid([{ field: 'vm', problem: 'has an incomplete record', expected: 'a VM of this version' }]);
  const mask = readMask(request.updateMask);
  const compare: Compare[] = [unchanged('vm', entry)];
  const writes: Write[] = [];
  let nextSpec = spec;
  let { sealedCloudInit } = entry.record;
  if (mask.spec.size > 0) {
    if (request.spec === undefined)
      throw invalid([
        { field: 'spec', problem: 'is missing', expected: `the fields of updateMask: ${[...mask.spec].join(', ')}` },
      ]);
    const merged: VmSpec = { ...spec };
    for (const field of mask.spec) Object.assign(merged, { [field]: request.spec[field] });
    const { spec: checked } = parse(specHolder, { spec: merged });
    const resolved = resolveReferences(api, withDefaults(checked, entry.id), { compare, writes }, entry.id);
    if (mask.spec.has('cloudInit'))
      sealedCloudInit = resealCloudInit(api.seal, entry.id, checked.cloudInit, sealedCloudInit);
    nextSpec = { ...resolved, cloudInit: undefined };
    assertSameDisks(spec, nextSpec);
  }
  const next: VmRecord = {
    ...entry.record,
    meta: { ...meta, labels: mask.labels ? request.labels : meta.labels, updateTime: api.clock.wallTime() },
    spec: nextSpec,
    sealedCloudInit,
    // How the last stop was to be done says nothing about this one.
    ...(nextSpec.runPolicy === spec.runPolicy ? {} : { stopByForce: false, stopTimeoutMs: 0 }),
  };
  return {
    compare,
    writes: [putRecord('vm', entry.id, next), ...writes],
    ids: { operationId: '', resourceId: entry.id },
    extra: next,
  };
}

export const MASK_RULE = `"labels", "spec" or one of ${Object.keys(SPEC_FIELDS)
  .map((field) => `spec.${field}`)
  .join(', ')}`;

const specHolder = z.object({ spec: vmSpecSchema });

function readMask(paths: readonly string[]): { readonly labels: boolean; readonly spec: ReadonlySet<keyof VmSpec> } {
  const all = Object.keys(SPEC_FIELDS) as (keyof VmSpec)[];
  if (paths.length === 0 || paths.includes('*')) return { labels: true, spec: new Set(all) };
  const spec = new Set<keyof VmSpec>();
  let labels = false;
  paths.forEach((path, index) => {
    // snake_case is what protobuf's own FieldMask uses; both are taken.
    const field = path.replace(/^spec\./, '').replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
    if (path === 'labels') labels = true;
    else if (path === 'spec') for (const each of all) spec.add(each);
    else if (path.startsWith('spec.') && Object.hasOwn(SPEC_FIELDS, field)) spec.add(field as keyof VmSpec);
    else {
      throw invalid([
        {
          field: `updateMask[${index}]`,
          problem: `is ${show(path)}`,
          expected: MASK_RULE,
        },
      ]);
    }
  });
  return { labels, spec };
}
