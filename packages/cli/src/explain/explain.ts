// SPDX-License-Identifier: Apache-2.0
/** `busbar explain`: what the API's descriptors and the checks of manifests say about a field. Asks no controller. */
import { usageError } from '../cli/exit.ts';
import type { Session } from '../cli/session.ts';
import type { Shape } from '../manifest/shape.ts';
import { nearest } from '../manifest/suggest.ts';
import { print, tableStyle } from '../output/print.ts';
import { KINDS, TRAILS } from '../resource/kinds.ts';
import { type Field, message, type PathStep, walk } from '../schema/schema.ts';
import { type Explained, renderField, renderKinds, renderTree, typeName } from './render.ts';

/** Kinds that can be explained: what can be listed, and the cluster itself. */
const MESSAGES: Readonly<Record<string, string>> = {
  cluster: 'busbar.v1.Cluster',
  ...Object.fromEntries(Object.entries({ ...KINDS, ...TRAILS }).map(([kind, entry]) => [kind, entry.message])),
  certificate: 'busbar.v1.Certificate',
};

export async function runExplain(session: Session, path: string | undefined): Promise<void> {
  const { width } = tableStyle(session);
  if (path === undefined) {
    const kinds = Object.entries(MESSAGES).map(([kind, name]) => ({ kind, comment: message(name).comment }));
    return print(session, { json: () => ({ kinds }), lines: () => kinds, table: () => renderKinds(kinds, width) });
  }
  const [kind = '', ...rest] = path.split('.');
  const root = rootOf(kind, path);
  const name = kind.toLowerCase();
  if (rest.length === 0) {
    const explained = message(root);
    return print(session, {
      json: () => ({
        path: name,
        comment: explained.comment,
        fields: explained.fields.map((field) => toJson(name, field)),
      }),
      table: () => renderTree(name, explained.comment, root, width),
    });
  }
  const steps = walk(root, rest.join('.'));
  if (!steps.ok) {
    const { problem, expected } = steps.error;
    const right = expected.startsWith('one of ') ? expected : `did you mean ${name}.${expected}?`;
    throw usageError(`cannot explain ${path}`, problem, right);
  }
  const explained = await explain(name, steps.value);
  await print(session, {
    json: () => ({
      ...toJson(name, explained.field),
      path: explained.path,
      required: explained.required,
      limits: explained.limits,
    }),
    table: () => renderField(explained, width),
  });
}

function rootOf(kind: string, path: string): string {
  const known = Object.keys(MESSAGES);
  const word = kind.toLowerCase();
  const found = MESSAGES[word];
  if (found !== undefined) return found;
  const near = nearest(word, known);
  throw usageError(
    `cannot explain ${path}`,
    `there is no kind ${JSON.stringify(kind)}`,
    near === undefined ? `kinds are ${known.join(', ')}` : `did you mean ${near}?`,
  );
}

async function explain(kind: string, steps: readonly PathStep[]): Promise<Explained> {
  const fields = steps.flatMap((step) => ('field' in step ? [step.field] : []));
  const last = fields.at(-1);
  if (last === undefined) throw new Error('a path without a field');
  const key = steps.map((step) => ('field' in step ? step.field.name : step.key)).join('.');
  const { shape, required } = await shapeAt(kind, fields);
  const entry = steps.some((step) => 'key' in step);
  const field: Field = entry ? { ...last, type: 'text', list: false } : last;
  return {
    path: `${kind}.${key}`,
    filterPath: key,
    kind,
    field,
    listIn: fields.slice(0, -1).findLast(({ list }) => list)?.name ?? '',
    required,
    limits: limitsOf(shape),
    writable: shape !== undefined,
  };
}

/** What the check of manifests knows of the field; undefined for what users cannot write. */
async function shapeAt(
  kind: string,
  fields: readonly Field[],
): Promise<{ shape: Shape | undefined; required: boolean }> {
  const { DOCUMENTS } = await import('../manifest/kinds.ts');
  let shape: Shape | undefined = Object.entries(DOCUMENTS).find(([name]) => name.toLowerCase() === kind)?.[1] as
    | Shape
    | undefined;
  let required = false;
  const words = fields.map(({ name }) => name);
  // In a manifest name and labels are at the top, in the API they are in `meta`.
  for (const word of words[0] === 'meta' ? words.slice(1) : words) {
    const inside: Shape | undefined = shape?.type === 'list' ? shape.of : shape;
    const object = inside?.type === 'object' ? inside : undefined;
    required = object?.required.includes(word) === true;
    shape = object?.fields.get(word);
  }
  return { shape, required };
}

function limitsOf(shape: Shape | undefined): string {
  if (shape?.type === 'int') return `${shape.min} to ${shape.max}`;
  if (shape?.type === 'string') return shape.expected ?? '';
  return '';
}

function toJson(parent: string, field: Field): Record<string, unknown> {
  const { name, comment, values, unset, message: of } = field;
  const path = `${parent}.${name}`;
  return {
    path,
    type: typeName(field),
    comment,
    ...(values === undefined ? {} : { values }),
    ...(unset === undefined || unset === '' ? {} : { default: unset }),
    ...(of === undefined ? {} : { fields: message(of).fields.map((inner) => toJson(path, inner)) }),
  };
}
