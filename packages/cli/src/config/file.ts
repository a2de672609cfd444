// SPDX-License-Identifier: Apache-2.0
/**
 * The context file: which clusters there are and how to reach them.
 *
 *   current: lab
 *   contexts:
 *     lab:
 *       endpoints: [10.77.0.11:7800, 10.77.0.12:7800]
 *       ca: ca.pem            # relative paths begin at this file's directory
 *       certificate: admin.pem
 *       key: admin.key
 */
import { readFileSync } from 'node:fs';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { LineCounter, parseDocument } from 'yaml';
import { CliError, EXIT } from '../cli/exit.ts';
import type { Io } from '../cli/io.ts';
import { Checker, type ManifestProblem } from '../manifest/check.ts';
import { ManifestError } from '../manifest/parse.ts';
import { bool, list, object, record, string } from '../manifest/shape.ts';
import { nearest } from '../manifest/suggest.ts';

export interface ContextEntry {
  readonly endpoints: readonly string[];
  readonly ca?: string;
  readonly certificate?: string;
  readonly key?: string;
  /** No TLS. Only for a fake controller in tests: a real one refuses it. */
  readonly plaintext?: boolean;
}

export interface ConfigFile {
  readonly path: string;
  readonly current: string;
  readonly contexts: Readonly<Record<string, ContextEntry>>;
}

const SHAPE = object<{ current: string; contexts: unknown }>({
  current: string,
  contexts: record(
    object<ContextEntry>({ endpoints: list(string), ca: string, certificate: string, key: string, plaintext: bool }, [
      'endpoints',
    ]),
  ),
});

export function configPath(io: Io): string {
  const explicit = io.env['BUSBAR_CONFIG'];
  if (explicit !== undefined && explicit !== '') return resolve(io.directory, explicit);
  const base = io.env['XDG_CONFIG_HOME'];
  return join(base === undefined || base === '' ? join(io.home, '.config') : base, 'busbar', 'config.yaml');
}

export function readConfig(io: Io): ConfigFile {
  const path = configPath(io);
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw new CliError({
      exit: EXIT.usage,
      reason: 'CONFIG_MISSING',
      what: 'no cluster is configured',
      why: [missing ? `there is no file ${path}` : `${path} cannot be read: ${(error as Error).message}`],
      hint: '`busbar context add --help` shows how to add one; or set BUSBAR_CONFIG to another file',
      cause: error,
    });
  }
  return parseConfig(text, path);
}

export function parseConfig(text: string, path: string): ConfigFile {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: false });
  const checker = new Checker(document, lines);
  const problems: ManifestProblem[] = document.errors.map((error) => {
    const { line, col } = lines.linePos(error.pos[0]);
    return { field: '', problem: error.message, expected: '', line, column: col };
  });
  const checked =
    problems.length > 0 || document.contents === null ? undefined : checker.check(document.contents, SHAPE, '');
  problems.push(...checker.problems);
  if (problems.length > 0) throw new ManifestError(path, problems, '');
  const value = (checked ?? {}) as unknown as { current?: string; contexts?: Record<string, ContextEntry> };
  const base = dirname(path);
  const absolute = (file: string) => (isAbsolute(file) ? file : join(base, file));
  const contexts = Object.entries(value.contexts ?? {}).map(([name, entry]) => {
    const files = (['ca', 'certificate', 'key'] as const).flatMap((key) => {
      const file = entry[key];
      return file === undefined ? [] : [[key, absolute(file)] as const];
    });
    return [name, { ...entry, ...Object.fromEntries(files) }] as const;
  });
  return { path, current: value.current ?? '', contexts: Object.fromEntries(contexts) };
}

export interface ChosenContext extends ContextEntry {
  readonly name: string;
}

export function chooseContext(config: ConfigFile, wanted: string | undefined): ChosenContext {
  const name = wanted ?? config.current;
  const known = Object.keys(config.contexts);
  const listed = known.length === 0 ? 'the file has no contexts' : `contexts are ${known.join(', ')}`;
  const entry = Object.hasOwn(config.contexts, name) ? config.contexts[name] : undefined;
  if (name === '' || entry === undefined) {
    throw new CliError({
      exit: EXIT.usage,
      reason: 'CONTEXT_UNKNOWN',
      what: name === '' ? 'no context is chosen' : `there is no context ${JSON.stringify(name)}`,
      why: [`${listed} (${config.path})`],
      hint:
        known.length === 0
          ? '`busbar context add --help` shows how to add one'
          : `busbar context use ${nearest(name, known) ?? known[0]}`,
    });
  }
  return { name, ...entry };
}
