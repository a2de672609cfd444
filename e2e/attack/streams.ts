// SPDX-License-Identifier: Apache-2.0
/** Calls of the gRPC port by hand, as an attacker has them: as many streams as he likes on one connection. */
import { type ClientHttp2Session, type ClientHttp2Stream, connect, type IncomingHttpHeaders } from 'node:http2';
import { CONTROLLER_PORT } from '@busbar/deploy/lab/plan';
import { authority, type KeyPair } from './lab.ts';

export interface RawStream {
  readonly stream: ClientHttp2Stream;
  /** How it ended so far: null while it is open. */
  ended(): { readonly code: number; readonly message: string } | null;
  /** Messages that came. */
  received(): number;
}

export async function session(address: string, as: KeyPair): Promise<ClientHttp2Session> {
  const opened = connect(`https://${address}:${CONTROLLER_PORT}`, {
    ...as,
    ca: authority(),
    checkServerIdentity: () => undefined,
  });
  await new Promise((resolve, reject) => {
    opened.once('remoteSettings', resolve);
    opened.once('error', reject);
  });
  opened.on('error', () => {});
  return opened;
}

export function framed(message: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

export function call(over: ClientHttp2Session, path: string): RawStream {
  const stream = over.request({
    ':method': 'POST',
    ':path': path,
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  let end: { code: number; message: string } | null = null;
  let bytes = 0;
  const note = (headers: IncomingHttpHeaders) => {
    if (headers['grpc-status'] === undefined) return;
    end = {
      code: Number(headers['grpc-status']),
      message: decodeURIComponent([headers['grpc-message'] ?? ''].flat().join()),
    };
  };
  stream.on('response', note).on('trailers', note);
  stream.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
  });
  stream.on('close', () => {
    end ??= { code: -1, message: 'closed' };
  });
  stream.on('error', () => {});
  return { stream, ended: () => end, received: () => bytes };
}
