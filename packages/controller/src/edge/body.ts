// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage } from 'node:http';
import { BusbarError } from '@busbar/core/errors';
import { ok, type Result, refuse } from '@busbar/core/result';
import type { Intake } from '../api/intake.ts';
import { type ErrorAnswer, errorAnswerOf } from '../api/status.ts';
import { invalid } from '../api/validation.ts';
import { BODY_MAX, bodyTooLarge, requestTooSlow } from './refusals.ts';

/**
 * The whole body, through the intake. What is announced as too large is not read at all; what turns out to be is not
 * read on.
 */
export function readBody(
  request: IncomingMessage,
  intake: Intake,
  onBegin: () => void,
): Promise<Result<Buffer, ErrorAnswer>> {
  if (Number(request.headers['content-length'] ?? 0) > BODY_MAX) return Promise.resolve(refuse(bodyTooLarge()));
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
      if (bytes > BODY_MAX) finish(refuse(bodyTooLarge()));
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

/** Throws INVALID_REQUEST. */
export function parseJson(bytes: Buffer): unknown {
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
