// SPDX-License-Identifier: Apache-2.0
/** Fields and trees of fields as text. */
import { truncate } from '../output/table.ts';
import { type Field, type FieldType, message } from '../schema/schema.ts';

export interface Explained {
  readonly path: string;
  /** As --filter and --columns take it. */
  readonly filterPath: string;
  readonly kind: string;
  readonly field: Field;
  /** The list that it is a field of each element of; empty when it is in none. */
  readonly listIn: string;
  readonly required: boolean;
  readonly limits: string;
  /** A manifest may hold it. */
  readonly writable: boolean;
}

const NAMES: Readonly<Record<FieldType, string>> = {
  text: 'text',
  bool: 'true or false',
  number: 'number',
  bytes: 'size',
  ms: 'duration',
  time: 'time',
  enum: 'word',
  map: 'map',
  object: 'object',
  data: 'data',
};

/** How it is written in manifests and filters, and how it looks in JSON. */
const WRITTEN: Partial<Record<FieldType, string>> = {
  bytes: '512MiB, 4GiB (KiB, MiB, GiB, TiB; kB, MB, GB, TB); in JSON the number of bytes, in quotes',
  ms: '30s, 5min, 1h; in JSON the number of milliseconds',
  time: '2026-03-01T10:00:00Z',
  map: 'KEY: text, several; paths go on with the key',
};

/** Width of the labels on the left. */
const LABEL = 12;

/** Deeper than any message of the API; one that held itself would never end. */
const MAX_DEPTH = 8;

export function typeName(field: Field): string {
  return field.list ? `list of ${field.type === 'object' ? 'objects' : `${NAMES[field.type]}s`}` : NAMES[field.type];
}

export function renderKinds(
  kinds: readonly { readonly kind: string; readonly comment: string }[],
  width: number,
): string {
  const lines = kinds.map(({ kind, comment }) => truncate(`${kind.padEnd(13)}${comment}`, width));
  return `${lines.join('\n')}\n\nbusbar explain KIND shows its fields.\n`;
}

export function renderTree(name: string, comment: string, root: string, width: number): string {
  const rows = tree(root, 1);
  const nameWidth = rows.reduce((most, [label]) => Math.max(most, label.length), 0);
  const typeWidth = rows.reduce((most, [, type]) => Math.max(most, type.length), 0);
  const lines = rows.map(([label, type, text]) =>
    truncate(`${label.padEnd(nameWidth)}  ${type.padEnd(typeWidth)}  ${text}`.trimEnd(), width),
  );
  return `${name}: ${comment}\n${lines.join('\n')}\n\nbusbar explain ${name}.PATH says all about a field.\n`;
}

function tree(of: string, depth: number): readonly (readonly [string, string, string])[] {
  return message(of).fields.flatMap((field) => {
    const row = [`${'  '.repeat(depth)}${field.name}`, typeName(field), field.comment] as const;
    return field.message === undefined || depth >= MAX_DEPTH ? [row] : [row, ...tree(field.message, depth + 1)];
  });
}

export function renderField(explained: Explained, width: number): string {
  const { path, field, listIn, required, limits, kind, filterPath } = explained;
  const rows: [string, readonly string[]][] = [
    ['type', [`${typeName(field)}${listIn === '' ? '' : `, one in each of ${listIn}`}`]],
  ];
  const unit = { bytes: 'bytes', ms: 'milliseconds' }[field.type as string];
  if (unit !== undefined) rows.push(['unit', [unit]]);
  if (limits !== '') rows.push(['limits', [limits]]);
  if (field.values !== undefined) {
    const most = field.values.reduce((longest, { name }) => Math.max(longest, name.length), 0);
    const texts = field.values.flatMap(({ name, comment }) =>
      wrap(comment, width - LABEL - most - 2).map(
        (line, index) => `${(index === 0 ? name : '').padEnd(most)}  ${line}`,
      ),
    );
    rows.push(['values', texts]);
    const [first] = field.values;
    if (first !== undefined) rows.push(['in JSON', [JSON.stringify(first.json)]]);
  }
  if (field.unset !== undefined && field.unset !== '') rows.push(['default', [field.unset]]);
  const written = WRITTEN[field.type];
  if (written !== undefined) rows.push(['written', [written]]);
  if (explained.writable) rows.push(['required', [required ? 'yes' : 'no']]);
  const example = filterExample(field, filterPath);
  if (example !== '') rows.push(['filter', [`busbar ${kind} list --filter '${example}'`]]);
  const text = wrap(field.comment, width - 2).map((line) => `  ${line}`);
  const lines = rows.flatMap(([label, values]) =>
    values
      .flatMap((value) => (label === 'values' ? [value] : wrap(value, width - LABEL)))
      .map((line, index) => `${(index === 0 ? `  ${label}` : '').padEnd(LABEL)}${line}`),
  );
  const inner = field.message === undefined ? '' : `\n${renderTree(path, 'its fields', field.message, width)}`;
  return `${path}\n${text.join('\n')}\n\n${lines.join('\n')}\n${inner}`;
}

function filterExample({ type, values }: Field, path: string): string {
  switch (type) {
    case 'bytes':
      return `${path}>1GiB`;
    case 'ms':
      return `${path}>30s`;
    case 'number':
      return `${path}>1`;
    case 'time':
      return `${path}>2026-03-01`;
    case 'bool':
      return `${path}=true`;
    case 'enum':
      return `${path}=${values?.[0]?.name ?? ''}`;
    case 'text':
      return `${path}~part`;
    case 'map':
    case 'object':
    case 'data':
      return '';
  }
}

/** Breaks between words; a word that is longer than the line stays whole. */
function wrap(text: string, width: number): readonly string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line];
}
