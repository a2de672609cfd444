// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { TLSSocket } from 'node:tls';
import type { BoundedLog } from '@busbar/core/bounded-log';
import { type Clock, withDeadline } from '@busbar/core/clock/clock';
import { BusbarError, errorChain } from '@busbar/core/errors';
import { httpsArrival } from '../api/arrival.ts';
import type { Intake } from '../api/intake.ts';
import type { OwnNames } from '../api/own-names.ts';
import type { CallGuard } from '../api/service.ts';
import { type ErrorAnswer, errorAnswerOf } from '../api/status.ts';
import { invalid, show } from '../api/validation.ts';
import type { Admission } from '../certificate/admission.ts';
import { announcesMoreThan, readBody, requestOf } from './body.ts';
import { fail, sendEvents } from './events.ts';
import { type Peer, peerOf } from './peer.ts';
import {
  bodyTooLarge,
  grpcOnly,
  noSuchPath,
  otherHost,
  otherOrigin,
  wrongEncoding,
  wrongMediaType,
  wrongMethod,
  wrongTarget,
} from './refusals.ts';
import { answerJson, checkRequest } from './request-json.ts';
import { refuseAndClose, sendJson } from './respond.ts';
import type { Route } from './routes.ts';

type Served = Exclude<Route, { readonly kind: 'grpc-only' }>;

interface HandlerDeps {
  readonly cluster: string;
  readonly routes: ReadonlyMap<string, Route>;
  readonly names: OwnNames;
  readonly admission: Admission;
  readonly openApi: Buffer;
  readonly intake: Intake;
  readonly clock: Clock;
  readonly lines: BoundedLog;
}

/** Longer than the longest wait that the API offers (WaitOperation, ten minutes); an hour of a watch is plenty. */
const TIMEOUT_MAX_MS = 3_600_000;
/** The second one is curl's for `-d`, when it is told nothing else. */
const MEDIA_TYPES = ['application/json', 'application/x-www-form-urlencoded'];

/** One request, from its header to its answer. Resolves when the answer is sent; never rejects. */
export function handlerOf(
  deps: HandlerDeps,
): (request: IncomingMessage, response: ServerResponse, onBegin: () => void) => Promise<void> {
  return async (request, response, onBegin) => {
    const hungUp = new AbortController();
    response.once('close', () => {
      if (!response.writableFinished) hungUp.abort(CALLER_GONE);
    });
    try {
      await answer(deps, request, response, onBegin, hungUp.signal);
    } catch (error) {
      if (!(error instanceof BusbarError || error instanceof Refusal)) tellFailure(deps, request, error);
      const said = error instanceof Refusal ? error.answer : errorAnswerOf(error);
      if (response.headersSent) response.destroy();
      else await refuseAndClose(request, response, said, deps.clock);
    }
    // Until it is sent the next request of this connection has to wait.
    if (!response.writableFinished && !response.destroyed)
      await new Promise<void>((resolve) => response.once('finish', resolve).once('close', resolve));
  };
}

function tellFailure({ lines }: HandlerDeps, { socket }: IncomingMessage, error: unknown): void {
  const { address } = httpsArrival(socket);
  const source = { kind: 'edge-failed', name: address, fields: { address } };
  lines.write('error', source, { address, err: errorChain(error) }, 'the JSON edge failed at a request');
}

const CALLER_GONE = new BusbarError({ kind: 'cancelled', reason: 'CALLER_GONE', message: 'the caller hung up' });

async function answer(
  deps: HandlerDeps,
  request: IncomingMessage,
  response: ServerResponse,
  onBegin: () => void,
  hungUp: AbortSignal,
): Promise<void> {
  const url = urlOf(request);
  const peer = peerOf(request.socket as TLSSocket, deps.cluster);
  const route = deps.routes.get(url.pathname);
  const refused = wronglyNamed(deps.names, request, url) ?? refusalOf(request, url.pathname, route);
  if (refused !== null) throw new Refusal(refused);
  if (url.pathname === OPENAPI_PATH) return sendOpenApi(deps, peer, response);
  const served = route as Served;
  const timeoutMs = timeoutOf(request);

  try {
    served.admit(peer.caller, peer.arrival);
  } catch (error) {
    throw peer.refusal ?? error;
  }
  const { guard = unguarded, limits } = served;
  // Before the guard: a request that is not read at all takes nobody's place.
  if (announcesMoreThan(request, limits.jsonBytesMax)) throw new Refusal(bodyTooLarge(limits.jsonBytesMax));
  await guard(request.socket.remoteAddress ?? '', async () => {
    const message = request.method === 'GET' ? watchOf(served, url) : await messageOf(deps, served, request, onBegin);
    if (served.kind === 'unary') await unary(deps, served, message, peer, response, timeoutMs, hungUp);
    else await events(deps, served, resumedAt(served, request, message), peer, response, timeoutMs, hungUp);
  });
}

const unguarded: CallGuard = (_address, work) => work();

/** An answer that is HTTP's own and no error of the API. */
class Refusal extends Error {
  readonly answer: ErrorAnswer;

  constructor(answer: ErrorAnswer) {
    super(answer.body.message);
    this.answer = answer;
  }
}

/** A path, or the whole URL of this edge (RFC 9112 3.2.2). What is neither is the caller's mistake. */
function urlOf(request: IncomingMessage): URL {
  const target = request.url ?? '/';
  if (URL.canParse(target, 'https://edge')) return new URL(target, 'https://edge');
  throw new Refusal(wrongTarget(show(target)));
}

async function messageOf(
  deps: HandlerDeps,
  { limits, requestType, rpc }: Served,
  request: IncomingMessage,
  onBegin: () => void,
): Promise<unknown> {
  const body = await readBody(request, deps.intake, onBegin, limits.jsonBytesMax);
  if (!body.ok) throw new Refusal(body.error);
  return requestOf(body.value, requestType, rpc, limits);
}

const OPENAPI_PATH = '/openapi.json';

/** By whom the request was made, and for whom: neither may be of another's name (own-names.ts). */
function wronglyNamed(
  names: OwnNames,
  { headers, socket, url: target = '' }: IncomingMessage,
  url: URL,
): ErrorAnswer | null {
  const { host, origin } = headers;
  // The whole URL in the request line stands above the header (RFC 9112 3.2.2).
  const refusal = names.refusalOf(host) ?? (target.startsWith('/') ? null : names.refusalOf(url.host));
  if (refusal !== null) return otherHost(refusal);
  if (origin === undefined || names.isOwnOrigin(origin, host, socket.localPort ?? 0)) return null;
  return otherOrigin(origin);
}

/** What can be said before the body is read. */
function refusalOf(request: IncomingMessage, path: string, route: Route | undefined): ErrorAnswer | null {
  const { method = '', headers } = request;
  if (path === OPENAPI_PATH) return method === 'GET' ? null : wrongMethod(method, 'GET');
  if (route === undefined) return noSuchPath(path);
  if (route.kind === 'grpc-only') return grpcOnly();
  const watch = route.kind === 'events' && route.resumes;
  if (method === 'GET' && watch) return null;
  if (method !== 'POST') return wrongMethod(method, watch ? 'POST or GET' : 'POST');
  const type = headers['content-type'] ?? 'application/json';
  if (!MEDIA_TYPES.includes((type.split(';')[0] ?? '').trim().toLowerCase())) return wrongMediaType(type);
  const encoding = headers['content-encoding'] ?? 'identity';
  return encoding === 'identity' ? null : wrongEncoding(encoding);
}

function sendOpenApi(deps: HandlerDeps, peer: Peer, response: ServerResponse): void {
  if (peer.caller === null)
    throw (
      peer.refusal ??
      new BusbarError({
        kind: 'unauthenticated',
        reason: 'CLIENT_CERTIFICATE_REQUIRED',
        message: 'the connection carries no client certificate of this cluster with a role',
        hint: 'use a client certificate issued by the cluster',
      })
    );
  // No method, so not behind the pipeline.
  if (peer.caller.certificate !== null) deps.admission.check(peer.caller.certificate);
  sendJson(response, 200, deps.openApi);
}

async function unary(
  deps: HandlerDeps,
  route: Served & { readonly kind: 'unary' },
  message: unknown,
  { caller, arrival }: Peer,
  response: ServerResponse,
  timeoutMs: number | null,
  hungUp: AbortSignal,
): Promise<void> {
  const result = await (timeoutMs === null
    ? route.run(message, caller, hungUp, arrival)
    : withDeadline(deps.clock, timeoutMs, 'the call', (signal) => route.run(message, caller, signal, arrival), hungUp));
  sendJson(
    response,
    200,
    JSON.stringify(answerJson(route.responseType, route.rpc.responseType.toJSON(result as never))),
  );
}

async function events(
  deps: HandlerDeps,
  route: Served & { readonly kind: 'events' },
  message: unknown,
  { caller, arrival }: Peer,
  response: ServerResponse,
  timeoutMs: number | null,
  hungUp: AbortSignal,
): Promise<void> {
  const run = async (signal: AbortSignal) => {
    async function* json() {
      for await (const each of route.run(message, caller, signal, arrival))
        yield route.rpc.responseType.toJSON(each as never) as unknown;
    }
    await sendEvents(response, json(), deps.clock, signal);
  };
  await (timeoutMs === null ? run(hungUp) : withDeadline(deps.clock, timeoutMs, 'the stream', run, hungUp)).catch(
    (error: unknown) => {
      if (!response.headersSent) throw error;
      fail(response, error);
    },
  );
  response.end();
}

function timeoutOf(request: IncomingMessage): number | null {
  const text = request.headers['busbar-timeout-ms'];
  if (text === undefined) return null;
  const value = /^\d{1,7}$/.test(String(text)) ? Number(text) : 0;
  if (value >= 1 && value <= TIMEOUT_MAX_MS) return value;
  throw invalid([
    { field: 'Busbar-Timeout-Ms', problem: `is ${show(text)}`, expected: `milliseconds, 1 to ${TIMEOUT_MAX_MS}` },
  ]);
}

/** The request of a GET: everything, or from `?revision=` on. */
function watchOf(route: Served, url: URL): unknown {
  const unknown = [...url.searchParams.keys()].find((key) => key !== 'revision');
  if (unknown !== undefined)
    throw invalid([{ field: unknown, problem: 'is unknown', expected: 'revision, or POST for the other fields' }]);
  const json = { revision: url.searchParams.get('revision') ?? '0' };
  checkRequest(route.requestType, json);
  return route.rpc.requestType.fromJSON(json);
}

/** An EventSource that lost its connection asks the same again, and says in a header what it saw last. */
function resumedAt(route: Served & { readonly kind: 'events' }, request: IncomingMessage, message: unknown): unknown {
  const seen = request.headers['last-event-id'];
  if (seen === undefined || !route.resumes) return message;
  if (!/^\d{1,19}$/.test(String(seen)))
    throw invalid([{ field: 'Last-Event-ID', problem: `is ${show(seen)}`, expected: 'the id of an event' }]);
  return { ...(message as object), revision: BigInt(String(seen)) };
}
