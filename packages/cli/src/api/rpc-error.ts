// SPDX-License-Identifier: Apache-2.0
/** Errors of calls: with what the controller says about them, and as the error that the user sees. */
import { BusbarError } from '@busbar/core/errors';
import { ErrorInfo } from '@busbar/proto/gen/busbar/v1/common';
import { ClientError, type Metadata, Status } from 'nice-grpc';
import { CliError, EXIT, type ExitCode } from '../cli/exit.ts';
import type { ConnectError } from './endpoint.ts';

/** Trailing metadata in which a controller puts an encoded ErrorInfo. */
export const ERROR_KEY = 'busbar-error-bin';

export class RpcError extends Error {
  override readonly name = 'RpcError';
  readonly code: Status;
  readonly details: string;
  readonly info: ErrorInfo | undefined;
  readonly endpoint: string;

  constructor(code: Status, details: string, info: ErrorInfo | undefined, endpoint: string) {
    super(`${Status[code]}: ${details}`);
    this.code = code;
    this.details = details;
    this.info = info;
    this.endpoint = endpoint;
  }
}

/** Every endpoint was tried and none could be used. */
export class UnreachableError extends Error {
  override readonly name = 'UnreachableError';
  readonly tried: ReadonlyMap<string, ConnectError>;

  constructor(tried: ReadonlyMap<string, ConnectError>) {
    super(`no controller answers at ${[...tried.keys()].join(', ')}`);
    this.tried = tried;
  }
}

export function rpcError(error: unknown, trailer: Metadata | undefined, endpoint: string): unknown {
  if (!(error instanceof ClientError)) return error;
  const info = decodeInfo(trailer);
  return new RpcError(
    info === undefined && isBroken(error) ? Status.UNAVAILABLE : error.code,
    error.details,
    info,
    endpoint,
  );
}

/** A peer that is killed in the middle of a stream shows up under several codes, depending on what was under way. */
function isBroken(error: ClientError): boolean {
  const codes: readonly Status[] = [Status.INTERNAL, Status.CANCELLED, Status.UNKNOWN];
  return (
    codes.includes(error.code) &&
    /RST_STREAM|ECONNRESET|EPIPE|socket|Connection dropped|Call cancelled/i.test(error.details)
  );
}

function decodeInfo(trailer: Metadata | undefined): ErrorInfo | undefined {
  const bytes = trailer?.get(ERROR_KEY);
  if (bytes === undefined || typeof bytes === 'string') return undefined;
  try {
    return ErrorInfo.decode(bytes);
  } catch {
    // A controller of another version: the status itself still says enough.
    return undefined;
  }
}

const EXIT_OF_STATUS: Partial<Record<Status, ExitCode>> = {
  [Status.NOT_FOUND]: EXIT.notFound,
  [Status.ALREADY_EXISTS]: EXIT.conflict,
  [Status.ABORTED]: EXIT.conflict,
  [Status.FAILED_PRECONDITION]: EXIT.conflict,
  [Status.UNAVAILABLE]: EXIT.unavailable,
  [Status.DEADLINE_EXCEEDED]: EXIT.unavailable,
};

/** When the controller gives no hint of its own. */
const HINT_OF_STATUS: Partial<Record<Status, string>> = {
  [Status.UNAVAILABLE]: 'try again; `busbar cluster status` shows the health of the cluster',
  [Status.DEADLINE_EXCEEDED]: 'look at `busbar operation list`: the work may go on; repeat with the same --request-id',
  [Status.UNAUTHENTICATED]: 'check `certificate` and `key` of the context (`busbar context list`)',
  [Status.PERMISSION_DENIED]: 'ask for a certificate with the role that this needs',
  [Status.UNIMPLEMENTED]: 'the controller is older than this command: compare `busbar version`',
  [Status.INTERNAL]: 'this is a fault of Busbar: look into the journal of busbar-controller and report it',
  [Status.UNKNOWN]: 'look into the journal of busbar-controller',
  [Status.ABORTED]: 'read it again and repeat the change',
};

/** `requestId`: of the change that the command sent, if it sent one. */
export function describeError(error: unknown, doing: string, requestId?: string): CliError {
  if (error instanceof CliError) return error;
  const what = doing === '' ? 'the command failed' : `cannot ${doing}`;
  if (error instanceof UnreachableError) return unreachable(error, what);
  if (error instanceof RpcError) {
    const info = error.info;
    const reason = info?.reason ?? Status[error.code];
    const fields = info?.fields ?? [];
    const message = info?.message || error.details || `status ${Status[error.code]}`;
    return new CliError({
      exit: EXIT_OF_STATUS[error.code] ?? EXIT.failed,
      reason,
      what,
      why: [
        `${message} (${reason})`,
        // The controller's message may name them already.
        ...fields
          .filter(({ field }) => !message.includes(field))
          .map((f) => `${f.field}: ${f.problem}${f.expected === '' ? '' : `, expected ${f.expected}`}`),
      ],
      hint:
        // Whether it was done is not known here; the controllers know, by the id.
        error.code === Status.DEADLINE_EXCEEDED && requestId !== undefined
          ? `repeat it with --request-id ${requestId}: what is done already is not done again`
          : info?.hint || HINT_OF_STATUS[error.code] || '',
      fields,
      cause: error,
    });
  }
  // Refused on this machine, before or after a call.
  if (error instanceof BusbarError) {
    const { reason, message, hint, fields } = error;
    const exit = error.kind === 'invalid' ? EXIT.usage : error.kind === 'already-exists' ? EXIT.conflict : EXIT.failed;
    return new CliError({ exit, reason, what, why: [`${message} (${reason})`], hint, fields, cause: error });
  }
  const message = error instanceof Error ? error.message : String(error);
  return new CliError({ exit: EXIT.failed, reason: 'INTERNAL', what, why: [message], hint: '', cause: error });
}

function unreachable(error: UnreachableError, what: string): CliError {
  const tried = [...error.tried];
  const reasons = new Set(tried.map(([, cause]) => cause.why));
  const all = tried.map(([address]) => address).join(', ');
  const why =
    reasons.size === 1
      ? `no controller answers at ${all} (${[...reasons][0]})`
      : `no controller answers at ${tried.map(([address, cause]) => `${address} (${cause.why})`).join(', ')}`;
  const tls = tried.some(([, cause]) => cause.tls);
  return new CliError({
    exit: EXIT.unavailable,
    reason: tls ? 'TLS_REFUSED' : 'UNREACHABLE',
    what,
    why: [why],
    hint: tls
      ? 'check ca, certificate and key of the context: `busbar context list`'
      : 'check that busbar-controller runs there and that this machine reaches it; `busbar context list` shows the endpoints',
    cause: error,
  });
}
