// SPDX-License-Identifier: Apache-2.0
import { constants } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { boundedLog } from '@busbar/core/bounded-log';
import type { Clock } from '@busbar/core/clock/clock';
import { type Metrics, noMetrics } from '@busbar/core/metrics';
import type { TlsText } from '@busbar/pki/tls/material';
import type { TlsFeed } from '@busbar/pki/tls/source';
import { OPENAPI } from '@busbar/proto/files';
import {
  CONNECTION_LIMITS,
  type ConnectionCounts,
  type ConnectionLimits,
  guardConnections,
  UNPROVEN_LIFE_MS,
} from '../api/connections.ts';
import { endHttpConnections } from '../api/end-connections.ts';
import { type Intake, newIntake, READ_DEADLINE_MS } from '../api/intake.ts';
import { measuredPipeline } from '../api/measured.ts';
import { ownNames } from '../api/own-names.ts';
import { type Gate, pipeline } from '../api/pipeline.ts';
import type { BoundService } from '../api/services.ts';
import { openRegistry } from '../bounds/registry.ts';
import { handlerOf } from './handle.ts';
import { headerTooLarge, notHttp, requestTooSlow } from './refusals.ts';
import { routesOf } from './routes.ts';

/**
 * The JSON edge: the same calls as over gRPC as JSON over HTTPS, for curl, Ansible and the console. HTTP/1.1 alone, one
 * request at a time on a connection, so that the limits of connections are those of requests.
 */
export interface EdgeServer {
  listen(address: string): Promise<number>;
  connections(): ConnectionCounts;
  /** Ends running calls and stops listening. */
  close(): void;
}

/** As many as Node has by default; ours are a few hundred bytes. */
const HEADER_MAX = 16 * 1024;
/** As for a TCP and TLS handshake: whoever speaks says so in a packet or two. */
const HEADER_DEADLINE_MS = 10_000;
/** Between two calls of a client that keeps its connection. Less would cost pollers a handshake each time. */
const KEEP_ALIVE_MS = 60_000;
/** Of a peer that lost its power: the kernel asks after it. */
const TCP_KEEP_ALIVE_MS = 30_000;
const CHECK_EVERY_MS = 2_000;
/** Waiting behind the one that is worked on. No client that we know of sends more than one. */
const PIPELINED_MAX = 8;

export function edgeServer(
  deps: Gate & {
    readonly cluster: string;
    /** Who may be meant by the name in a request, besides whom the certificate names. */
    readonly controllers?: readonly { readonly host: string; readonly address: string }[];
    readonly services: readonly BoundService[];
    /** Connections that begin after a change use the new ones; those that exist keep theirs. */
    readonly tls: TlsFeed;
    readonly clock: Clock;
    /** Default: nothing is counted. */
    readonly metrics?: Metrics;
    readonly limits?: ConnectionLimits;
    readonly intake?: Intake;
  },
): EdgeServer {
  const { clock, logger, metrics = noMetrics, lines = boundedLog(deps) } = deps;
  const gate = measuredPipeline(pipeline({ ...deps, lines }), 'json', { metrics, clock });
  const limits = deps.limits ?? CONNECTION_LIMITS;
  const handle = handlerOf({
    cluster: deps.cluster,
    routes: routesOf(deps.services, openRegistry(), gate),
    names: ownNames(deps.controllers ?? [], deps.tls),
    admission: deps.admission,
    openApi: readFileSync(OPENAPI),
    intake: deps.intake ?? newIntake(clock),
    clock,
    lines,
  });
  const server = createServer({
    ...secureContext(deps.tls.current()),
    requestCert: true,
    // Who has no valid certificate is told why in JSON: see peer.ts.
    rejectUnauthorized: false,
    ALPNProtocols: ['http/1.1'],
    handshakeTimeout: UNPROVEN_LIFE_MS,
    maxHeaderSize: HEADER_MAX,
    headersTimeout: HEADER_DEADLINE_MS,
    // Behind the intake's own deadline, which answers in JSON.
    requestTimeout: HEADER_DEADLINE_MS + READ_DEADLINE_MS + CHECK_EVERY_MS,
    keepAliveTimeout: KEEP_ALIVE_MS,
    connectionsCheckingInterval: CHECK_EVERY_MS,
    keepAlive: true,
    keepAliveInitialDelay: TCP_KEEP_ALIVE_MS,
  });
  endHttpConnections(server, deps);
  const connections = guardConnections(server, { listener: 'edge', clock, logger, limits });

  const renewed = deps.tls.onChange(() => server.setSecureContext(secureContext(deps.tls.current())));

  const queues = new WeakMap<Socket, { waiting: number; last: Promise<void>; current: ServerResponse | null }>();
  const enqueue = (request: IncomingMessage, response: ServerResponse, onBegin: () => void) => {
    const { socket } = request;
    const queue = queues.get(socket) ?? { waiting: 0, last: Promise.resolve(), current: null };
    queues.set(socket, queue);
    if (queue.waiting >= PIPELINED_MAX) {
      socket.destroy();
      return;
    }
    queue.waiting++;
    queue.last = queue.last.then(async () => {
      queue.current = response;
      if (!socket.destroyed) await handle(request, response, onBegin);
      queue.current = null;
      queue.waiting--;
    });
  };
  server.on('request', (request, response) => enqueue(request, response, () => {}));
  // curl asks before it sends more than a megabyte: what is refused anyway is then never sent.
  server.on('checkContinue', (request, response) => enqueue(request, response, () => response.writeContinue()));
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    // In the middle of an answer there is no place for another one.
    if (queues.get(socket as Socket)?.current?.headersSent === true) socket.destroy();
    else answerBroken(error, socket as TLSSocket);
  });
  server.on('tlsClientError', (error) => logger.debug({ err: error.message }, 'TLS handshake failed'));

  return {
    listen: (address) =>
      new Promise((resolve, reject) => {
        const at = address.lastIndexOf(':');
        const host = address.slice(0, at).replace(/^\[(.*)\]$/, '$1');
        server.once('error', reject);
        server.listen({ host, port: Number(address.slice(at + 1)) }, () => {
          server.off('error', reject);
          resolve((server.address() as AddressInfo).port);
        });
      }),
    connections,
    close() {
      renewed[Symbol.dispose]();
      server.close();
      server.closeAllConnections();
    },
  };
}

function secureContext(files: TlsText) {
  return {
    ca: files.ca,
    cert: files.certificate,
    key: files.key,
    minVersion: 'TLSv1.2' as const,
    // Without tickets every connection proves its certificate anew: one that has expired since does not live on in a
    // resumed session. Renegotiation is a way to make a server work, and nobody needs it.
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
  };
}

/** Node found that this is no request; there is no response object for it. */
function answerBroken(error: NodeJS.ErrnoException, socket: TLSSocket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const answer =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? headerTooLarge()
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? requestTooSlow()
        : notHttp();
  const body = JSON.stringify(answer.body);
  const head = `HTTP/1.1 ${answer.httpStatus} \r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n`;
  socket.end(head + body, () => socket.destroy());
}
