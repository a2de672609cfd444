// SPDX-License-Identifier: Apache-2.0
// The lab's entry in the configuration file of the `busbar` command.
import { chmod, readFile, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { type Document, parseDocument } from 'yaml';
import { withLock } from './lock.ts';
import { pkiDir } from './paths.ts';
import type { LabPlan } from './plan.ts';
import { writeAtomically } from './registry.ts';
import { controllerEndpoints } from './render-host.ts';

export class ContextError extends Error {
  override readonly name = 'ContextError';
}

export function contextFile(): string {
  const given = process.env['BUSBAR_CONFIG'];
  return given !== undefined && given !== '' ? given : join(homedir(), '.config/busbar/config.yaml');
}

export interface Context {
  readonly endpoints: readonly string[];
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
}

export function labContext(plan: LabPlan): Context {
  const file = (name: string): string => join(pkiDir(plan.spec.name), name);
  return {
    endpoints: controllerEndpoints(plan).map((entry) => entry.address),
    ca: file('ca.crt'),
    certificate: file('admin.crt'),
    key: file('admin.key'),
  };
}

/** As a document, not as data: comments and contexts that people wrote by hand stay as they are. */
function parse(text: string): Document {
  const document = parseDocument(text);
  if (document.errors.length > 0)
    throw new ContextError(`${contextFile()} is no valid YAML: ${document.errors[0]?.message ?? ''}`);
  return document;
}

export function addContext(text: string, name: string, context: Context): string {
  const document = parse(text);
  document.set('current', name);
  document.setIn(['contexts', name], document.createNode(context));
  return document.toString();
}

export function removeContext(text: string, name: string): string {
  const document = parse(text);
  if (!document.hasIn(['contexts', name])) return text;
  document.deleteIn(['contexts', name]);
  if (document.get('current') === name) {
    const rest = Object.keys((document.toJS() as { contexts?: object }).contexts ?? {});
    if (rest[0] === undefined) document.delete('current');
    else document.set('current', rest[0]);
  }
  return document.toString();
}

/** Nothing left but the frame that addContext() made. */
export function isEmpty(text: string): boolean {
  const left = (parse(text).toJS() ?? {}) as { contexts?: object };
  return !text.includes('#') && Object.keys({ ...left, ...left.contexts }).every((key) => key === 'contexts');
}

async function change(edit: (text: string) => string): Promise<void> {
  const file = contextFile();
  await withLock('context/', async () => {
    const before = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return '';
      throw error;
    });
    const after = edit(before);
    if (after === before) return;
    if (isEmpty(after)) {
      await rm(file);
      return;
    }
    await writeAtomically(file, after, 0o600);
    await chmod(file, 0o600);
  });
}

export async function writeContext(plan: LabPlan): Promise<void> {
  await change((text) => addContext(text, plan.spec.name, labContext(plan)));
}

export async function dropContext(lab: string): Promise<void> {
  await change((text) => (text === '' ? '' : removeContext(text, lab)));
}
