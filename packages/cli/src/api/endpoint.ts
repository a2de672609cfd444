// SPDX-License-Identifier: Apache-2.0
/** One controller's address: connects under a short deadline and says why when it cannot. */
import {
  Channel,
  type ChannelCredentials,
  connectivityState,
  Client as RawClient,
  Metadata as RawMetadata,
  type ServiceError,
} from '@grpc/grpc-js';
import { type Client, type CompatServiceDefinition, createClientFactory } from 'nice-grpc';

/** A live controller in the same plant answers in milliseconds; a switched-off one should not cost more than this. */
export const CONNECT_DEADLINE_MS = 1500;
/** A peer that vanished without a FIN (power cut) is noticed after these two, while a call waits. */
const KEEPALIVE_TIME_MS = 4000;
const KEEPALIVE_TIMEOUT_MS = 2000;

/** Message of our own check of the certificate's role. */
export const NO_CONTROLLER = 'not the certificate of a controller';

/** This endpoint cannot be used now; `why` is for people. */
export class ConnectError extends Error {
  override readonly name = 'ConnectError';
  readonly why: string;
  /** The TLS handshake was refused: another endpoint would most likely refuse too. */
  readonly tls: boolean;

  constructor(address: string, why: string, tls: boolean) {
    super(`${address}: ${why}`);
    this.why = why;
    this.tls = tls;
  }
}

export class Endpoint {
  readonly address: string;
  readonly #credentials: ChannelCredentials;
  /** Finds out what grpc-js does not tell. */
  readonly #probe: ((address: string) => Promise<string>) | undefined;
  #channel: Channel | undefined;
  readonly #clients = new Map<CompatServiceDefinition, unknown>();

  constructor(address: string, credentials: ChannelCredentials, probe?: (address: string) => Promise<string>) {
    this.address = address;
    this.#credentials = credentials;
    this.#probe = probe;
  }

  #open(): Channel {
    this.#channel ??= new Channel(target(this.address), this.#credentials, {
      'grpc.keepalive_time_ms': KEEPALIVE_TIME_MS,
      'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
      'grpc.max_receive_message_length': 64 * 1024 * 1024,
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 1000,
      // Retries are ours: they carry the request id to the next endpoint.
      'grpc.enable_retries': 0,
      'grpc.use_local_subchannel_pool': 1,
    });
    return this.#channel;
  }

  /** Returns when the connection stands; throws ConnectError. */
  async connect(signal: AbortSignal): Promise<void> {
    const channel = this.#open();
    const deadline = Date.now() + CONNECT_DEADLINE_MS;
    for (;;) {
      signal.throwIfAborted();
      const state = channel.getConnectivityState(true);
      if (state === connectivityState.READY) return;
      if (state === connectivityState.TRANSIENT_FAILURE) throw await this.explain(await this.#lastError(channel));
      const changed = await new Promise<boolean>((done) => {
        const abort = () => done(true);
        signal.addEventListener('abort', abort, { once: true });
        channel.watchConnectivityState(state, deadline, (error) => {
          signal.removeEventListener('abort', abort);
          done(error === undefined);
        });
      });
      if (!changed) {
        throw new ConnectError(this.address, `no answer within ${CONNECT_DEADLINE_MS / 1000} s`, false);
      }
    }
  }

  async explain(details: string): Promise<ConnectError> {
    const known = /ECONN|UNREACH|ENOTFOUND|ETIMEDOUT|Deadline|TLS|certificate/i.test(details);
    const probed = known || this.#probe === undefined ? '' : await this.#probe(this.address);
    return explain(this.address, probed === '' ? details : probed);
  }

  /** grpc-js tells the reason of a failed connection only to calls: make one that fails at once. */
  #lastError(channel: Channel): Promise<string> {
    const probe = new RawClient(target(this.address), this.#credentials, { channelOverride: channel });
    return new Promise((done) => {
      const none = () => Buffer.alloc(0);
      const answer = (error: ServiceError | null) => done(error?.details ?? 'the connection was lost');
      probe.makeUnaryRequest(
        '/grpc.health.v1.Health/Check',
        none,
        none,
        {},
        new RawMetadata(),
        { deadline: Date.now() + 500 },
        answer,
      );
    });
  }

  client<D extends CompatServiceDefinition>(definition: D): Client<D> {
    const known = this.#clients.get(definition) as Client<D> | undefined;
    if (known !== undefined) return known;
    const made = createClientFactory().create(definition, this.#open()) as Client<D>;
    this.#clients.set(definition, made);
    return made;
  }

  /** Drops the connection; the next use makes a new one. */
  reset(): void {
    this.#channel?.close();
    this.#channel = undefined;
    this.#clients.clear();
  }
}

function target(address: string): string {
  // grpc-js would resolve a bare name with its DNS resolver; addresses and names both work with this scheme.
  return address.startsWith('unix:') ? address : `dns:${address}`;
}

/** grpc-js words → what an engineer looks for. */
function explain(address: string, details: string): ConnectError {
  const found = TLS_PROBLEMS.find(([pattern]) => pattern.test(details));
  if (found !== undefined) return new ConnectError(address, found[1], true);
  if (/ECONNREFUSED/.test(details)) return new ConnectError(address, 'connection refused', false);
  if (/EHOSTUNREACH|ENETUNREACH/.test(details)) return new ConnectError(address, 'no route to it', false);
  if (/ENOTFOUND|EAI_AGAIN|Name resolution failed/.test(details)) {
    return new ConnectError(address, 'its name is not known', false);
  }
  if (/ETIMEDOUT|Deadline exceeded/i.test(details)) return new ConnectError(address, 'no answer', false);
  return new ConnectError(
    address,
    details.replace(/^.*Last error: (Error: )?/, '').replace(/ Resolution note: $/, ''),
    false,
  );
}

const TLS_PROBLEMS: readonly (readonly [RegExp, string])[] = [
  [new RegExp(NO_CONTROLLER), 'TLS: what answers there is certified, but not as a controller'],
  [/certificate has expired|CERT_HAS_EXPIRED/i, 'TLS: the certificate of the controller has expired'],
  [/not yet valid|CERT_NOT_YET_VALID/i, 'TLS: the certificate of the controller is not valid yet (compare the clocks)'],
  [
    /unable to verify|self[- ]signed|UNABLE_TO_|issuer cert/i,
    'TLS: the controller is not certified by the CA of this context',
  ],
  [/altnames|ERR_TLS_CERT_ALTNAME/i, 'TLS: the certificate of the controller is for another address'],
  [
    /certificate required|bad certificate|unknown ca|alert number (116|42|48)/i,
    'TLS: the controller refuses the client certificate of this context',
  ],
  [/wrong version number|packet length too long|EPROTO/i, 'TLS: what listens there does not speak TLS'],
];
