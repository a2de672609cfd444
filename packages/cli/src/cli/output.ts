// SPDX-License-Identifier: Apache-2.0
/** The formats of -o, and which of them make what kind of text. */
export const OUTPUT_FORMATS = ['table', 'wide', 'json', 'jsonl', 'yaml', 'name'] as const;
export type OutputFormat = (typeof OUTPUT_FORMATS)[number];

export function isOutputFormat(text: string): text is OutputFormat {
  return (OUTPUT_FORMATS as readonly string[]).includes(text);
}

/** Meant for people: columns, sentences, colours. */
export function isTable(format: OutputFormat): format is 'table' | 'wide' {
  return format === 'table' || format === 'wide';
}

/** Errors are then JSON, too. */
export function isJson(format: OutputFormat): format is 'json' | 'jsonl' {
  return format === 'json' || format === 'jsonl';
}
