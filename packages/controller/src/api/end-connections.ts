// SPDX-License-Identifier: Apache-2.0
import type { ServerHttp2Session } from 'node:http2';
import type { Server, TLSSocket } from 'node:tls';
import type { Clock } from '@busbar/core/clock/clock';
import type { Admission } from '../certificate/admission.ts';
import { agentHostOf, presented } from './authenticate.ts';

/**
 * Closes the connections of a certificate that does not count any more. Its calls are refused anyway, but whoever may keep a
 * connection may keep a thousand, and let HTTP/2 work on them.
 */

/** Time for the reason to be read: a reset would overtake it. */
const LINGER_MS = 1_000;

interface Deps {
  readonly cluster: string;
  readonly admission: Admission;
  readonly clock: Clock;
}

/** On a listener of HTTP/2. New calls go elsewhere at once (GOAWAY), what is open is told why and cut a second later. */
export function endHttp2Connections(server: Server, deps: Deps): void {
  server.on('session', (session: ServerHttp2Session) => {
    endWith(session.socket as TLSSocket, session, deps, () => session.close());
  });
}

/** On a listener of HTTP/1.1. */
export function endHttpConnections(server: Server, deps: Deps): void {
  server.on('secureConnection', (socket: TLSSocket) => {
    // Who has no valid certificate has nothing to lose, and little time (connections.ts).
    if (socket.authorized) endWith(socket, socket, deps, () => {});
  });
}

function endWith(
  socket: TLSSocket,
  connection: { destroy(): void; once(event: 'close', listener: () => void): unknown; readonly destroyed: boolean },
  { cluster, admission, clock }: Deps,
  leave: () => void,
): void {
  const certificate = presented(socket.getPeerCertificate());
  if (certificate === null) return;
  let timer: Disposable | null = null;
  let isNew = true;
  const cut = () => {
    timer = null;
    if (!connection.destroyed) connection.destroy();
  };
  const part = () => {
    if (connection.destroyed) return;
    leave();
    timer = clock.timer(LINGER_MS, cut);
  };
  const onEnd = () => {
    // Who comes with one that is over already is told so by the first call.
    if (isNew) timer = clock.timer(LINGER_MS, part);
    else part();
  };
  // What an agent has open does not end by time (ADR 0048).
  const held =
    agentHostOf(certificate, cluster) === null
      ? admission.onEnd(certificate, onEnd)
      : admission.onRevoked(certificate, onEnd);
  isNew = false;
  connection.once('close', () => {
    held[Symbol.dispose]();
    timer?.[Symbol.dispose]();
  });
}
