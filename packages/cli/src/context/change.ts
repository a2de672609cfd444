// SPDX-License-Identifier: Apache-2.0
/** use, add, rename and remove: changes of the context file. */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { usageError } from '../cli/exit.ts';
import type { Session } from '../cli/session.ts';
import { readTextFile } from '../cli/values.ts';
import { normaliseEndpoint, splitEndpoints } from '../config/address.ts';
import { addContext, removeContext, renameContext, setCurrent } from '../config/edit.ts';
import { chooseContext, configPath, readConfig } from '../config/file.ts';
import { keyWarning } from '../config/key-file.ts';
import { note, print } from '../output/print.ts';

export interface AddOptions {
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
  readonly use?: boolean;
}

export async function use(session: Session, name: string): Promise<void> {
  const config = readConfig(session.io);
  const context = chooseContext(config, name);
  setCurrent(config.path, context.name);
  await told(session, context.name, 'is current');
}

export async function add(session: Session, name: string, options: AddOptions): Promise<void> {
  const { io, global } = session;
  checkName(name);
  const endpoints = splitEndpoints(global.endpoint ?? []).map(normaliseEndpoint);
  if (endpoints.length === 0) {
    throw usageError(
      `context ${name} has no endpoints`,
      '--endpoint is missing',
      'add --endpoint HOST:PORT, several with commas',
    );
  }
  const certificate = readCertificate(session, '--certificate', options.certificate);
  readCertificate(session, '--ca', options.ca);
  const keyText = readTextFile(io, options.key);
  try {
    if (!certificate.checkPrivateKey(createPrivateKey(keyText))) throw new Error('it belongs to another certificate');
  } catch (error) {
    throw usageError(
      `--key ${options.key} cannot be used`,
      (error as Error).message,
      `give the key of ${options.certificate}, in PEM`,
    );
  }
  const files = {
    ca: resolve(io.directory, options.ca),
    certificate: resolve(io.directory, options.certificate),
    key: resolve(io.directory, options.key),
  };
  const path = configPath(io);
  const first = !existsSync(path) || readConfig(io).current === '';
  const replaces = !first && Object.hasOwn(readConfig(io).contexts, name);
  addContext(path, name, { endpoints, ...files }, first || options.use === true);
  const warning = keyWarning(files.key);
  if (warning !== undefined) note(io, `warning: ${warning}`);
  await told(
    session,
    name,
    `${replaces ? 'replaced' : 'added'}${first || options.use === true ? ' and is current' : ''}`,
  );
}

export async function rename(session: Session, from: string, to: string): Promise<void> {
  const config = readConfig(session.io);
  const { name } = chooseContext(config, from);
  checkName(to);
  if (Object.hasOwn(config.contexts, to)) {
    throw usageError(
      `cannot rename context ${from}`,
      `there is a context ${to} already`,
      `busbar context remove ${to}`,
    );
  }
  renameContext(config.path, name, to);
  await told(session, to, `is the new name of ${name}`);
}

export async function remove(session: Session, name: string): Promise<void> {
  const config = readConfig(session.io);
  const context = chooseContext(config, name);
  removeContext(config.path, context.name);
  await told(session, context.name, 'removed; its certificate and key are still where they were');
  if (config.current === context.name) note(session.io, 'no context is current now: busbar context use NAME');
}

function told(session: Session, context: string, what: string): Promise<void> {
  return print(session, {
    json: () => ({ context, result: what }),
    names: () => [`context/${context}`],
    table: () => `context/${context} ${what}\n`,
  });
}

function checkName(name: string): void {
  if (/^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/.test(name)) return;
  throw usageError(
    `${JSON.stringify(name)} is no name of a context`,
    'names are 1 to 63 letters, digits, ".", "_" and "-", beginning with a letter or digit',
    'choose another name',
  );
}

function readCertificate(session: Session, flag: string, file: string): X509Certificate {
  const text = readTextFile(session.io, file);
  try {
    return new X509Certificate(text);
  } catch (error) {
    throw usageError(`${flag} ${file} cannot be used`, (error as Error).message, 'give a certificate in PEM');
  }
}
