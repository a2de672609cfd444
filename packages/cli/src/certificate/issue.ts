// SPDX-License-Identifier: Apache-2.0
/** Certificates whose keys are made here: for somebody else, and the successor of one's own. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { errorChain } from '@busbar/core/errors';
import { createRequest, matches } from '@busbar/pki/csr';
import { assertUnused, replacePair, writeTree } from '@busbar/pki/files';
import { isIdentityName } from '@busbar/pki/identity';
import {
  Certificate,
  CertificateServiceDefinition,
  ClientRole,
  IssueCertificateRequest,
  RenewCertificateRequest,
} from '@busbar/proto/gen/busbar/v1/certificate';
import { CliError, EXIT, usageError } from '../cli/exit.ts';
import type { ChangeOptions, Session } from '../cli/session.ts';
import { intFlag } from '../cli/values.ts';
import { type ChosenContext, chooseContext, readConfig } from '../config/file.ts';
import { notOurs } from '../host/renew.ts';
import { note, print } from '../output/print.ts';

export interface IssueOptions extends ChangeOptions {
  readonly role: string;
  readonly days: string;
  readonly dir: string;
}

const ROLES: Readonly<Record<string, ClientRole>> = {
  viewer: ClientRole.VIEWER,
  operator: ClientRole.OPERATOR,
  admin: ClientRole.ADMIN,
};
const DAYS_MAX = 3_650;

export async function issue(session: Session, client: string, options: IssueOptions): Promise<void> {
  session.doing = `issue a certificate for ${client}`;
  const { io } = session;
  if (!isIdentityName(client)) {
    const rule = 'names are 1 to 63 lower-case letters, digits and hyphens, not beginning or ending with a hyphen';
    throw usageError(`${JSON.stringify(client)} is no name of a client`, rule, 'choose another name');
  }
  const directory = resolve(io.directory, options.dir);
  const { csrPem, keyPem } = await createRequest(client);
  const request = IssueCertificateRequest.create({
    csrPem,
    client,
    role: ROLES[options.role] ?? ClientRole.UNSPECIFIED,
    validDays: intFlag('--days', options.days, DAYS_MAX),
    validateOnly: options.dryRun === true,
    requestId: session.requestId(options),
  });
  await assertUnused(directory);
  const ca = readOf(ownContext(session), 'ca');
  const api = await session.api();
  const { certificate } = await api.call(CertificateServiceDefinition, (rpc, call) =>
    rpc.issueCertificate(request, call),
  );
  if (certificate === undefined) throw notOurs(client);
  if (options.dryRun !== true) {
    // Also when a repeated request id brought a certificate of another run, whose key is not here.
    if (!matches(certificate.certificatePem, keyPem)) throw notOurs(client);
    await writeTree(directory, [
      { path: 'ca.crt', content: ca, secret: false },
      { path: `${client}.crt`, content: certificate.certificatePem, secret: false },
      { path: `${client}.key`, content: keyPem, secret: true },
    ]);
  }
  const until = certificate.notAfter?.toISOString() ?? '?';
  await print(session, {
    json: () => ({ certificate: Certificate.toJSON(certificate) }),
    table: () =>
      options.dryRun === true
        ? `client/${client} would get a certificate until ${until} (dry run: nothing was changed)\n`
        : `certificate/${certificate.serial} of client/${client} issued until ${until}: ${directory}\n`,
  });
}

export async function renew(session: Session): Promise<void> {
  session.doing = 'renew the certificate of the context';
  const context = ownContext(session);
  const own = { certificate: pathOf(context, 'certificate'), key: pathOf(context, 'key') };
  const { csrPem, keyPem } = await createRequest(context.name);
  const request = RenewCertificateRequest.create({ csrPem, requestId: session.requestId({}) });
  const api = await session.api();
  const { certificate } = await api.call(CertificateServiceDefinition, (client, call) =>
    client.renewCertificate(request, call),
  );
  if (certificate === undefined || !matches(certificate.certificatePem, keyPem))
    throw notOurs(`context ${context.name}`);
  await replacePair(own, { certificatePem: certificate.certificatePem, keyPem });
  await prove(session, csrPem);
  const until = certificate.notAfter?.toISOString() ?? '?';
  await print(session, {
    json: () => ({ certificate: Certificate.toJSON(certificate) }),
    table: () => `certificate of context ${context.name} renewed until ${until}: ${own.certificate}\n`,
  });
}

/** Uses the new certificate, which is in the files by now, so that it counts as arrived and the former one ends soon. */
async function prove(session: Session, csrPem: string): Promise<void> {
  const { openApi } = await import('../api/open.ts');
  const request = RenewCertificateRequest.create({ csrPem, validateOnly: true });
  await openApi(session)
    .call(CertificateServiceDefinition, (client, call) => client.renewCertificate(request, call))
    .catch((error: unknown) =>
      note(session.io, `The new certificate is in place, but was not used yet: ${errorChain(error)}`),
    );
}

function ownContext(session: Session): ChosenContext {
  const fromEnvironment = session.io.env['BUSBAR_CONTEXT'];
  const wanted = session.global.context ?? (fromEnvironment === '' ? undefined : fromEnvironment);
  return chooseContext(readConfig(session.io), wanted);
}

function pathOf(context: ChosenContext, what: 'ca' | 'certificate' | 'key'): string {
  const path = context[what];
  if (path !== undefined) return path;
  throw new CliError({
    exit: EXIT.usage,
    reason: 'CONTEXT_INCOMPLETE',
    what: `context ${context.name} cannot be used`,
    why: [`${what} is missing in context ${context.name}`],
    hint: 'every context needs endpoints, ca, certificate and key (see `busbar context --help`)',
  });
}

function readOf(context: ChosenContext, what: 'ca'): Buffer {
  return readFileSync(pathOf(context, what));
}
