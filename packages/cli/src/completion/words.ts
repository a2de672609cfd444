// SPDX-License-Identifier: Apache-2.0
/** The words of a command line up to the cursor, as a shell would split it; the last one may be unfinished. Pure. */
export function splitWords(line: string): readonly string[] {
  const words: string[] = [];
  let word = '';
  let begun = false;
  let quote = '';
  for (let at = 0; at < line.length; at++) {
    const letter = line.charAt(at);
    if (quote !== '' && letter === quote) quote = '';
    else if (quote === "'") word += letter;
    else if (letter === '\\') word += line.charAt(++at);
    else if (quote === '' && (letter === '"' || letter === "'")) {
      quote = letter;
      begun = true;
    } else if (quote === '' && /\s/.test(letter)) {
      if (begun || word !== '') words.push(word);
      word = '';
      begun = false;
    } else word += letter;
  }
  return [...words, word];
}
