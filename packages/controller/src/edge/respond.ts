// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type Clock, sleep } from '@busbar/core/clock/clock';
import type { ErrorAnswer } from '../api/status.ts';

/** How long what a refused caller still sends is thrown away, so that it gets to read why: a reset would overtake the answer. */
const LINGER_MS = 1_000;

export function sendJson(response: ServerResponse, httpStatus: number, body: string | Buffer): void {
  response.writeHead(httpStatus, headers(body));
  response.end(body);
}

export function sendError(response: ServerResponse, { httpStatus, body }: ErrorAnswer): void {
  sendJson(response, httpStatus, JSON.stringify(body));
}

/** Answers a request whose body was not read (to its end), and ends the connection, which nobody could make sense of now. */
export async function refuseAndClose(
  request: IncomingMessage,
  response: ServerResponse,
  answer: ErrorAnswer,
  clock: Clock,
): Promise<void> {
  if (request.complete || !hasBody(request)) {
    sendError(response, answer);
    return;
  }
  const body = JSON.stringify(answer.body);
  response.writeHead(answer.httpStatus, { ...headers(body), connection: 'close' });
  response.write(body);
  request.resume();
  const gone = new AbortController();
  const leave = () => gone.abort(new Error('gone'));
  request.once('end', leave);
  response.once('close', leave);
  await sleep(clock, LINGER_MS, gone.signal).catch(() => {});
  response.end();
}

function hasBody(request: IncomingMessage): boolean {
  return request.headers['transfer-encoding'] !== undefined || (request.headers['content-length'] ?? '0') !== '0';
}

function headers(body: string | Buffer) {
  return {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
  };
}
