// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import type { TlsFeed } from '@busbar/pki/tls/source';
import {
  type ChannelCredentials,
  Client,
  type ClientDuplexStream,
  type ClientOptions,
  credentials,
  Metadata,
  type ServiceError,
} from '@grpc/grpc-js';
import { channelCredentials } from '../../tls/credentials.ts';
import { CallFailure, failureKind } from './failure.ts';
import { type Method, STATUS, type StatusResponse } from './messages.ts';
import type { Draft } from './wire.ts';

const CHANNEL_OPTIONS: ClientOptions = {
  // Bookkeeping of every call, for a service that is not offered.
  'grpc.enable_channelz': 0,
  // etcd refuses pings more often than every 5 s. The quick detection is the pool's, by probes.
  'grpc.keepalive_time_ms': 10_000,
  'grpc.keepalive_timeout_ms': 5_000,
  'grpc.keepalive_permit_without_calls': 1,
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1_000,
  // What may be repeated is decided in call.ts alone.
  'grpc.enable_retries': 0,
  'grpc.service_config_disable_resolution': 1,
  'grpc.use_local_subchannel_pool': 1,
  'grpc.enable_http_proxy': 0,
};

/** A member without a leader shall refuse at once instead of letting the call wait. */
const NEEDS_LEADER = new Metadata();
NEEDS_LEADER.set('hasleader', 'true');
const PROBE_DEADLINE_MS = 1_000;
/** How long a member that kept a call waiting is avoided while another is quicker: what ails a disk does not pass in a second. */
const SLOW_FOR_MS = 10_000;
/** A connection this long without a sign of life is given up: after a cut, TCP would wait longer than the cut took. */
const RECONNECT_AFTER_MS = 3_000;

export interface Cancellable<T> {
  readonly answer: Promise<T>;
  cancel(): void;
}

/** One etcd member: its connection, and what was last heard of it. */
export class Member {
  readonly address: string;
  readonly #clock: Clock;
  readonly #credentials: ChannelCredentials;
  #client: Client;
  #servedMs = Number.NEGATIVE_INFINITY;
  #suspected = false;
  #slowUntilMs = Number.NEGATIVE_INFINITY;
  /** Since when probes go unanswered. */
  #silentSinceMs: number | undefined;
  #probe: Promise<StatusResponse> | undefined;

  constructor(address: string, tls: TlsFeed | null, clock: Clock) {
    this.address = address;
    this.#credentials = tls === null ? credentials.createInsecure() : channelCredentials(tls);
    this.#clock = clock;
    this.#client = this.#connect();
  }

  /** When this member last did what a member with a leader does; -Infinity when it never has, or is under suspicion. */
  get servedMs(): number {
    return this.#servedMs;
  }

  get suspected(): boolean {
    return this.#suspected;
  }

  served(): void {
    this.#servedMs = this.#clock.nowMs();
    this.#suspected = false;
    this.#silentSinceMs = undefined;
  }

  /** It did not answer, or could not serve: to be probed before it is used again. */
  suspect(): void {
    this.#servedMs = Number.NEGATIVE_INFINITY;
    this.#suspected = true;
  }

  /** Alive, and behind: its disk holds it up, say. It answers when it has caught up, which others have already. */
  get isSlow(): boolean {
    return this.#clock.nowMs() < this.#slowUntilMs;
  }

  keptWaiting(): void {
    this.#slowUntilMs = this.#clock.nowMs() + SLOW_FOR_MS;
  }

  /** Rejects with CallFailure. Has no deadline of its own: who calls cancels. */
  unary<Request, Response>(method: Method<Request, Response>, request: Draft<Request>): Cancellable<Response> {
    let cancel = () => {};
    const answer = new Promise<Response>((resolve, reject) => {
      const call = this.#client.makeUnaryRequest(
        method.path,
        (value: Draft<Request>) => method.request.encode(value),
        (bytes: Buffer) => method.response.decode(bytes),
        request,
        method.path === STATUS.path ? new Metadata() : NEEDS_LEADER,
        (error: ServiceError | null, value?: Response) => {
          if (error === null && value !== undefined) {
            if (method.path !== STATUS.path) this.served();
            resolve(value);
          } else {
            reject(toFailure(this.address, error));
          }
        },
      );
      cancel = () => call.cancel();
    });
    return { answer, cancel };
  }

  stream<Request, Response>(method: Method<Request, Response>): ClientDuplexStream<Draft<Request>, Response> {
    return this.#client.makeBidiStreamRequest(
      method.path,
      (value: Draft<Request>) => method.request.encode(value),
      (bytes: Buffer) => method.response.decode(bytes),
      NEEDS_LEADER,
    );
  }

  /** Sends one message over a stream and takes its first answer. */
  single<Request, Response>(method: Method<Request, Response>, request: Draft<Request>): Cancellable<Response> {
    const stream = this.stream(method);
    const answer = new Promise<Response>((resolve, reject) => {
      stream.once('data', (value: Response) => {
        this.served();
        resolve(value);
        stream.end();
      });
      stream.on('error', (error: ServiceError) => reject(toFailure(this.address, error)));
      stream.once('end', () =>
        reject(new CallFailure('unknown', `${this.address} ended the stream without an answer`)),
      );
    });
    stream.write(request);
    return { answer, cancel: () => stream.cancel() };
  }

  /**
   * Asks the member itself, not the quorum: an answer shows that its process runs, and whether it
   * knows a leader. Concurrent probes are one.
   */
  probe(): Promise<StatusResponse> {
    this.#probe ??= this.#ask().finally(() => {
      this.#probe = undefined;
    });
    return this.#probe;
  }

  close(): void {
    this.#client.close();
  }

  async #ask(): Promise<StatusResponse> {
    const startMs = this.#clock.nowMs();
    if (startMs - (this.#silentSinceMs ?? startMs) > RECONNECT_AFTER_MS) {
      this.#client.close();
      this.#client = this.#connect();
      this.#silentSinceMs = startMs;
    }
    const call = this.unary(STATUS, {});
    using _ = this.#clock.timer(PROBE_DEADLINE_MS, () => call.cancel());
    try {
      const status = await call.answer;
      if (status.leader !== 0n && !status.isLearner) this.served();
      else this.suspect();
      return status;
    } catch (error) {
      this.suspect();
      if (this.#clock.nowMs() - startMs < PROBE_DEADLINE_MS) throw error;
      this.#silentSinceMs ??= startMs;
      throw new CallFailure('unknown', `${this.address}: no sign of life within ${PROBE_DEADLINE_MS} ms`, error);
    }
  }

  #connect(): Client {
    return new Client(this.address, this.#credentials, CHANNEL_OPTIONS);
  }
}

function toFailure(address: string, error: ServiceError | null): CallFailure {
  if (error === null) return new CallFailure('unknown', `${address}: an empty answer`);
  return new CallFailure(failureKind(error.code, error.details), `${address}: ${error.details}`, error);
}
