// SPDX-License-Identifier: Apache-2.0

/**
 * Characters that show nothing themselves and change what is shown: controls (Cc), which a terminal may obey, format
 * characters (Cf), which turn text around (U+202E, U+2066) or hide in it (U+200B), and the separators of lines and paragraphs.
 */
const MISLEADING = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u;
const EACH_MISLEADING = new RegExp(MISLEADING, 'gu');

export function hasMisleading(text: string): boolean {
  return MISLEADING.test(text);
}

export function replaceMisleading(text: string, by: string): string {
  return text.replaceAll(EACH_MISLEADING, by);
}

/**
 * A value as JSON writes it, for a message that a person reads. JSON leaves DEL, the C1 control characters (U+009B begins an
 * escape sequence, ECMA-48 5.4) and all format characters as they are: they are escaped like the others.
 */
export function visible(value: unknown, replacer?: (key: string, item: unknown) => unknown): string | undefined {
  // Undefined for what JSON does not know, which its type does not say.
  const text = JSON.stringify(value, replacer) as string | undefined;
  return text?.replaceAll(EACH_MISLEADING, escaped);
}

/** The same for text that stands without quotes, such as the name of a field. */
export function visibleText(text: string): string {
  return (visible(text) ?? '').slice(1, -1);
}

/** By UTF-16 units, as JSON does. */
function escaped(character: string): string {
  const units = Array.from({ length: character.length }, (_, index) => character.charCodeAt(index));
  return units.map((unit) => `\\u${unit.toString(16).padStart(4, '0')}`).join('');
}
