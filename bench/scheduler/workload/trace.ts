// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Arrival, Flavour } from './flavour.ts';

/** All arrivals of the public trace, without its times, in 60 KB (see ../data/README.md). */
const COMMITTED = join(import.meta.dirname, '../data/azure2017.txt');

export class TraceUnreadable extends Error {}

/** A CSV file with the columns batch, vcpu and mem_mib; the committed arrivals when no file is given. */
export function readTrace(file?: string): Arrival[] {
  if (file === undefined) return unpackTrace(readFileSync(COMMITTED, 'utf8'));
  try {
    return parseTrace(readFileSync(file, 'utf8'));
  } catch (cause) {
    if (cause instanceof TraceUnreadable) throw cause;
    throw new TraceUnreadable(`cannot read the trace: ${String(cause)}`, { cause });
  }
}

export function parseTrace(csv: string): Arrival[] {
  const [header = '', ...lines] = csv.trimEnd().split(/\r?\n/);
  const names = header.split(',');
  const [batch, vcpus, memoryMib] = ['batch', 'vcpu', 'mem_mib'].map((name) => {
    const column = names.indexOf(name);
    if (column < 0) throw new TraceUnreadable(`the trace has no column ${name}; it has ${header}`);
    return column;
  }) as [number, number, number];
  return lines.map((line, index) => {
    const fields = line.split(',');
    const number = (column: number): number => {
      const value = Number(fields[column]);
      if (!Number.isInteger(value) || fields[column] === '') {
        throw new TraceUnreadable(`line ${index + 2} of the trace: ${names[column]} is no whole number: ${line}`);
      }
      return value;
    };
    return { vcpus: number(vcpus), memoryMib: number(memoryMib), batch: number(batch) };
  });
}

/**
 * The packed form: a line for each flavour ("a 2 3584": letter, vCPUs, MiB), an empty line, then a letter for each arrival;
 * a capital begins a batch. `#` starts a comment line.
 */
export function packTrace(arrivals: readonly Arrival[]): string {
  const letters = new Map<string, string>();
  let body = '';
  let previous: number | null = null;
  for (const { vcpus, memoryMib, batch } of arrivals) {
    const size = `${vcpus} ${memoryMib}`;
    const letter = letters.get(size) ?? String.fromCharCode('a'.charCodeAt(0) + letters.size);
    if (letter > 'z') throw new TraceUnreadable('the packed form has letters for 26 flavours only');
    letters.set(size, letter);
    body += batch === previous ? letter : letter.toUpperCase();
    previous = batch;
  }
  const flavours = [...letters].map(([size, letter]) => `${letter} ${size}\n`).join('');
  // As wide as the code.
  return `${flavours}\n${(body.match(/.{1,120}/g) ?? []).join('\n')}\n`;
}

export function unpackTrace(text: string): Arrival[] {
  const [head = '', body = ''] = text.replace(/^#.*\n/gm, '').split('\n\n');
  const flavours = new Map<string, Flavour>();
  for (const line of head.split('\n')) {
    const [letter = '', vcpus, memoryMib] = line.split(' ');
    flavours.set(letter, { vcpus: Number(vcpus), memoryMib: Number(memoryMib) });
  }
  let batch = -1;
  return Array.from(body.replaceAll('\n', ''), (letter) => {
    const flavour = flavours.get(letter.toLowerCase());
    if (flavour === undefined) throw new TraceUnreadable(`the packed trace has no flavour "${letter}"`);
    if (letter < 'a') batch++;
    return { ...flavour, batch };
  });
}
