// SPDX-License-Identifier: Apache-2.0
/** What the context file says, and what its certificates say. */
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Session } from '../cli/session.ts';
import { type ChosenContext, chooseContext, readConfig } from '../config/file.ts';
import { keyMode, keyWarning } from '../config/key-file.ts';
import { print, tableStyle } from '../output/print.ts';
import { renderTable } from '../output/table.ts';

export async function list(session: Session): Promise<void> {
  const config = readConfig(session.io);
  const entries = Object.entries(config.contexts).map(([name, entry]) => ({
    name,
    current: name === config.current,
    ...entry,
  }));
  await print(session, {
    json: () => ({ file: config.path, current: config.current, contexts: entries }),
    lines: () => entries,
    names: () => entries.map(({ name }) => `context/${name}`),
    table: () =>
      renderTable(
        [
          { header: '', value: (entry) => (entry.current ? '*' : '-') },
          { header: 'NAME', value: (entry) => entry.name },
          { header: 'ENDPOINTS', value: (entry) => entry.endpoints.join(','), shrinks: true },
          { header: 'CERTIFICATE', value: (entry) => entry.certificate ?? '', shrinks: true },
        ],
        entries,
        tableStyle(session),
      ),
  });
}

export async function show(session: Session, wanted: string | undefined): Promise<void> {
  const config = readConfig(session.io);
  const context = chooseContext(config, wanted ?? session.global.context);
  const shown = describe(context, session.io.now());
  await print(session, {
    json: () => ({ ...shown, current: context.name === config.current, file: config.path }),
    names: () => [`context/${context.name}`],
    table() {
      const { certificate, ca, key } = shown;
      const lines = [
        ['context', `${context.name}${context.name === config.current ? ' (current)' : ''}`],
        ['endpoints', context.endpoints.join(', ')],
        ['identity', identity(certificate)],
        ['certificate', `${context.certificate ?? 'none'}${validity(certificate)}`],
        ['key', `${context.key ?? 'none'}${key.mode === undefined ? '' : ` (mode ${key.mode})`}`],
        ['ca', `${context.ca ?? 'none'}${validity(ca)}`],
        ['file', config.path],
        ...[certificate.problem, key.problem, ca.problem].flatMap((text) =>
          text === undefined ? [] : [['warning', text]],
        ),
      ];
      return `${lines.map(([name, value]) => `${`${name}:`.padEnd(14)}${value}`).join('\n')}\n`;
    },
  });
}

export interface CertificateState {
  readonly file?: string;
  readonly subject?: string;
  /** e.g. "client/admin", from the certificate's SPIFFE URI. */
  readonly identity?: string;
  readonly role?: string;
  readonly validTo?: string;
  readonly daysLeft?: number;
  readonly problem?: string;
}

export interface ContextState {
  readonly name: string;
  readonly endpoints: readonly string[];
  readonly certificate: CertificateState;
  readonly ca: CertificateState;
  readonly key: { readonly file?: string; readonly mode?: string; readonly problem?: string };
}

/** Public facts only: of the key no more than where it is and who may read it. */
export function describe(context: ChosenContext, now: Date): ContextState {
  const { name, endpoints, ca, certificate, key } = context;
  return {
    name,
    endpoints,
    certificate: certificateState(certificate, now),
    ca: certificateState(ca, now),
    key: keyState(key),
  };
}

const DAY_MS = 86_400_000;

function certificateState(file: string | undefined, now: Date): CertificateState {
  if (file === undefined) return {};
  try {
    const { subject, subjectAltName = '', validTo } = new X509Certificate(readFileSync(file));
    const [, self] = /URI:spiffe:\/\/[^/,]+\/(client\/[^/,]+)/.exec(subjectAltName) ?? [];
    const [, role] = /URI:spiffe:\/\/[^/,]+\/role\/([^/,]+)/.exec(subjectAltName) ?? [];
    const daysLeft = Math.floor((new Date(validTo).getTime() - now.getTime()) / DAY_MS);
    return {
      file,
      subject: subject.replaceAll('\n', ', '),
      ...(self === undefined ? {} : { identity: self }),
      ...(role === undefined ? {} : { role }),
      validTo: new Date(validTo).toISOString(),
      daysLeft,
      ...(daysLeft < 0 ? { problem: `the certificate ${file} has expired` } : {}),
    };
  } catch (error) {
    return { file, problem: `${file} cannot be read: ${(error as Error).message}` };
  }
}

function keyState(file: string | undefined): ContextState['key'] {
  if (file === undefined) return {};
  try {
    const problem = keyWarning(file);
    return { file, mode: keyMode(file), ...(problem === undefined ? {} : { problem }) };
  } catch (error) {
    return { file, problem: `${file} cannot be read: ${(error as Error).message}` };
  }
}

function identity({ identity: self, role, subject }: CertificateState): string {
  if (self === undefined) return subject ?? 'none';
  return role === undefined ? self : `${self}, role ${role}`;
}

function validity({ validTo, daysLeft }: CertificateState): string {
  return validTo === undefined ? '' : ` (until ${validTo.slice(0, 10)}, ${daysLeft} days left)`;
}
