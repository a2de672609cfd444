// SPDX-License-Identifier: Apache-2.0
import { once } from 'node:events';
import { connect } from 'node:tls';
import { FrameReader, frameOf } from '@busbar/core/frames';
import { leaseAddressOf } from '@busbar/core/lease-port';
import { SessionRequest, SessionResponse } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { controllerCheck, type GrpcDialerOptions } from './grpc-dialer.ts';
import type { SessionDialer } from './link.ts';

/** A welcome names every controller; two dozen of the longest names fit. */
const FRAME_BYTES_MAX = 8 * 1_024;

/**
 * Dials the listener of heartbeats of a controller: the words of a session in frames over mutual TLS, and of these only
 * hello, welcome, heartbeats and acknowledgements. A connection of its own, so that nothing large is ever before a heartbeat.
 */
export function heartbeatDialer(options: GrpcDialerOptions): SessionDialer {
  return {
    async *session(address, outgoing, signal) {
      const controller = options.controllers.find((each) => each.address === address);
      if (controller === undefined) throw new Error(`${address} is not the address of a configured controller`);
      const { ca, certificate, key } = options.loadTls();
      const at = leaseAddressOf(address);
      const colon = at.lastIndexOf(':');
      const socket = connect({
        host: at.slice(0, colon).replace(/^\[|\]$/g, ''),
        port: Number(at.slice(colon + 1)),
        ca: Buffer.from(ca),
        cert: Buffer.from(certificate),
        key: Buffer.from(key),
        servername: controller.host,
        checkServerIdentity: controllerCheck(options.cluster, controller.host),
        minVersion: 'TLSv1.3',
        ALPNProtocols: [],
      });
      const hangUp = () => socket.destroy();
      signal.addEventListener('abort', hangUp, { once: true });
      if (signal.aborted) hangUp();
      socket.setNoDelay(true);
      try {
        await once(socket, 'secureConnect', { signal });
        void send(outgoing, socket, signal);
        const reader = new FrameReader(FRAME_BYTES_MAX);
        for await (const piece of socket) {
          for (const frame of reader.take(piece as Buffer)) yield SessionResponse.decode(frame);
        }
      } finally {
        signal.removeEventListener('abort', hangUp);
        socket.destroy();
      }
    },
  };
}

/** A heartbeat that the connection has no room for is not made: the outbox makes it when it is asked. */
async function send(
  outgoing: AsyncIterable<SessionRequest>,
  socket: ReturnType<typeof connect>,
  signal: AbortSignal,
): Promise<void> {
  try {
    for await (const message of outgoing) {
      if (!socket.write(frameOf(SessionRequest.encode(message).finish()))) await once(socket, 'drain', { signal });
    }
  } catch {
    // The reader tells why the connection ended.
    socket.destroy();
  }
}
