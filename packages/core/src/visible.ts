// SPDX-License-Identifier: Apache-2.0

/**
 * A value as JSON writes it, for a message that a person reads. JSON leaves DEL and the C1 control characters as they
 * are, and a terminal may obey them (U+009B begins an escape sequence, ECMA-48 5.4): they are escaped like the others.
 */
export function visible(value: unknown, replacer?: (key: string, item: unknown) => unknown): string | undefined {
  // Undefined for what JSON does not know, which its type does not say.
  const text = JSON.stringify(value, replacer) as string | undefined;
  return text?.replaceAll(/[\u007f-\u009f]/g, escaped);
}

/** The same for text that stands without quotes, such as the name of a field. */
export function visibleText(text: string): string {
  return (visible(text) ?? '').slice(1, -1);
}

function escaped(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
}
