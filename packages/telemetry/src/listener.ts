// SPDX-License-Identifier: Apache-2.0
import type { X509Certificate } from 'node:crypto';
import { constants } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { boundedLog } from '@busbar/core/bounded-log';
import { systemClock } from '@busbar/core/clock/clock';
import type { Logger } from '@busbar/core/log';
import type { Check, HealthSource } from './health.ts';
import type { MetricsRegistry } from './registry.ts';

export interface TlsFiles {
  readonly ca: Buffer;
  readonly certificate: Buffer;
  readonly key: Buffer;
}

export interface ListenerOptions {
  readonly tls: TlsFiles;
  readonly registry: MetricsRegistry;
  readonly health: HealthSource;
  /** Whether whoever proved to own this certificate of the cluster's authority may read the metrics. */
  mayRead(certificate: X509Certificate): boolean;
  readonly logger: Logger;
}

export interface MetricsListener {
  /** Resolves with the port once it listens. */
  listen(address: string): Promise<number>;
  /**
   * Listens as soon as the address can be had: at boot it may not be there yet, and a daemon shall not wait for the
   * figures about it.
   */
  serve(address: string): void;
  /** Takes other files into use: for connections from now on. */
  setTls(tls: TlsFiles): void;
  close(): void;
}

/** A probe, a scraper and a person or two per host; whoever has no certificate cannot hold one for longer than HELLO_MS. */
const CONNECTIONS = 64;
/** TLS handshake and request line together take milliseconds on a site's network. */
const HELLO_MS = 5_000;
/** Longer than Prometheus' usual 15 s between two scrapes, so that it keeps its connection. */
const IDLE_MS = 30_000;
/** An address that an interface gets while the host boots is there within seconds. */
const TRY_AGAIN_MS = 5_000;
/** What a probe shows of an error: enough to know where to look, without a certificate. */
const PROBLEM_CHARACTERS = 300;

type Answer = { readonly status: number; readonly type: string; readonly body: string };

/**
 * Metrics and health over HTTPS. `/healthz` and `/readyz` answer anybody who reaches the port, because what probes
 * (systemd, load balancers) rarely have certificates; `/metrics` wants one of the cluster's clients.
 */
export function metricsListener(options: ListenerOptions): MetricsListener {
  const { health, registry, logger } = options;
  const lines = boundedLog({ logger, clock: systemClock });
  let closed = false;
  let again: Disposable | undefined;
  const server = createServer({
    ...secure(options.tls),
    minVersion: 'TLSv1.2',
    requestCert: true,
    // Refused below, where an answer can say why, and only for what needs it.
    rejectUnauthorized: false,
    // A resumed session brings no certificate, and would outlive its revocation.
    secureOptions: constants.SSL_OP_NO_TICKET,
    handshakeTimeout: HELLO_MS,
    headersTimeout: HELLO_MS,
    requestTimeout: HELLO_MS,
    keepAliveTimeout: IDLE_MS,
    connectionsCheckingInterval: 1_000,
    maxHeaderSize: 8 * 1024,
  });
  server.maxConnections = CONNECTIONS;
  server.setTimeout(IDLE_MS);
  // Port scanners and clients that hang up: nobody's business.
  server.on('tlsClientError', () => {});
  server.on('clientError', (_error, socket) => socket.destroy());
  server.on('request', (request, response) => {
    answer(request)
      .catch((err: unknown): Answer => {
        const { remoteAddress: address = '' } = request.socket;
        const source = { kind: 'listener-failed', name: address, fields: { address } };
        lines.write('error', source, { address, err, path: request.url }, 'a question about metrics or health failed');
        return text(500, 'internal error; the log says more');
      })
      .then((answered) => send(request, response, answered))
      .catch(() => response.destroy());
  });

  async function answer(request: IncomingMessage): Promise<Answer> {
    if (request.method !== 'GET' && request.method !== 'HEAD') return text(405, 'only GET');
    switch (request.url?.split('?')[0]) {
      case '/healthz':
        return verdict(health.live());
      case '/readyz':
        return verdict(await health.ready());
      case '/metrics': {
        const certificate = proven(request.socket as TLSSocket);
        if (certificate === null) return text(401, 'a client certificate of this cluster is needed');
        if (!options.mayRead(certificate)) return text(403, 'this certificate is not one of a client of this cluster');
        return { status: 200, type: registry.contentType, body: await registry.text() };
      }
      default:
        return text(404, 'there are /metrics, /healthz and /readyz');
    }
  }

  function listen(address: string): Promise<number> {
    const { host, port } = split(address);
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen({ host, port }, () => {
        server.off('error', reject);
        server.on('error', (err) => logger.error({ err }, 'the listener for metrics failed'));
        resolve((server.address() as AddressInfo).port);
      });
    });
  }

  function serve(address: string, told = false): void {
    listen(address).then(
      () => logger.info({ address }, 'metrics and health are served'),
      (err: unknown) => {
        if (closed) return;
        if (!told) logger.error({ err, address }, 'metrics and health cannot be served yet');
        again = systemClock.timer(TRY_AGAIN_MS, () => serve(address, true));
      },
    );
  }

  return {
    listen,
    serve: (address) => serve(address),
    setTls: (tls) => server.setSecureContext(secure(tls)),
    close() {
      closed = true;
      lines[Symbol.dispose]();
      again?.[Symbol.dispose]();
      server.close();
      server.closeAllConnections();
    },
  };
}

function secure({ ca, certificate, key }: TlsFiles) {
  return { ca, cert: certificate, key };
}

/** The certificate of the other side if TLS has verified it against the cluster's authority. */
function proven(socket: TLSSocket): X509Certificate | null {
  return socket.authorized ? (socket.getPeerX509Certificate() ?? null) : null;
}

function verdict(checks: readonly Check[]): Answer {
  const ok = checks.every(({ problem }) => problem === '');
  const shown = checks.map(({ name, problem }) => ({
    name,
    ok: problem === '',
    ...(problem === '' ? {} : { problem: problem.slice(0, PROBLEM_CHARACTERS) }),
  }));
  return { status: ok ? 200 : 503, type: 'application/json', body: `${JSON.stringify({ ok, checks: shown })}\n` };
}

function text(status: number, line: string): Answer {
  return { status, type: 'text/plain; charset=utf-8', body: `${line}\n` };
}

function send(request: IncomingMessage, response: ServerResponse, { status, type, body }: Answer): void {
  const headers = { 'content-type': type, 'content-length': Buffer.byteLength(body), 'cache-control': 'no-store' };
  // Whoever sent what was not asked for does not keep the connection: a body would be read as the next request.
  response.writeHead(status, status >= 400 && status !== 503 ? { ...headers, connection: 'close' } : headers);
  response.end(request.method === 'HEAD' ? undefined : body);
}

/** `host:port` or `[IPv6]:port`, which the configuration has checked. */
function split(address: string): { readonly host: string; readonly port: number } {
  const colon = address.lastIndexOf(':');
  return { host: address.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(address.slice(colon + 1)) };
}
