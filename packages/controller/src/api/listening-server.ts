// SPDX-License-Identifier: Apache-2.0
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { AddressInfo } from 'node:net';
import { Server } from 'node:tls';

/** See "net.server.listen" in Node's documentation of diagnostics_channel. */
const LISTENING = 'tracing:net.server.listen:asyncEnd';

/**
 * The server that begins to listen during `listen`. grpc-js keeps its HTTP/2 server to itself and has no limit of
 * connections; Node tells through its diagnostics channel which server it is.
 */
export async function listeningServer(listen: () => Promise<number>): Promise<[port: number, server: Server]> {
  const seen: Server[] = [];
  const note = (message: unknown) => {
    const { server } = message as { readonly server?: unknown };
    if (server instanceof Server) seen.push(server);
  };
  subscribe(LISTENING, note);
  try {
    const port = await listen();
    // Others may begin to listen at the same time.
    const server = seen.find((each) => (each.address() as AddressInfo | null)?.port === port);
    if (server === undefined) throw new Error(`no server was seen to listen at port ${port}`);
    return [port, server];
  } finally {
    unsubscribe(LISTENING, note);
  }
}
