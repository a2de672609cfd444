// SPDX-License-Identifier: Apache-2.0
import { assert } from '@busbar/core/assert';
import { BusbarError } from '@busbar/core/errors';
import { XMLParser } from 'fast-xml-parser';

/**
 * A tiny XML tree and its one serializer. Nothing else in Busbar writes XML, so nothing that a user
 * typed can become markup.
 */
export interface XmlElement {
  readonly name: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly children: readonly (XmlElement | string)[];
}

type AttributeValue = string | number | bigint | undefined;
type Child = XmlElement | string | number | bigint | null | undefined;

/** An element; undefined attributes and null children are left out. */
export function element(
  name: string,
  attributes: Readonly<Record<string, AttributeValue>> = {},
  ...children: readonly Child[]
): XmlElement {
  const written: Record<string, string> = {};
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) written[key] = String(value);
  return {
    name,
    attributes: written,
    children: children.flatMap((child) => {
      if (child === null || child === undefined) return [];
      return typeof child === 'object' ? child : String(child);
    }),
  };
}

/** Names come from our code, never from users. */
const NAME = /^[A-Za-z_][\w.-]*(:[A-Za-z_][\w.-]*)?$/;

/** What XML 1.0 cannot hold, not even escaped: most control characters, half surrogate pairs, U+FFFE and U+FFFF. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const FORBIDDEN_IN_XML = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|[\ud800-\udfff]/u;

const ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&apos;',
  // A parser would turn these into spaces or line feeds.
  '\t': '&#9;',
  '\n': '&#10;',
  '\r': '&#13;',
};

function escapeText(value: string): string {
  const at = value.search(FORBIDDEN_IN_XML);
  if (at >= 0) {
    throw new BusbarError({
      kind: 'invalid',
      reason: 'TEXT_NOT_XML',
      message: `${JSON.stringify(value)} has a character that XML cannot hold at position ${at}`,
      hint: 'remove control characters',
    });
  }
  return value.replace(/[&<>"'\t\n\r]/g, (char) => ESCAPES[char] ?? char);
}

export function serialize(root: XmlElement, indent = ''): string {
  assert(NAME.test(root.name), `"${root.name}" is no element name`);
  let open = `${indent}<${root.name}`;
  for (const [key, value] of Object.entries(root.attributes)) {
    assert(NAME.test(key), `"${key}" is no attribute name`);
    open += ` ${key}="${escapeText(value)}"`;
  }
  if (root.children.length === 0) return `${open}/>\n`;
  if (root.children.every((child) => typeof child === 'string')) {
    return `${open}>${root.children.map((child) => escapeText(child as string)).join('')}</${root.name}>\n`;
  }
  // Mixed content does not occur in libvirt's formats: white space between elements means nothing.
  const inner = root.children
    .map((child) => (typeof child === 'string' ? escapeText(child) : serialize(child, `${indent}  `)))
    .join('');
  return `${open}>\n${inner}${indent}</${root.name}>\n`;
}

const parser = new XMLParser({
  preserveOrder: true,
  ignoreAttributes: false,
  attributeNamePrefix: '',
  parseTagValue: false,
  parseAttributeValue: false,
  trimValues: false,
  ignoreDeclaration: true,
  ignorePiTags: true,
  // The five that XML has, and character references; no document type is ever expected.
  processEntities: true,
  htmlEntities: true,
});

type Parsed = Readonly<Record<string, unknown>>;

/** Reads what libvirt wrote. White space between elements is dropped, text is kept as it is. */
export function parseXml(text: string): XmlElement {
  let parsed: readonly Parsed[];
  try {
    parsed = parser.parse(text) as readonly Parsed[];
  } catch (cause) {
    throw new BusbarError({ kind: 'internal', reason: 'XML_INVALID', message: 'this is no XML', cause });
  }
  const roots = parsed.flatMap(toChild).filter((child) => typeof child === 'object');
  const [root] = roots;
  if (roots.length !== 1 || root === undefined) {
    throw new BusbarError({ kind: 'internal', reason: 'XML_INVALID', message: 'this is no XML: no single root' });
  }
  return root;
}

function toChild(node: Parsed): (XmlElement | string)[] {
  const text = node['#text'];
  if (typeof text === 'string') return [text];
  const name = Object.keys(node).find((key) => key !== ':@');
  if (name === undefined || name.startsWith('?')) return [];
  const all = (node[name] as readonly Parsed[]).flatMap(toChild);
  const hasElements = all.some((child) => typeof child === 'object');
  return [
    {
      name,
      attributes: (node[':@'] as Record<string, string> | undefined) ?? {},
      children: hasElements ? all.filter((child) => typeof child === 'object' || child.trim() !== '') : all,
    },
  ];
}

export function childrenNamed(parent: XmlElement, name: string): XmlElement[] {
  return parent.children.filter((child): child is XmlElement => typeof child === 'object' && child.name === name);
}

/** First descendant along the path, e.g. `find(root, 'devices', 'interface')`. */
export function find(parent: XmlElement, ...path: readonly string[]): XmlElement | undefined {
  let current: XmlElement | undefined = parent;
  for (const name of path) current = current === undefined ? undefined : childrenNamed(current, name)[0];
  return current;
}

export function textOf(one: XmlElement | undefined): string {
  return one?.children.filter((child) => typeof child === 'string').join('') ?? '';
}
