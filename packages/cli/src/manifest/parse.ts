// SPDX-License-Identifier: Apache-2.0
/** A YAML file with documents for the cluster. Throws nothing but ManifestError, whatever the text is. Pure. */
import { type Document, isMap, isScalar, LineCounter, type Node, parseAllDocuments } from 'yaml';
import { CliError, EXIT } from '../cli/exit.ts';
import { Checker, type ManifestProblem, type PlainObject } from './check.ts';
import { API_VERSION, DOCUMENTS, type Kind } from './kinds.ts';
import { nearest } from './suggest.ts';

export interface Manifest {
  readonly kind: Kind;
  readonly name: string;
  /** Undefined when the document says nothing about labels: then they are left alone. */
  readonly labels: Readonly<Record<string, string>> | undefined;
  readonly spec: PlainObject;
  readonly line: number;
}

/** Problems that are printed: enough to correct the file by, and they fit a screen. */
const MAX_SHOWN = 20;
/** Far more than any cluster's worth of VMs; a disk image given by mistake ends here and not in the parser. */
const MAX_CHARACTERS = 4 * 1024 * 1024;
/** Each costs a KiB and more of memory, however empty it is. */
const MAX_DOCUMENTS = 10_000;
const KINDS = Object.keys(DOCUMENTS) as Kind[];

export class ManifestError extends CliError {
  readonly problems: readonly ManifestProblem[];

  constructor(file: string, problems: readonly ManifestProblem[], consequence = ', nothing was changed') {
    super({
      exit: EXIT.usage,
      reason: 'MANIFEST_INVALID',
      what: `${file} is not valid${consequence}`,
      why: [
        ...problems.slice(0, MAX_SHOWN).map((p) => {
          const where = p.field === '' ? '' : ` ${p.field}:`;
          return `${file}:${p.line}:${p.column}:${where} ${p.problem}${p.expected === '' ? '' : `, ${expected(p)}`}`;
        }),
        ...(problems.length > MAX_SHOWN ? [`and ${problems.length - MAX_SHOWN} more`] : []),
      ],
      hint: problems.length === 1 ? 'correct this line and try again' : 'correct these lines and try again',
      fields: problems.slice(0, MAX_SHOWN).map(({ field, problem, expected }) => ({ field, problem, expected })),
    });
    this.problems = problems;
  }
}

function expected(problem: ManifestProblem): string {
  return problem.expected.startsWith('did you mean') ? problem.expected : `expected ${problem.expected}`;
}

export function parseManifests(text: string, file: string): readonly Manifest[] {
  const excess = excessOf(text);
  if (excess !== '') {
    throw new ManifestError(file, [{ field: '', line: 1, column: 1, problem: excess, expected: 'a YAML file' }]);
  }
  const problems: ManifestProblem[] = [];
  const manifests: Manifest[] = [];
  const lines = new LineCounter();
  for (const document of documents(text, file, lines)) {
    for (const error of document.errors) {
      const { line, col } = lines.linePos(error.pos[0]);
      problems.push({ field: '', line, column: col, problem: firstLine(error.message), expected: '' });
    }
    if (document.errors.length > 0 || document.contents === null) continue;
    const checker = new Checker(document, lines);
    const manifest = checkDocument(document.contents, checker, lines);
    problems.push(...checker.problems);
    if (manifest !== undefined) manifests.push(manifest);
  }
  if (problems.length === 0) problems.push(...twice(manifests));
  if (problems.length === 0 && manifests.length === 0) {
    problems.push({
      field: '',
      line: 1,
      column: 1,
      problem: 'the file holds no document',
      expected: 'apiVersion, kind, name and spec',
    });
  }
  if (problems.length > 0) throw new ManifestError(file, problems);
  return manifests;
}

function excessOf(text: string): string {
  if (text.length > MAX_CHARACTERS) return 'the file is larger than 4 MiB';
  const starts = text.match(/^(---|\.\.\.)/gm)?.length ?? 0;
  return starts > MAX_DOCUMENTS ? `the file holds more than ${MAX_DOCUMENTS} documents` : '';
}

function documents(text: string, file: string, lines: LineCounter): readonly Document[] {
  try {
    // Integers stay exact: a size may be beyond what a double holds. The checker looks for keys that are there twice:
    // yaml compares each with each.
    const options = { lineCounter: lines, intAsBigInt: true, prettyErrors: false, uniqueKeys: false };
    const parsed = parseAllDocuments(text, options);
    return Array.isArray(parsed) ? parsed : [];
  } catch (error) {
    // The parser reports errors as values; if it throws all the same (nesting too deep), the file is at fault.
    const message = error instanceof Error ? firstLine(error.message) : 'cannot be read';
    throw new ManifestError(file, [{ field: '', line: 1, column: 1, problem: message, expected: 'a YAML file' }]);
  }
}

function checkDocument(contents: Node, checker: Checker, lines: LineCounter): Manifest | undefined {
  // `---` with only comments is an empty document, as left behind when one is commented out.
  if (isScalar(contents) && contents.value === null) return undefined;
  if (!isMap(contents)) {
    return checker.report(contents, '', 'this document is no mapping', 'apiVersion, kind, name and spec');
  }
  const kindNode = contents.get('kind', true);
  const kind = kindNode?.value;
  if (typeof kind !== 'string' || !KINDS.includes(kind as Kind)) {
    const near = typeof kind === 'string' ? nearest(kind, KINDS) : undefined;
    const right = near === undefined ? `one of ${KINDS.join(', ')}` : `did you mean ${near}?`;
    const problem = kindNode === undefined ? 'is missing' : `${JSON.stringify(String(kind))} is not known`;
    return checker.report(kindNode ?? contents, 'kind', problem, right);
  }
  const before = checker.problems.length;
  const checked = checker.check(contents, DOCUMENTS[kind as Kind], '');
  const version = contents.get('apiVersion', true);
  if (version !== undefined && version.value !== API_VERSION) {
    checker.report(version, 'apiVersion', `${JSON.stringify(String(version.value))} is not known`, API_VERSION);
  }
  if (checked === undefined || checker.problems.length > before) return undefined;
  const value = checked as unknown as { name: string; labels?: Record<string, string>; spec: PlainObject };
  const { line } = lines.linePos(contents.range?.[0] ?? 0);
  return { kind: kind as Kind, name: value.name, labels: value.labels, spec: value.spec, line };
}

function twice(manifests: readonly Manifest[]): ManifestProblem[] {
  const first = new Map<string, number>();
  return manifests.flatMap(({ kind, name, line }) => {
    const key = `${kind}/${name}`;
    const before = first.get(key);
    first.set(key, before ?? line);
    if (before === undefined) return [];
    const problem = `${kind} ${JSON.stringify(name)} is described twice (first in line ${before})`;
    return [{ field: 'name', line, column: 1, problem, expected: 'each resource once' }];
  });
}

function firstLine(message: string): string {
  return message.split('\n', 1)[0] ?? message;
}
