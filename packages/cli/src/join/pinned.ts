// SPDX-License-Identifier: Apache-2.0
/**
 * Talks to a cluster of which nothing is known but the pin of its authority. First a connection on which nothing is
 * said: the server shows its chain, and the authority with the pinned key is looked for in it. Then a second one, on
 * which TLS itself verifies the whole chain against that authority and nothing else. Only there a secret is sent.
 */
import { X509Certificate } from 'node:crypto';
import { request as httpsRequest } from 'node:https';
import { isIP } from 'node:net';
import { checkServerIdentity, connect, type DetailedPeerCertificate, type PeerCertificate } from 'node:tls';
import { spkiPin } from '@busbar/pki/csr';

/** A live controller answers a handshake in milliseconds. */
const HANDSHAKE_DEADLINE_MS = 5_000;
/** Joining writes to the cluster store, whose own deadline is 3.5 s, and a refusal is held back for half a second. */
const ANSWER_DEADLINE_MS = 15_000;
/** A dozen certificates are 20 KiB. */
const ANSWER_MAX_BYTES = 1024 ** 2;
const CHAIN_MAX = 8;

/** Whoever answers is not the cluster that the token is of. */
export class PinError extends Error {
  override readonly name = 'PinError';
}

export type CheckIdentity = (host: string, certificate: PeerCertificate) => Error | undefined;

export interface Answer {
  readonly status: number;
  readonly body: string;
}

/** POSTs JSON to `address`, after having made sure that it belongs to the authority with this pin. */
export async function postPinned(
  target: { readonly address: string; readonly pin: string; readonly path: string },
  body: string,
  checkIdentity: CheckIdentity = checkServerIdentity,
  signal?: AbortSignal,
): Promise<Answer> {
  const at = target.address.lastIndexOf(':');
  const host = target.address.slice(0, at).replace(/^\[(.*)\]$/, '$1');
  const port = Number(target.address.slice(at + 1));
  const ca = await pinnedAuthority(host, port, target.pin, signal);
  return await post({ host, port, ca, path: target.path, checkIdentity }, body, signal);
}

/** The authority's certificate, PEM. Nothing that comes over this connection is believed but that. */
function pinnedAuthority(host: string, port: number, pin: string, signal: AbortSignal | undefined): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, servername: isIP(host) === 0 ? host : '', rejectUnauthorized: false });
    const end = (settle: () => void) => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
      socket.destroy();
      settle();
    };
    const timer = setTimeout(
      () => end(() => reject(new Error(`no TLS handshake within ${HANDSHAKE_DEADLINE_MS / 1000} s`))),
      HANDSHAKE_DEADLINE_MS,
    );
    const abort = () => end(() => reject(signal?.reason as Error));
    signal?.addEventListener('abort', abort, { once: true });
    if (signal?.aborted) return abort();
    socket.on('error', (error) => end(() => reject(error)));
    socket.on('close', () => end(() => reject(new Error('it hung up during the handshake'))));
    socket.on('secureConnect', () => {
      const found = chainOf(socket.getPeerCertificate(true)).find((der) => pinOf(der) === pin);
      if (found !== undefined) return end(() => resolve(new X509Certificate(found).toString()));
      end(() => reject(new PinError('it shows no certificate of the authority that the token names')));
    });
  });
}

function chainOf(leaf: DetailedPeerCertificate): readonly Buffer[] {
  const chain: Buffer[] = [];
  for (let each: DetailedPeerCertificate | undefined = leaf; each?.raw !== undefined; each = each.issuerCertificate) {
    if (chain.length >= CHAIN_MAX || chain.some((der) => der.equals(each?.raw as Buffer))) break;
    chain.push(each.raw);
  }
  return chain;
}

function pinOf(der: Buffer): string | undefined {
  try {
    return spkiPin(der);
  } catch {
    // A key of a kind that is unknown here is not the pinned one.
    return undefined;
  }
}

function post(
  to: { host: string; port: number; ca: string; path: string; checkIdentity: CheckIdentity },
  body: string,
  signal: AbortSignal | undefined,
): Promise<Answer> {
  const deadline = AbortSignal.timeout(ANSWER_DEADLINE_MS);
  return new Promise((resolve, reject) => {
    const request = httpsRequest(
      {
        host: to.host,
        port: to.port,
        path: to.path,
        method: 'POST',
        headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
        // A connection of its own, verified against this one authority.
        agent: false,
        ca: to.ca,
        rejectUnauthorized: true,
        checkServerIdentity: to.checkIdentity,
        signal: signal === undefined ? deadline : AbortSignal.any([signal, deadline]),
      },
      (response) => {
        const chunks: Buffer[] = [];
        let size = 0;
        response.on('data', (chunk: Buffer) => {
          size += chunk.length;
          chunks.push(chunk);
          if (size > ANSWER_MAX_BYTES) request.destroy(new Error('its answer is too long'));
        });
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() }));
        response.on('error', reject);
      },
    );
    request.on('error', (error: NodeJS.ErrnoException) =>
      reject(isTrustError(error) ? new PinError(error.message, { cause: error }) : error),
    );
    request.end(body);
  });
}

/** What OpenSSL says of a chain that it does not take, and our own check of the identity. */
function isTrustError(error: NodeJS.ErrnoException): boolean {
  return (
    error.code === 'ERR_TLS_CERT_ALTNAME_INVALID' ||
    error.message.startsWith('not the certificate of a controller') ||
    /^(UNABLE_TO_|CERT_|DEPTH_ZERO_|SELF_SIGNED_|INVALID_|ERROR_IN_CERT|PATH_LENGTH_|HOSTNAME_)/.test(error.code ?? '')
  );
}
