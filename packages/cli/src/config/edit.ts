// SPDX-License-Identifier: Apache-2.0
/** Changes of the context file that keep the rest of it, comments included. */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, isAbsolute, relative } from 'node:path';
import { Document, isMap, parseDocument } from 'yaml';
import type { ContextEntry } from './file.ts';

export function setCurrent(path: string, name: string): void {
  edit(path, (document) => document.set('current', name));
}

export function addContext(path: string, name: string, entry: ContextEntry, use: boolean): void {
  const base = dirname(path);
  // What lies beside the file is named so that both can be moved together.
  const short = (file: string) => {
    const inside = relative(base, file);
    return inside.startsWith('..') || isAbsolute(inside) ? file : inside;
  };
  const { endpoints, ca, certificate, key } = entry;
  const files = Object.entries({ ca, certificate, key }).flatMap(([what, file]) =>
    file === undefined ? [] : [[what, short(file)] as const],
  );
  edit(path, (document) => {
    document.setIn(['contexts', name], document.createNode({ endpoints, ...Object.fromEntries(files) }));
    if (use) document.set('current', name);
  });
}

export function removeContext(path: string, name: string): void {
  edit(path, (document) => {
    document.deleteIn(['contexts', name]);
    if (document.get('current') === name) document.delete('current');
  });
}

export function renameContext(path: string, from: string, to: string): void {
  edit(path, (document) => {
    const contexts = document.get('contexts');
    const pair = isMap(contexts) ? contexts.items.find((item) => String(item.key) === from) : undefined;
    if (pair !== undefined) pair.key = document.createNode(to);
    if (document.get('current') === from) document.set('current', to);
  });
}

function edit(path: string, change: (document: Document) => void): void {
  const document: Document = existsSync(path) ? parseDocument(readFileSync(path, 'utf8')) : new Document({});
  change(document);
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const temporary = `${path}.${process.pid}.tmp`;
  writeFileSync(temporary, String(document), { mode: 0o600 });
  renameSync(temporary, path);
}
