// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import { type ErrorAnswer, errorAnswerOf } from '../api/status.ts';

/** What HTTP alone can get wrong, in the API's words. The gRPC status is the nearest one, the HTTP status is its own. */
function refusal(httpStatus: number, code: string, reason: string, message: string, hint: string): ErrorAnswer {
  return { httpStatus, body: { code, reason, message, hint, fields: [] } };
}

export const noSuchPath = (path: string) =>
  refusal(
    404,
    'UNIMPLEMENTED',
    'NO_SUCH_RPC',
    `there is no ${path}`,
    'POST /busbar.v1.SERVICE/METHOD; all of them are in /openapi.json',
  );
export const wrongMethod = (method: string, allowed: string) =>
  refusal(405, 'UNIMPLEMENTED', 'METHOD_NOT_ALLOWED', `${method} is not answered here`, `use ${allowed}`);
export const wrongMediaType = (type: string) =>
  refusal(
    415,
    'INVALID_ARGUMENT',
    'MEDIA_TYPE_UNSUPPORTED',
    `the body is said to be ${type}`,
    'send JSON, with content-type: application/json',
  );
export const wrongEncoding = (encoding: string) =>
  refusal(
    415,
    'INVALID_ARGUMENT',
    'ENCODING_UNSUPPORTED',
    `the body is compressed (content-encoding: ${encoding})`,
    'send it as it is',
  );
export const grpcOnly = () =>
  refusal(
    501,
    'UNIMPLEMENTED',
    'NOT_OVER_HTTP',
    'this call takes a stream from its caller, which JSON over HTTP cannot carry',
    'use gRPC (port 7800), for example through the busbar command',
  );
export const bodyTooLarge = (bytesMax: number) =>
  refusal(
    413,
    'RESOURCE_EXHAUSTED',
    'REQUEST_TOO_LARGE',
    `the body is larger than ${bytesMax} bytes, the most that this call takes`,
    'lists are read in pages; images are imported over gRPC (busbar image import)',
  );
export const wrongTarget = (target: string) =>
  refusal(
    400,
    'INVALID_ARGUMENT',
    'NOT_HTTP',
    `the request is for ${target}, which is no path`,
    'POST /busbar.v1.SERVICE/METHOD; all of them are in /openapi.json',
  );
export const headerTooLarge = () =>
  refusal(431, 'RESOURCE_EXHAUSTED', 'HEADER_TOO_LARGE', 'the request header is larger than 16 KiB', 'send less of it');
export const requestTooSlow = () =>
  refusal(
    408,
    'DEADLINE_EXCEEDED',
    'REQUEST_TOO_SLOW',
    'the request was not complete in time',
    'send the whole request at once',
  );
export const notHttp = () =>
  refusal(400, 'INVALID_ARGUMENT', 'NOT_HTTP', 'this is not an HTTP/1.1 request', 'POST JSON over HTTPS');
/** Misdirected (RFC 9110 15.5.20). */
export const otherHost = ({ reason, message, hint }: BusbarError) =>
  refusal(421, 'PERMISSION_DENIED', reason, message, hint);
/**
 * A browser sends its client certificate along whoever's page asks. Pages of other origins have no business here, and
 * curl's default content type, which this edge takes, is one that they may send.
 */
export const otherOrigin = (origin: string) =>
  errorAnswerOf(
    new BusbarError({
      kind: 'forbidden',
      reason: 'OTHER_ORIGIN',
      message: `a page of ${origin} must not call this cluster`,
      hint: 'call it from a program, or from a page of its own',
    }),
  );
