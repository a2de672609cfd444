// SPDX-License-Identifier: Apache-2.0
/**
 * `busbar host renew`: the certificates of a host that no Busbar daemon renews by itself, those of etcd and NATS. Meant
 * for a daily timer. What the agent and the controller use they renew themselves.
 */
import { X509Certificate } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { createRequest, matches } from '@busbar/pki/csr';
import { PKI_FILES, replacePair } from '@busbar/pki/files';
import {
  CertificatePurpose,
  CertificateServiceDefinition,
  RenewCertificateRequest,
} from '@busbar/proto/gen/busbar/v1/certificate';
import { ChannelCredentials } from '@grpc/grpc-js';
import { parse } from 'yaml';
import { Api } from '../api/api.ts';
import { Endpoint } from '../api/endpoint.ts';
import { checkController } from '../api/open.ts';
import { CliError, EXIT } from '../cli/exit.ts';
import type { Session } from '../cli/session.ts';
import { fileError } from '../cli/values.ts';
import { note, print } from '../output/print.ts';

export interface RenewOptions {
  readonly dir: string;
  readonly now?: boolean;
}

/** Whose certificate the call is made with, and what must be told of the new one. */
const RENEWED = [
  { purpose: 'nats', word: CertificatePurpose.NATS, by: 'agent', tell: 'nats-server --signal reload' },
  { purpose: 'etcd', word: CertificatePurpose.ETCD, by: 'controller', tell: '' },
  { purpose: 'etcd-client', word: CertificatePurpose.ETCD_CLIENT, by: 'controller', tell: 'restart busbar-controller' },
] as const;

export async function renewHost(session: Session, options: RenewOptions): Promise<void> {
  session.doing = 'renew the certificates of this host';
  const { io } = session;
  const directory = resolve(io.directory, options.dir);
  const file = (name: string) => join(directory, 'pki', name);
  const endpoints = controllersOf(join(directory, 'agent.yaml'));
  const renewed: { purpose: string; notAfter: string }[] = [];
  for (const { purpose, word, by, tell } of RENEWED) {
    const own = { certificate: file(PKI_FILES[purpose].certificate), key: file(PKI_FILES[purpose].key) };
    if (!existsSync(own.certificate)) continue;
    const former = new X509Certificate(read(own.certificate));
    if (options.now !== true && !isDue(former, io.now())) continue;
    const { csrPem, keyPem } = await createRequest(purpose);
    const api = apiOf(session, endpoints, {
      ca: read(file('ca.crt')),
      certificate: read(file(PKI_FILES[by].certificate)),
      key: read(file(PKI_FILES[by].key)),
    });
    const request = RenewCertificateRequest.create({ csrPem, purpose: word, requestId: session.requestId({}) });
    const { certificate } = await api.call(CertificateServiceDefinition, (client, call) =>
      client.renewCertificate(request, call),
    );
    const certificatePem = certificate?.certificatePem ?? '';
    if (certificatePem === '' || !matches(certificatePem, keyPem)) throw notOurs(purpose);
    await replacePair(own, { certificatePem, keyPem });
    renewed.push({ purpose, notAfter: certificate?.notAfter?.toISOString() ?? '' });
    if (tell !== '') note(io, `${purpose}: ${tell}`);
  }
  await print(session, {
    json: () => ({ renewed }),
    table: () =>
      renewed.length === 0
        ? 'nothing is due\n'
        : renewed.map(({ purpose, notAfter }) => `certificate of ${purpose} renewed, until ${notAfter}\n`).join(''),
  });
}

/** A third of the lifetime is left for whatever is in the way. */
export function isDue(certificate: Pick<X509Certificate, 'validFromDate' | 'validToDate'>, now: Date): boolean {
  const [from, to] = [certificate.validFromDate.getTime(), certificate.validToDate.getTime()];
  return to - now.getTime() < (to - from) / 3;
}

function controllersOf(agentYaml: string): readonly string[] {
  const parsed: unknown = parse(read(agentYaml).toString());
  const { controllers } = (parsed ?? {}) as { controllers?: readonly { readonly address?: unknown }[] };
  const addresses = Array.isArray(controllers) ? controllers.map((each) => String(each?.address ?? '')) : [];
  if (addresses.length > 0 && addresses.every((address) => /^\S+:\d+$/.test(address))) return addresses;
  throw fileError(agentYaml, new Error('controllers: wanted a list of {host, address}'));
}

function apiOf(
  session: Session,
  endpoints: readonly string[],
  tls: { readonly ca: Buffer; readonly certificate: Buffer; readonly key: Buffer },
): Api {
  const credentials = ChannelCredentials.createSsl(tls.ca, tls.key, tls.certificate, {
    checkServerIdentity: checkController,
  });
  const memory = { read: () => undefined, write() {} };
  const api = new Api(
    endpoints.map((address) => new Endpoint(address, credentials)),
    session.signal,
    memory,
  );
  session.onEnd(() => api.close());
  return api;
}

function read(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw fileError(path, error);
  }
}

export function notOurs(what: string): CliError {
  return new CliError({
    exit: EXIT.failed,
    reason: 'CERTIFICATE_NOT_AS_ASKED',
    what: `cannot use the new certificate of ${what}`,
    why: ['it is not for the key that was made here'],
    hint: 'the files were left as they were; look at `busbar certificate list`',
  });
}
