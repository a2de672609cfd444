// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage } from 'node:http';
import type { DescMessage } from '@bufbuild/protobuf';
import { BusbarError } from '@busbar/core/errors';
import { ok, type Result, refuse } from '@busbar/core/result';
import type { Intake } from '../api/intake.ts';
import type { MethodDefinition } from '../api/service.ts';
import { type ErrorAnswer, errorAnswerOf } from '../api/status.ts';
import { invalid } from '../api/validation.ts';
import type { Limits } from '../bounds/limits.ts';
import { scanJson } from '../bounds/scan-json.ts';
import { bodyTooLarge, requestTooSlow } from './refusals.ts';
import { checkRequest } from './request-json.ts';

export function announcesMoreThan({ headers }: IncomingMessage, bytesMax: number): boolean {
  return Number(headers['content-length'] ?? 0) > bytesMax;
}

/** The whole body, through the intake. What turns out to be too large is not read on. */
export function readBody(
  request: IncomingMessage,
  intake: Intake,
  onBegin: () => void,
  bytesMax: number,
): Promise<Result<Buffer, ErrorAnswer>> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    let leave = () => {};
    const finish = (result: Result<Buffer, ErrorAnswer>) => {
      request.off('data', onData).off('end', onEnd).off('close', onClose);
      request.pause();
      leave();
      resolve(result);
    };
    const onData = (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > bytesMax) finish(refuse(bodyTooLarge(bytesMax)));
      else chunks.push(chunk);
    };
    const onEnd = () => finish(ok(Buffer.concat(chunks)));
    const onClose = () =>
      finish(
        refuse(
          errorAnswerOf(
            new BusbarError({
              kind: 'cancelled',
              reason: 'CALLER_GONE',
              message: 'the caller hung up within its request',
            }),
          ),
        ),
      );
    if (request.destroyed) {
      onClose();
      return;
    }
    request.on('close', onClose);
    leave = intake.enter(
      request.socket.remoteAddress ?? '',
      () => {
        onBegin();
        request.on('data', onData).on('end', onEnd);
      },
      () => finish(refuse(requestTooSlow())),
    );
  });
}

/**
 * The request that a body says. What it would make of the controller's memory and time is counted before any of it is parsed.
 * Throws INVALID_REQUEST.
 */
export function requestOf(
  body: Buffer,
  type: DescMessage,
  rpc: Pick<MethodDefinition, 'requestType'>,
  limits: Limits,
): unknown {
  const excess = scanJson(body, limits);
  if (excess !== null) throw invalid([excess]);
  const json = parseJson(body);
  checkRequest(type, json);
  return rpc.requestType.fromJSON(json);
}

function parseJson(bytes: Buffer): unknown {
  const problem = (text: string) =>
    invalid([{ field: 'the body', problem: text, expected: 'a JSON object, such as {}' }]);
  if (bytes.length === 0) throw problem('is empty');
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw problem('is not UTF-8');
  }
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    // V8's message shows a part of what it met; that is the caller's own.
    throw problem(`is not JSON (${error instanceof Error ? error.message.slice(0, 120) : ''})`);
  }
}
