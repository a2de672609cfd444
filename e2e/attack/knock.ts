// SPDX-License-Identifier: Apache-2.0
// Asks a port of another host for something, with one pair of keys or with none, and tells what came back. Each ends in time.
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { connect as connectHttp2 } from 'node:http2';
import { connect as connectTcp, type Socket } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import type { KeyPair } from './lab.ts';

/** A refusal takes milliseconds; what says nothing for this long will say nothing. */
const SILENCE_MS = 2_000;
/** Keys and certificates have some hundred bytes; what is larger is no key. */
const MAX_KEY_BYTES = 65_536;

/** Every certificate below a directory that has its key there too, by the certificate's path. */
export function keyPairsBelow(directory: string): ReadonlyMap<string, KeyPair> {
  const files = filesBelow(directory).map((path) => ({ path, text: readFileSync(path) }));
  const keys = files.filter(({ text }) => text.includes('PRIVATE KEY'));
  const pairs = new Map<string, KeyPair>();
  for (const { path, text } of files) {
    if (!text.includes('BEGIN CERTIFICATE')) continue;
    const key = keys.find((each) => new X509Certificate(text).checkPrivateKey(createPrivateKey(each.text)));
    if (key !== undefined) pairs.set(path, { cert: text, key: key.text });
  }
  return pairs;
}

export function filesBelow(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) return filesBelow(path);
    return entry.isFile() && statSync(path).size < MAX_KEY_BYTES ? [path] : [];
  });
}

/** "open", or why there is no connection, e.g. "ECONNREFUSED". */
export function dial(address: string, port: number): Promise<string> {
  return new Promise((resolve) => {
    const socket = connectTcp({ host: address, port, timeout: SILENCE_MS });
    const end = (what: string) => {
      socket.destroy();
      resolve(what);
    };
    socket.once('connect', () => end('open'));
    socket.once('timeout', () => end('timeout'));
    socket.once('error', (error: NodeJS.ErrnoException) => end(error.code ?? error.message));
  });
}

/** Speaks TLS, says `text`, and tells all that comes until the other side ends or is silent. Empty: it said nothing. */
export async function say(
  at: { readonly address: string; readonly port: number; readonly greets?: boolean },
  pair: KeyPair | undefined,
  text: string,
): Promise<string> {
  // NATS greets in plain text first.
  const plain = at.greets === true ? await greeted(at.address, at.port) : undefined;
  const through = plain === undefined ? { host: at.address, port: at.port } : { socket: plain };
  return await new Promise((resolve) => {
    let said = '';
    const socket = connectTls({ ...through, ...pair, rejectUnauthorized: false });
    const end = () => {
      socket.destroy();
      resolve(said);
    };
    socket.setTimeout(SILENCE_MS, end);
    socket.once('secureConnect', () => socket.write(text));
    socket.on('data', (chunk: Buffer) => {
      said += chunk.toString('latin1');
    });
    socket.once('error', end);
    socket.once('close', end);
  });
}

function greeted(address: string, port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connectTcp({ host: address, port });
    socket.once('error', reject);
    socket.once('data', () => resolve(socket));
  });
}

/** The gRPC status that a call without a request ends with; "closed" when the connection ends instead. */
export function callGrpc(address: string, port: number, pair: KeyPair | undefined, path: string): Promise<string> {
  return new Promise((resolve) => {
    const session = connectHttp2(`https://${address}:${port}`, { ...pair, rejectUnauthorized: false });
    const end = (status: string) => {
      session.destroy();
      resolve(status);
    };
    session.setTimeout(SILENCE_MS, () => end('silent'));
    session.once('error', () => end('closed'));
    session.once('close', () => end('closed'));
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    const look = (headers: Record<string, unknown>) => {
      if (typeof headers['grpc-status'] === 'string') end(headers['grpc-status']);
    };
    stream.once('response', look);
    stream.once('trailers', look);
    stream.once('error', () => end('closed'));
    stream.once('close', () => end('closed'));
    stream.resume();
    // One empty message: no flags, length 0.
    stream.end(Buffer.alloc(5));
  });
}
