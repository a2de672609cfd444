// SPDX-License-Identifier: Apache-2.0
/** From settings and the context file to a connection. */
import { readFileSync } from 'node:fs';
import { checkServerIdentity, type PeerCertificate } from 'node:tls';
import { ChannelCredentials } from '@grpc/grpc-js';
import { CliError, EXIT, usageError } from '../cli/exit.ts';
import type { Session } from '../cli/session.ts';
import { normaliseEndpoint, splitEndpoints } from '../config/address.ts';
import { type ChosenContext, chooseContext, readConfig } from '../config/file.ts';
import { keyWarning } from '../config/key-file.ts';
import { lastEndpoint } from '../config/last-endpoint.ts';
import { note } from '../output/print.ts';
import { Api } from './api.ts';
import { Endpoint, NO_CONTROLLER } from './endpoint.ts';

/** `only`: these endpoints, whatever the context or the user says. */
export function openApi(session: Session, only?: readonly string[]): Api {
  const { io, global } = session;
  const wanted = global.context ?? nonEmpty(io.env['BUSBAR_CONTEXT']);
  const context = chooseContext(readConfig(io), wanted);
  const given = splitEndpoints(global.endpoint ?? []);
  const addresses = (only ?? (given.length > 0 ? given : context.endpoints)).map(normaliseEndpoint);
  if (addresses.length === 0) {
    throw usageError(
      `context ${context.name} has no endpoints`,
      'there is nobody to call',
      'add endpoints to the context',
    );
  }
  const { credentials, probe } = credentialsOf(context);
  const warning = context.key === undefined ? undefined : keyWarning(context.key);
  if (warning !== undefined && !session.silent && only === undefined) note(io, `warning: ${warning}`);
  const api = new Api(
    [...new Set(addresses)].map((address) => new Endpoint(address, credentials, probe)),
    session.signal,
    lastEndpoint(io, context.name),
  );
  session.onEnd(() => api.close());
  return api;
}

interface Credentials {
  readonly credentials: ChannelCredentials;
  readonly probe?: (address: string) => Promise<string>;
}

function credentialsOf(context: ChosenContext): Credentials {
  if (context.plaintext === true) return { credentials: ChannelCredentials.createInsecure() };
  const read = (key: 'ca' | 'certificate' | 'key') => {
    const path = context[key];
    if (path === undefined) throw incomplete(context.name, `${key} is missing in context ${context.name}`);
    try {
      return readFileSync(path);
    } catch (error) {
      throw incomplete(context.name, `${key}: ${(error as Error).message}`);
    }
  };
  const [ca, key, certificate] = [read('ca'), read('key'), read('certificate')];
  try {
    return {
      credentials: ChannelCredentials.createSsl(ca, key, certificate, { checkServerIdentity: checkController }),
      async probe(address) {
        const { probeTls } = await import('./tls-probe.ts');
        return await probeTls(address, { ca, key, cert: certificate, checkServerIdentity: checkController });
      },
    };
  } catch (error) {
    throw incomplete(context.name, `TLS: ${(error as Error).message}`);
  }
}

/**
 * Address and role: every host of the cluster has a certificate of the same CA, so a certificate for the right address
 * is not enough. Only a controller may be told what to do, and be believed.
 */
export function checkController(host: string, certificate: PeerCertificate): Error | undefined {
  const wrong = checkServerIdentity(host, certificate);
  if (wrong !== undefined) return wrong;
  if (/(^|, )URI:spiffe:\/\/[^/,]+\/controller\//.test(certificate.subjectaltname ?? '')) return undefined;
  return new Error(`${NO_CONTROLLER} (${certificate.subjectaltname ?? 'no subject alternative name'})`);
}

function incomplete(context: string, why: string): CliError {
  return new CliError({
    exit: EXIT.usage,
    reason: 'CONTEXT_INCOMPLETE',
    what: `context ${context} cannot be used`,
    why: [why],
    hint: 'every context needs endpoints, ca, certificate and key (see `busbar context --help`)',
  });
}

function nonEmpty(value: string | undefined): string | undefined {
  return value === '' ? undefined : value;
}
