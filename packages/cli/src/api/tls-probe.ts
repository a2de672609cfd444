// SPDX-License-Identifier: Apache-2.0
/**
 * Why a TLS connection fails. With TLS 1.3 a server refuses a client's certificate after the handshake, and grpc-js
 * then only says "Failed to connect": a plain TLS connection hears the alert itself.
 */
import { type ConnectionOptions, connect } from 'node:tls';

/** Of a server that answers at all, busy or not. */
const HANDSHAKE_MS = 3_000;
/** The alert follows the handshake at once, on a busy machine after a moment. Nobody waits for it who is not refused anyway. */
const LISTEN_MS = 1_000;

export function probeTls(address: string, options: ConnectionOptions): Promise<string> {
  const at = address.lastIndexOf(':');
  const host = address.slice(0, at).replace(/^\[(.*)\]$/, '$1');
  return new Promise((done) => {
    const socket = connect({ ...options, host, port: Number(address.slice(at + 1)), ALPNProtocols: ['h2'] });
    const end = (why: string) => {
      clearTimeout(timer);
      socket.destroy();
      done(why);
    };
    let timer = setTimeout(() => end(''), HANDSHAKE_MS);
    let secured = false;
    socket.on('secureConnect', () => {
      secured = true;
      clearTimeout(timer);
      timer = setTimeout(() => end(''), LISTEN_MS);
    });
    // Node's servers send no alert for a certificate that they do not accept: they hang up after the handshake.
    const hungUp = (why: string) => end(secured ? 'bad certificate: closed after the handshake' : why);
    socket.on('error', (error: NodeJS.ErrnoException) =>
      error.code === 'ECONNRESET' ? hungUp(error.message) : end(error.message),
    );
    socket.on('close', () => hungUp(''));
    // Nothing is sent back before something is read.
    socket.resume();
  });
}
