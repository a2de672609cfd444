// SPDX-License-Identifier: Apache-2.0
import type { Socket } from 'node:net';
import type { Server, TLSSocket } from 'node:tls';
import type { Clock } from '@busbar/core/clock/clock';
import type { Logger } from '@busbar/core/log';

/**
 * How many connections a listener keeps, and from whom. An idle connection costs some 50 KB and a file descriptor; ten
 * thousand of one machine must not keep the agents out. Connections are turned away before anything is spent on TLS.
 */
export interface ConnectionLimits {
  /** From one address: an automation host with hundreds of watchers is fine, a leak is not. */
  readonly perAddress: number;
  /** Of these without a proven certificate: handshakes under way, and whoever wants to join. */
  readonly unprovenPerAddress: number;
  /** From everywhere: some 200 MB, and a quarter of the descriptors that a service has by default (16,384). */
  readonly total: number;
  /** Strangers must not take the places of those who have a certificate. */
  readonly unproven: number;
}

export const CONNECTION_LIMITS: ConnectionLimits = {
  perAddress: 1_000,
  unprovenPerAddress: 128,
  total: 4_000,
  unproven: 512,
};

/** A handshake takes milliseconds, a join (one call without a certificate) a few seconds. */
export const UNPROVEN_LIFE_MS = 15_000;
/** One line for a flood, not ten thousand. */
const WARN_EVERY_MS = 10_000;

interface Counts {
  all: number;
  unproven: number;
}

export interface ConnectionCounts {
  readonly open: number;
  readonly unproven: number;
  readonly turnedAway: number;
}

/** Counts from now on what connects to `server`, and turns away what is too much. */
export function guardConnections(
  server: Server,
  deps: {
    readonly listener: string;
    readonly clock: Clock;
    readonly logger: Logger;
    readonly limits: ConnectionLimits;
  },
): () => ConnectionCounts {
  const { clock, logger, limits } = deps;
  const total: Counts = { all: 0, unproven: 0 };
  const byAddress = new Map<string, Counts>();
  /** By address and port of the peer, the only thing that a TLS socket and the one below it have in common. */
  const unproven = new Map<string, () => void>();
  let turnedAway = 0;
  let warnedMs = Number.NEGATIVE_INFINITY;

  function turnAway(socket: Socket, address: string): void {
    turnedAway++;
    // A reset: the peer's mistake must not leave thousands of sockets in TIME_WAIT here.
    socket.resetAndDestroy();
    if (clock.nowMs() - warnedMs < WARN_EVERY_MS) return;
    warnedMs = clock.nowMs();
    logger.warn(
      { listener: deps.listener, address, open: total.all, unproven: total.unproven, turnedAway },
      'too many connections: turning new ones away',
    );
  }

  server.prependListener('connection', (socket: Socket) => {
    const address = socket.remoteAddress ?? '';
    const own = byAddress.get(address) ?? { all: 0, unproven: 0 };
    if (
      own.all >= limits.perAddress ||
      own.unproven >= limits.unprovenPerAddress ||
      total.all >= limits.total ||
      total.unproven >= limits.unproven
    )
      return turnAway(socket, address);
    byAddress.set(address, own);
    for (const counts of [own, total]) {
      counts.all++;
      counts.unproven++;
    }
    const key = peerKey(socket);
    let isProven = false;
    const proven = () => {
      if (isProven) return;
      isProven = true;
      timer[Symbol.dispose]();
      unproven.delete(key);
      own.unproven--;
      total.unproven--;
    };
    const timer = clock.timer(UNPROVEN_LIFE_MS, () => socket.destroy());
    unproven.set(key, proven);
    socket.once('close', () => {
      proven();
      own.all--;
      total.all--;
      if (own.all === 0) byAddress.delete(address);
    });
  });
  server.on('secureConnection', (socket: TLSSocket) => {
    if (socket.authorized) unproven.get(peerKey(socket))?.();
  });
  return () => ({ open: total.all, unproven: total.unproven, turnedAway });
}

function peerKey(socket: Socket): string {
  return `${socket.remoteAddress} ${socket.remotePort}`;
}
