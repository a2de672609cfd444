// SPDX-License-Identifier: Apache-2.0
import type { Http2SecureServer, Http2Session } from 'node:http2';

/**
 * How much of a stream may be under way before we have read it (RFC 9113, 6.9). HTTP/2 begins with 64 KiB: an image then
 * arrives at 64 KiB a round trip, 6 MB/s over a line of 10 ms. With 1 MiB it is 100 MB/s.
 *
 * What was sent and not read is in our memory, hence not for everybody: the limit of a stream is wide for all, that of
 * a connection only while it imports, and only for as many as fit into 16 MiB.
 */
export const WIDE_BYTES = 1024 ** 2;
const USUAL_BYTES = 65_535;
export const WIDE_AT_ONCE = 16;

export function widenImports(server: Http2SecureServer, importPath: string): void {
  server.updateSettings({ initialWindowSize: WIDE_BYTES });
  /** Imports under way of each connection that has a wide window. */
  const wide = new Map<Http2Session, number>();
  server.on('stream', (stream, headers) => {
    const { session } = stream;
    if (headers[':path'] !== importPath || session === undefined) return;
    const others = wide.get(session) ?? 0;
    if (others === 0) {
      if (wide.size >= WIDE_AT_ONCE) return;
      session.setLocalWindowSize(WIDE_BYTES);
    }
    wide.set(session, others + 1);
    stream.once('close', () => {
      const left = (wide.get(session) ?? 1) - 1;
      if (left > 0) return void wide.set(session, left);
      wide.delete(session);
      if (!session.destroyed) session.setLocalWindowSize(USUAL_BYTES);
    });
  });
}
