// SPDX-License-Identifier: Apache-2.0
/** Values of options and arguments, by the name that the command gave them. */
import type { Session } from '../cli/session.ts';
import { readConfig } from '../config/file.ts';
import type { Column } from '../output/table.ts';
import { isKind, KINDS, type KindName, kindEntry, TRAILS } from '../resource/kinds.ts';

export interface Candidate {
  readonly value: string;
  readonly text: string;
}

/** `files`: the shell knows better. */
export type Candidates = { readonly kind: 'files' | 'words'; readonly list: readonly Candidate[] };

export interface Place {
  /** Of the option (as attribute) or argument. */
  readonly name: string;
  readonly choices: readonly string[];
  /** Of the noun, e.g. "vm". */
  readonly noun: string;
  readonly session: Session;
}

export const NOTHING: Candidates = { kind: 'words', list: [] };
export const FILES: Candidates = { kind: 'files', list: [] };

export function words(list: readonly Candidate[]): Candidates {
  return { kind: 'words', list };
}

const FILE_NAMES: ReadonlySet<string> = new Set([
  'file',
  'ca',
  'certificate',
  'key',
  'userData',
  'networkConfig',
  'tokenFile',
  'dir',
]);

export async function valuesOf(place: Place, current: string): Promise<Candidates> {
  const { name, choices, session } = place;
  if (choices.length > 0) return words(choices.map((value) => ({ value, text: '' })));
  if (FILE_NAMES.has(name)) return FILES;
  if (isKind(name)) return words(await live(session, name));
  switch (name) {
    case 'context':
      return words(contexts(session));
    case 'resource':
      return words(await resources(session, current));
    case 'path':
      return words(await paths(current));
    case 'columns':
      return words(inList(current, await columns(place.noun)));
    case 'sort':
      return words([...(await columns(place.noun)), ...(await columns(place.noun)).map(reversed)]);
    case 'filter':
      return words(inList(current, await terms(place.noun, lastPart(current))));
    case 'firmware':
      return words(['bios', 'uefi'].map(plain));
    case 'machineType':
      return words(['q35', 'pc'].map(plain));
    default:
      return NOTHING;
  }
}

function plain(value: string): Candidate {
  return { value, text: '' };
}

/** The first page is enough: who has more than that types another letter. */
async function live(session: Session, kind: KindName): Promise<readonly Candidate[]> {
  const resource = await kindEntry(kind).load();
  const { items } = await resource.list(await session.api(), '', {});
  const [, state] = resource.columns;
  const label = kind === 'operation' ? resource.columns.find(({ header }) => header === 'TARGET') : state;
  const now = session.io.now();
  return items.map((item) => ({ value: resource.name(item), text: label?.value(item, now) ?? '' }));
}

function contexts(session: Session): readonly Candidate[] {
  const { contexts: known } = readConfig(session.io);
  return Object.entries(known).map(([value, { endpoints }]) => ({ value, text: endpoints.join(', ') }));
}

async function resources(session: Session, current: string): Promise<readonly Candidate[]> {
  const [kind = ''] = current.split('/');
  if (!isKind(kind) || !current.includes('/')) return Object.keys(KINDS).map((one) => plain(`${one}/`));
  return (await live(session, kind)).map(({ value, text }) => ({ value: `${kind}/${value}`, text }));
}

async function paths(current: string): Promise<readonly Candidate[]> {
  const at = current.lastIndexOf('.');
  if (at < 0) return Object.keys(KINDS).map((one) => plain(`${one}.`));
  const parent = current.slice(0, at);
  const [kind = '', ...rest] = parent.split('.');
  if (!isKind(kind)) return [];
  const { message, walk } = await import('../schema/schema.ts');
  const steps = rest.length === 0 ? undefined : walk(KINDS[kind].message, rest.join('.'));
  const last = steps?.ok === true ? steps.value.at(-1) : undefined;
  const of =
    steps === undefined ? KINDS[kind].message : last !== undefined && 'field' in last ? last.field.message : undefined;
  if (of === undefined) return [];
  return message(of).fields.map((field) => ({
    value: `${parent}.${field.name}${field.message === undefined ? '' : '.'}`,
    text: field.comment,
  }));
}

async function columnsOf(noun: string): Promise<readonly Column<unknown>[]> {
  const listed = isKind(noun) ? kindEntry(noun) : TRAILS[noun];
  return listed === undefined ? [] : (await listed.load()).columns;
}

async function columns(noun: string): Promise<readonly Candidate[]> {
  const { columnKey } = await import('../resource/subject.ts');
  return (await columnsOf(noun)).map((column) => plain(columnKey(column)));
}

function reversed({ value }: Candidate): Candidate {
  return { value: `-${value}`, text: 'reverse' };
}

async function terms(noun: string, term: string): Promise<readonly Candidate[]> {
  const { columnKey } = await import('../resource/subject.ts');
  const all = await columnsOf(noun);
  const [, name, op] = /^([a-z%-]+)(!=|=)/.exec(term) ?? [];
  if (name === undefined) return all.map((column) => plain(`${columnKey(column)}=`));
  const measure = all.find((column) => columnKey(column) === name)?.measure;
  return measure?.kind === 'words' ? measure.known.map((word) => plain(`${name}${op}${word}`)) : [];
}

function lastPart(text: string): string {
  return text.slice(text.lastIndexOf(',') + 1);
}

/** What is before the last comma stays. */
function inList(current: string, list: readonly Candidate[]): readonly Candidate[] {
  const before = current.slice(0, current.lastIndexOf(',') + 1);
  return list.map(({ value, text }) => ({ value: `${before}${value}`, text }));
}
