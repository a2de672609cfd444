// SPDX-License-Identifier: Apache-2.0
/** Redeems a join token: makes the keys, asks the controllers one after the other, and checks what came back. */
import { BusbarError } from '@busbar/core/errors';
import { createRequest, matches, spkiPin } from '@busbar/pki/csr';
import type { HostCredentials } from '@busbar/pki/found';
import type { JoinToken } from '@busbar/pki/join-token';
import { type HostPurpose, PURPOSES } from '@busbar/pki/purpose';
import { CertificatePurpose } from '@busbar/proto/gen/busbar/v1/certificate';
import { HostRole } from '@busbar/proto/gen/busbar/v1/host';
import { JoinRequest, JoinResponse } from '@busbar/proto/gen/busbar/v1/join';
import { CliError, EXIT, type ExitCode } from '../cli/exit.ts';
import { type CheckIdentity, PinError, postPinned } from './pinned.ts';

const PATH = '/busbar.v1.JoinService/Join';
const WORDS: Readonly<Record<HostPurpose, CertificatePurpose>> = {
  agent: CertificatePurpose.AGENT,
  controller: CertificatePurpose.CONTROLLER,
  etcd: CertificatePurpose.ETCD,
  'etcd-client': CertificatePurpose.ETCD_CLIENT,
  nats: CertificatePurpose.NATS,
};

export interface Joined {
  readonly response: JoinResponse;
  readonly credentials: HostCredentials;
}

export async function redeem(
  token: JoinToken,
  addresses: readonly string[],
  checkIdentity: CheckIdentity,
  signal: AbortSignal,
): Promise<Joined> {
  const purposes = PURPOSES.filter((purpose): purpose is HostPurpose => purpose !== 'client');
  const requests = new Map(
    await Promise.all(purposes.map(async (purpose) => [purpose, await createRequest(purpose)] as const)),
  );
  const csrs = [...requests].map(([purpose, { csrPem }]) => ({ purpose: WORDS[purpose], csrPem }));
  const request = JoinRequest.create({ tokenId: token.id, secret: token.secret, addresses: [...addresses], csrs });
  const body = JSON.stringify(JoinRequest.toJSON(request));
  const response = await ask(token, body, checkIdentity, signal);

  // The connection was trusted because of the pin; what came over it still has to fit together.
  if (spkiPin(response.caPem) !== token.pin) throw badAnswer('its authority is not the one that the token names');
  const certificates: Partial<Record<HostPurpose, { certificatePem: string; keyPem: string }>> = {};
  for (const { purpose: word, certificatePem } of response.certificates) {
    const purpose = purposes.find((each) => WORDS[each] === word);
    const keyPem = purpose === undefined ? undefined : requests.get(purpose)?.keyPem;
    if (purpose === undefined || keyPem === undefined) continue;
    if (!matches(certificatePem, keyPem)) throw badAnswer(`the certificate for ${word} is not for the key made here`);
    certificates[purpose] = { certificatePem, keyPem };
  }
  if (response.addresses.length === 0) throw badAnswer('it names no address of this host');
  if (certificates.agent === undefined) throw badAnswer('the certificate of the agent is missing');
  if (response.voter && (certificates.controller === undefined || response.sealKey.length === 0))
    throw badAnswer('what a controller needs is missing');
  return {
    response,
    credentials: {
      authorities: {
        ca: response.caPem,
        ...(response.etcdCaPem === '' ? {} : { 'etcd-ca': response.etcdCaPem }),
      },
      certificates,
      sealKey: response.voter ? response.sealKey : null,
      etcdRevocations: null,
    },
  };
}

/** The same request to each: whoever lost the answer of one gets the same from the next. */
async function ask(
  token: JoinToken,
  body: string,
  checkIdentity: CheckIdentity,
  signal: AbortSignal,
): Promise<JoinResponse> {
  const failures: string[] = [];
  let untrusted = false;
  for (const address of token.endpoints) {
    try {
      const answer = await postPinned({ address, pin: token.pin, path: PATH }, body, checkIdentity, signal);
      if (answer.status === 200) return JoinResponse.fromJSON(JSON.parse(answer.body));
      const refusal = refusalOf(answer.body, answer.status);
      if (refusal.exit !== EXIT.unavailable) throw refusal;
      failures.push(`${address}: ${refusal.why.join('; ')}`);
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof CliError) throw error;
      untrusted ||= error instanceof PinError;
      failures.push(`${address}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  throw new CliError({
    exit: untrusted ? EXIT.failed : EXIT.unavailable,
    reason: untrusted ? 'PIN_MISMATCH' : 'UNREACHABLE',
    what: 'cannot join the cluster',
    why: failures,
    hint: untrusted
      ? 'the secret was not sent there: check the addresses, and that nobody stands between this host and the controllers'
      : 'check that this host reaches port 7801 of a controller; the token can be used again',
  });
}

const EXIT_OF_CODE: Readonly<Record<string, ExitCode>> = {
  NOT_FOUND: EXIT.notFound,
  ALREADY_EXISTS: EXIT.conflict,
  ABORTED: EXIT.conflict,
  FAILED_PRECONDITION: EXIT.conflict,
  UNAVAILABLE: EXIT.unavailable,
  DEADLINE_EXCEEDED: EXIT.unavailable,
};

function refusalOf(body: string, status: number): CliError {
  let info: { code?: unknown; reason?: unknown; message?: unknown; hint?: unknown } = {};
  try {
    const parsed: unknown = JSON.parse(body);
    if (typeof parsed === 'object' && parsed !== null) info = parsed;
  } catch {
    // Not from a controller, or cut off: the status says enough.
  }
  const text = (value: unknown, otherwise: string) => (typeof value === 'string' && value !== '' ? value : otherwise);
  const reason = text(info.reason, `HTTP_${status}`);
  return new CliError({
    exit: EXIT_OF_CODE[text(info.code, '')] ?? (status >= 500 ? EXIT.unavailable : EXIT.failed),
    reason,
    what: 'cannot join the cluster',
    why: [`${text(info.message, `HTTP status ${status}`)} (${reason})`],
    hint: text(info.hint, ''),
  });
}

function badAnswer(why: string): BusbarError {
  return new BusbarError({
    kind: 'internal',
    reason: 'JOIN_ANSWER_INVALID',
    message: `the cluster's answer does not fit together: ${why}`,
    hint: 'look for what was issued with "busbar certificate list" and revoke it',
  });
}

export function isHypervisor(response: Pick<JoinResponse, 'role'>): boolean {
  return response.role !== HostRole.WITNESS;
}
