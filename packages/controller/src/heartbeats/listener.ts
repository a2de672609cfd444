// SPDX-License-Identifier: Apache-2.0
import type { AddressInfo } from 'node:net';
import { createServer, type Server, type TLSSocket } from 'node:tls';
import type { Clock } from '@busbar/core/clock/clock';
import { FrameReader, frameOf } from '@busbar/core/frames';
import type { Logger } from '@busbar/core/log';
import type { TlsText } from '@busbar/pki/tls/material';
import { SessionRequest, SessionResponse, type Welcome } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { agentHostOf, type PresentedCertificate, presented } from '../api/authenticate.ts';
import { type ConnectionLimits, guardConnections } from '../api/connections.ts';
import type { Boot, Verdict } from '../lease/granter.ts';
import { Conversation } from './conversation.ts';

/**
 * The listener of heartbeats: mutual TLS with hosts' certificates, small frames, nothing else. It runs where no request of
 * anybody is parsed, and everything about a connection is bounded, so that no caller costs a host its lease.
 */

/** A hello has at most this much (session/bounds.ts). */
const FRAME_BYTES_MAX = 2_048;
/** Heartbeats are due four times a second; a process that stood still sends what it missed at once. */
const FRAMES_PER_S = 20;
const FRAMES_BURST = 100;
/** An agent has one, and a second one for moments while the first is suspect. */
const CONNECTIONS_PER_HOST = 4;
/** Forty heartbeats. */
const SILENCE_MS = 10_000;
/** Acknowledgements are 20 bytes: who does not read some thousands of them does not need them. */
const UNREAD_BYTES_MAX = 64 * 1_024;
/** Some hundred hosts, and agents that dial again; strangers get no further than a handshake, and few of these. */
const LIMITS: ConnectionLimits = { perAddress: 64, unprovenPerAddress: 8, total: 2_000, unproven: 64 };

interface Connection {
  readonly host: string;
  readonly certificate: PresentedCertificate;
  readonly socket: TLSSocket;
}

export class HeartbeatListener {
  readonly #deps: Deps;
  readonly #server: Server;
  readonly #open = new Set<Connection>();
  readonly #revoked = new Set<string>();
  /** Renewed ones: they end before their time. */
  readonly #replaced = new Map<string, Date>();

  constructor(deps: Deps) {
    this.#deps = deps;
    const { clock, logger } = deps;
    this.#server = createServer({ ...secure(deps.tls), requestCert: true, rejectUnauthorized: true }, (socket) =>
      this.#accept(socket),
    );
    // A handshake that fails is the peer's business; the socket is gone already.
    this.#server.on('tlsClientError', () => {});
    guardConnections(this.#server, { listener: 'heartbeats', clock, logger, limits: LIMITS });
  }

  async listen(address: string): Promise<number> {
    const colon = address.lastIndexOf(':');
    const host = address.slice(0, colon).replace(/^\[|\]$/g, '');
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(Number(address.slice(colon + 1)), host, resolve);
    });
    return (this.#server.address() as AddressInfo).port;
  }

  /** For the handshakes that begin from now on. */
  setTls(tls: TlsText): void {
    this.#server.setSecureContext(secure(tls));
  }

  /** Their connections end now, and none is answered any more. */
  revoke(serials: readonly string[]): void {
    for (const serial of serials) this.#revoked.add(serial);
    for (const { certificate, socket } of this.#open) if (this.#revoked.has(certificate.serial)) socket.destroy();
  }

  /** No connection begins with them after that; what is open lives on, as sessions do (ADR 0048). */
  replace(ends: readonly { readonly serial: string; readonly at: Date }[]): void {
    for (const { serial, at } of ends) this.#replaced.set(serial, at);
  }

  close(): void {
    this.#server.close();
    for (const { socket } of this.#open) socket.destroy();
  }

  #accept(socket: TLSSocket): void {
    socket.on('error', () => socket.destroy());
    const certificate = presented(socket.getPeerCertificate());
    const host = agentHostOf(certificate, this.#deps.cluster);
    if (certificate === null || host === null || this.#leftMs(certificate) <= 0) {
      socket.destroy();
      return;
    }
    const connection: Connection = { host, certificate, socket };
    const others = [...this.#open].filter((each) => each.host === host);
    // The newest counts: an agent that dials again has given up the others.
    if (others.length >= CONNECTIONS_PER_HOST) others[0]?.socket.destroy();
    this.#open.add(connection);
    socket.once('close', () => this.#open.delete(connection));
    socket.setNoDelay(true);
    socket.setTimeout(SILENCE_MS, () => socket.destroy());
    this.#converse(connection);
  }

  #converse(connection: Connection): void {
    const { host, certificate, socket } = connection;
    const { clock, logger } = this.#deps;
    const address = (socket.remoteAddress ?? '').replace(/^::ffff:/, '');
    const conversation = new Conversation({ ...this.#deps, host, address });
    const reader = new FrameReader(FRAME_BYTES_MAX);
    let allowance = FRAMES_BURST;
    let countedMs = clock.nowMs();
    // By the monotonic clock: a wall clock that is set must not cost every host its lease.
    const endsAtMs = countedMs + certificate.notAfter.getTime() - clock.wallTime().getTime();
    socket.on('data', (piece: Buffer) => {
      try {
        const nowMs = clock.nowMs();
        allowance = Math.min(FRAMES_BURST, allowance + ((nowMs - countedMs) / 1_000) * FRAMES_PER_S);
        countedMs = nowMs;
        for (const frame of reader.take(piece)) {
          if (--allowance < 0) throw new Error('more frames than heartbeats are due');
          if (nowMs >= endsAtMs) throw new Error('its certificate has ended');
          if (socket.writableLength > UNREAD_BYTES_MAX) throw new Error('it does not read what it is answered');
          const answer = conversation.take(SessionRequest.decode(frame));
          if (answer !== null) socket.write(frameOf(SessionResponse.encode(answer).finish()));
        }
      } catch (error) {
        logger.debug({ host, address, err: error }, 'a connection for heartbeats ends');
        socket.destroy();
      }
    });
  }

  /** For how long a connection may begin with it. */
  #leftMs({ serial, notAfter }: PresentedCertificate): number {
    if (this.#revoked.has(serial)) return 0;
    const end = Math.min(notAfter.getTime(), this.#replaced.get(serial)?.getTime() ?? Number.POSITIVE_INFINITY);
    return end - this.#deps.clock.wallTime().getTime();
  }
}

interface Deps {
  readonly cluster: string;
  readonly welcome: Welcome;
  readonly hear: (host: string, boot: Boot) => Verdict;
  readonly tls: TlsText;
  readonly clock: Clock;
  readonly logger: Logger;
}

function secure({ ca, certificate, key }: TlsText) {
  return { ca: Buffer.from(ca), cert: Buffer.from(certificate), key: Buffer.from(key), minVersion: 'TLSv1.3' as const };
}
