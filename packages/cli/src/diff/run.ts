// SPDX-License-Identifier: Apache-2.0
/** What `apply` would change: the same plan, printed instead of carried out. */
import type { VmSpec } from '@busbar/proto/gen/busbar/v1/vm';
import type { Api } from '../api/api.ts';
import { type Difference, isReference, type RefKind } from '../apply/compare.ts';
import { resolveReferences } from '../apply/execute.ts';
import { readExisting, readName, STAGES } from '../apply/kinds.ts';
import { plan, SHAPES } from '../apply/plan.ts';
import { EXIT } from '../cli/exit.ts';
import { isTable } from '../cli/output.ts';
import type { Session } from '../cli/session.ts';
import type { Manifest } from '../manifest/parse.ts';
import { map } from '../manifest/shape.ts';
import { hasColours, note, print } from '../output/print.ts';
import { type Change, flatten, type ResourceDiff, renderDiff } from './render.ts';

export interface Wanted {
  readonly manifest: Manifest;
  readonly file: string;
}

export async function runDiff(session: Session, wanted: readonly Wanted[]): Promise<void> {
  const api = await session.api();
  const diffs: ResourceDiff[] = [];
  for (const stage of STAGES) {
    for (const one of wanted.filter(({ manifest }) => manifest.kind === stage)) {
      session.doing = `compare ${one.manifest.kind.toLowerCase()} ${one.manifest.name}`;
      diffs.push(await diffOne(api, one));
    }
  }
  const differing = diffs.filter(({ action }) => action !== 'none');
  if (differing.length > 0) session.exitCode = EXIT.failed;
  await print(session, {
    json: () => ({ differs: differing.length > 0, resources: diffs }),
    lines: () => diffs,
    names: () => differing.map(({ kind, name }) => `${kind}/${name}`),
    table: () => differing.map((diff) => renderDiff(diff, hasColours(session.io, session.io.stdout))).join(''),
  });
  if (!isTable(session.output)) return;
  for (const { kind, name, changes } of differing) {
    for (const { field } of changes.filter(({ possible }) => !possible)) {
      note(session.io, `${kind}/${name}: ${field} cannot be changed on an existing ${kind}; apply refuses it`);
    }
  }
}

async function diffOne(api: Api, { manifest, file }: Wanted): Promise<ResourceDiff> {
  const existing = await readExisting(api, manifest.kind, manifest.name);
  const base = { kind: manifest.kind.toLowerCase(), name: manifest.name, file } as const;
  if (existing === undefined) {
    const labels = Object.keys(manifest.labels ?? {}).length === 0 ? [] : flatten('labels', manifest.labels, map);
    const changes = [...labels, ...flatten('spec', manifest.spec, SHAPES[manifest.kind])].map(
      ({ field, value }): Change => ({ field, before: null, after: value, possible: true }),
    );
    return { ...base, action: 'create', revision: null, changes };
  }
  const ids = await resolveReferences(api, manifest);
  const planned = plan(manifest, existing, (kind, name) => ids.get(`${kind}/${name}`));
  const hidden = (existing.spec as Partial<VmSpec> | undefined)?.cloudInit?.redacted === true;
  const changes = [];
  for (const difference of planned.differences) {
    // The role of this caller does not see the data: whether they differ cannot be told.
    if (hidden && difference.path.startsWith('spec.cloudInit')) continue;
    const possible = !planned.impossible.includes(difference.path);
    changes.push(...changesOf(await withNames(api, difference), possible));
  }
  const action = changes.length === 0 ? 'none' : 'update';
  return { ...base, action, revision: String(existing.meta?.revision ?? 0n), changes };
}

/** Line by line, because a list or a map that differs has much in common with what was there. */
function changesOf({ path, shape, before, after }: Difference, possible: boolean): readonly Change[] {
  const was = new Map(flatten(path, before, shape).map(({ field, value }) => [field, value]));
  const will = new Map(flatten(path, after, shape).map(({ field, value }) => [field, value]));
  return (
    [...new Set([...was.keys(), ...will.keys()])]
      .map((field) => ({ field, before: was.get(field) ?? null, after: will.get(field) ?? null, possible }))
      .filter((change) => change.before !== change.after)
      // Of an element in both, what the file does not say is left as it is.
      .filter((change) => change.after !== null || shape.type !== 'list' || !sameElement(change.field, will))
  );
}

function sameElement(field: string, will: ReadonlyMap<string, string>): boolean {
  const element = /^.*?\[[^\]]*\]/.exec(field)?.[0];
  return element !== undefined && [...will.keys()].some((key) => key.startsWith(`${element}.`));
}

/** The cluster stores ids of images, volumes and networks; people know them by name. */
async function withNames(api: Api, difference: Difference): Promise<Difference> {
  const field = difference.path.split('.').at(-1) ?? '';
  return { ...difference, before: await named(api, field, difference.before) };
}

async function named(api: Api, field: string, value: unknown): Promise<unknown> {
  if (isReference(field) && typeof value === 'string' && value !== '') return nameOf(api, field, value);
  if (Array.isArray(value)) return Promise.all(value.map((item: unknown) => named(api, '', item)));
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).map(async ([key, inner]) => [key, await named(api, key, inner)] as const);
  return Object.fromEntries(await Promise.all(entries));
}

async function nameOf(api: Api, kind: RefKind, id: string): Promise<string> {
  return (await readName(api, kind, id)) ?? id;
}
