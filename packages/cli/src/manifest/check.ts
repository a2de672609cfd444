// SPDX-License-Identifier: Apache-2.0
/** Checks YAML nodes against a shape and returns plain values, or every problem with its line and column. Pure. */
import { type Alias, type Document, isAlias, isMap, isScalar, isSeq, type LineCounter, type Node, visit } from 'yaml';
import type { FieldProblem } from '../cli/exit.ts';
import type { ObjectShape, Shape } from './shape.ts';
import { nearest } from './suggest.ts';
import { parseBytes, parseMs } from './units.ts';

export interface ManifestProblem extends FieldProblem {
  readonly line: number;
  readonly column: number;
}

/** A plain value of the API's JSON, with bigint for sizes. */
export type Plain = string | number | bigint | boolean | readonly Plain[] | PlainObject;
export interface PlainObject {
  readonly [field: string]: Plain;
}

/** Nobody reads more of one document; a file that is something else altogether has a million. */
const MAX_PROBLEMS = 100;

export class Checker {
  readonly problems: ManifestProblem[] = [];
  readonly #document: Document;
  readonly #lines: LineCounter;
  #anchored: ReadonlyMap<Alias, Node> | undefined;

  constructor(document: Document, lines: LineCounter) {
    this.#document = document;
    this.#lines = lines;
  }

  report(node: Node | undefined | null, field: string, problem: string, expected: string): undefined {
    if (this.problems.length >= MAX_PROBLEMS) return undefined;
    const { line, col } = this.#lines.linePos(node?.range?.[0] ?? this.#document.range?.[0] ?? 0);
    this.problems.push({ field, problem, expected, line, column: col });
    return undefined;
  }

  check(node: Node, shape: Shape, path: string): Plain | undefined {
    const resolved = this.resolve(node);
    if (resolved === undefined)
      return this.report(node, path, 'refers to an anchor that is not there', 'a known anchor');
    switch (shape.type) {
      case 'object':
        return this.#object(resolved, shape, path);
      case 'map':
        return shape.of === undefined ? this.#map(resolved, path) : this.#record(resolved, shape.of, path);
      case 'list':
        return this.#list(resolved, shape, path);
      case 'string':
        return this.#string(resolved, shape, path);
      case 'enum':
        return this.#enum(resolved, shape, path);
      case 'bool': {
        const value = scalar(resolved);
        if (typeof value === 'boolean') return value;
        return this.report(resolved, path, `${show(resolved)} is neither true nor false`, 'true or false');
      }
      case 'int': {
        const value = scalar(resolved);
        const whole = typeof value === 'bigint' || (typeof value === 'number' && Number.isInteger(value));
        const expected = `a whole number from ${shape.min} to ${shape.max}`;
        if (!whole) return this.report(resolved, path, `${show(resolved)} is no whole number`, expected);
        if (value < 0) return this.report(resolved, path, `${show(resolved)} is negative`, expected);
        if (value < shape.min) return this.report(resolved, path, `${show(resolved)} is too small`, expected);
        if (value > shape.max) return this.report(resolved, path, `${show(resolved)} is too large`, expected);
        return Number(value);
      }
      case 'bytes':
      case 'ms': {
        const value = scalar(resolved);
        const parsed = shape.type === 'bytes' ? parseBytes(value) : parseMs(value);
        if (parsed.ok) return parsed.value;
        return this.report(resolved, path, parsed.error.problem, parsed.error.expected);
      }
    }
  }

  resolve(node: Node): Node | undefined {
    if (!isAlias(node)) return node;
    this.#anchored ??= anchored(this.#document);
    return this.#anchored.get(node);
  }

  /** The entries of a mapping with their keys as text; reports and leaves out what is none. */
  #entries(node: Node, path: string): { key: string; keyNode: Node; value: Node | null }[] | undefined {
    if (!isMap(node)) return this.report(node, path, `${show(node)} is no mapping`, 'indented lines of "name: value"');
    const entries: { key: string; keyNode: Node; value: Node | null }[] = [];
    const seen = new Set<string>();
    for (const { key: keyNode, value } of node.items as { key: Node; value: Node | null }[]) {
      const key = scalar(keyNode);
      if (key === '__proto__') {
        // What encodes a request would drop it without a word.
        this.report(keyNode, path, 'has the name "__proto__"', 'another name');
      } else if (typeof key === 'string' && seen.has(key)) {
        this.report(keyNode, path === '' ? key : `${path}.${key}`, 'is there twice', 'each name once');
      } else if (typeof key === 'string') {
        seen.add(key);
        entries.push({ key, keyNode, value });
      } else this.report(keyNode, path, `${show(keyNode)} is no name`, 'a name before the colon');
    }
    return entries;
  }

  #object(node: Node, shape: ObjectShape, path: string): PlainObject | undefined {
    const entries = this.#entries(node, path);
    if (entries === undefined) return undefined;
    const result: Record<string, Plain> = {};
    const known = [...shape.fields.keys()];
    const present = new Set<string>();
    for (const { key, keyNode, value } of entries) {
      const field = path === '' ? key : `${path}.${key}`;
      const fieldShape = shape.fields.get(key);
      if (fieldShape === undefined) {
        const near = nearest(key, known);
        const expected = near === undefined ? `one of ${known.join(', ')}` : `did you mean ${near}?`;
        this.report(keyNode, field, 'unknown field', expected);
        // Most likely this is the field: that it is missing, too, would only distract.
        if (near !== undefined) present.add(near);
        continue;
      }
      // `labels:` with nothing behind it is what an editor leaves: the same as leaving the line out.
      if (value === null || scalar(value) === null) continue;
      present.add(key);
      const checked = this.check(value, fieldShape, field);
      if (checked !== undefined) result[key] = checked;
    }
    for (const key of shape.required) {
      if (present.has(key)) continue;
      this.report(node, path === '' ? key : `${path}.${key}`, 'is missing', describe(shape.fields.get(key)));
    }
    return result;
  }

  #map(node: Node, path: string): PlainObject | undefined {
    const entries = this.#entries(node, path);
    if (entries === undefined) return undefined;
    const result = new Map<string, string>();
    for (const { key, keyNode, value } of entries) {
      const text = value === null ? '' : scalar(this.resolve(value) ?? value);
      if (typeof text === 'string') result.set(key, text);
      else this.report(value ?? keyNode, `${path}.${key}`, `${show(value)} is no text`, 'text in quotes, e.g. "1"');
    }
    return Object.fromEntries(result);
  }

  #record(node: Node, of: Shape, path: string): PlainObject | undefined {
    const entries = this.#entries(node, path);
    if (entries === undefined) return undefined;
    const result = new Map<string, Plain>();
    for (const { key, keyNode, value } of entries) {
      if (value === null) this.report(keyNode, `${path}.${key}`, 'is empty', describe(of));
      const checked = value === null ? undefined : this.check(value, of, `${path}.${key}`);
      if (checked !== undefined) result.set(key, checked);
    }
    return Object.fromEntries(result);
  }

  #list(node: Node, shape: Extract<Shape, { type: 'list' }>, path: string): readonly Plain[] | undefined {
    if (!isSeq(node)) return this.report(node, path, `${show(node)} is no list`, 'lines that begin with "- "');
    const result: Plain[] = [];
    const seen = new Set<Plain>();
    for (const [index, item] of (node.items as (Node | null)[]).entries()) {
      const field = `${path}[${index}]`;
      if (item === null) {
        this.report(node, field, 'is empty', describe(shape.of));
        continue;
      }
      const checked = this.check(item, shape.of, field);
      if (checked === undefined) continue;
      const key = typeof checked === 'object' ? (checked as PlainObject)[shape.key] : undefined;
      if (key !== undefined && seen.has(key)) {
        this.report(item, `${field}.${shape.key}`, `${JSON.stringify(key)} is there twice`, `another ${shape.key}`);
      }
      if (key !== undefined) seen.add(key);
      result.push(checked);
    }
    return result;
  }

  #string(node: Node, shape: Extract<Shape, { type: 'string' }>, path: string): string | undefined {
    const value = scalar(node);
    if (typeof value !== 'string') {
      const expected = isScalar(node) ? `text in quotes: "${node.source ?? ''}"` : 'text';
      return this.report(node, path, `${show(node)} is no text`, expected);
    }
    if (shape.pattern !== undefined && !shape.pattern.test(value)) {
      return this.report(node, path, `${show(node)} is not allowed`, shape.expected ?? 'another value');
    }
    return value;
  }

  #enum(node: Node, shape: Extract<Shape, { type: 'enum' }>, path: string): string | undefined {
    const value = scalar(node);
    const full = typeof value === 'string' ? shape.values.get(value.toLowerCase().replaceAll('-', '_')) : undefined;
    if (full !== undefined) return full;
    return this.report(node, path, `${show(node)} is not known`, `one of ${shape.names.join(', ')}`);
  }
}

/** What each alias stands for: the last node with its anchor before it. In one walk; yaml's own look-up takes one for each. */
function anchored(document: Document): ReadonlyMap<Alias, Node> {
  const latest = new Map<string, Node>();
  const found = new Map<Alias, Node>();
  visit(document, {
    Node: (_key, node) => {
      const meant = isAlias(node) ? latest.get(node.source) : undefined;
      if (isAlias(node) && meant !== undefined) found.set(node, meant);
      else if ('anchor' in node && node.anchor !== undefined) latest.set(node.anchor as string, node as Node);
    },
  });
  return found;
}

function scalar(node: Node): unknown {
  return isScalar(node) ? node.value : undefined;
}

function show(node: Node | null): string {
  if (node === null) return 'nothing';
  if (isMap(node)) return 'a mapping';
  if (isSeq(node)) return 'a list';
  if (!isScalar(node)) return 'this value';
  if (node.value === null) return 'nothing';
  const text = typeof node.value === 'string' ? node.value : (node.source ?? 'this value');
  const short = text.length > 40 ? `${text.slice(0, 40)}…` : text;
  return typeof node.value === 'string' ? JSON.stringify(short) : short;
}

function describe(shape: Shape | undefined): string {
  switch (shape?.type) {
    case undefined:
      return 'a value';
    case 'string':
      return shape.expected ?? 'text';
    case 'bool':
      return 'true or false';
    case 'int':
      return 'a whole number';
    case 'bytes':
      return 'a size such as 512MiB';
    case 'ms':
      return 'a duration such as 30s';
    case 'enum':
      return `one of ${shape.names.join(', ')}`;
    case 'map':
      return 'names with texts';
    case 'list':
      return 'a list';
    case 'object':
      return `a mapping with ${[...shape.fields.keys()].slice(0, 4).join(', ')}${shape.fields.size > 4 ? ', …' : ''}`;
  }
}
