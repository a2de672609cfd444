// SPDX-License-Identifier: Apache-2.0
/**
 * Calls to whichever controller answers. Any of them takes any call, so an unavailable one costs a move to the next.
 * Repeating is safe: reads change nothing, and every change carries a request id.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type CallOptions, type Client, type CompatServiceDefinition, type Metadata, Status } from 'nice-grpc';
import type { LastEndpoint } from '../config/last-endpoint.ts';
import { ConnectError, type Endpoint } from './endpoint.ts';
import { RpcError, rpcError, UnreachableError } from './rpc-error.ts';

/** Longer than the controllers' own deadlines, so that their explanation wins over our impatience. */
const CALL_TIMEOUT_MS = 10_000;
/** After this, an explained refusal is shown instead of asking yet another controller. */
const EXPLAINED_PATIENCE_MS = 3500;
const PAUSE_MS = 250;
/** Rounds over all endpoints before giving up: the second one rides out a controller that just restarts. */
const ROUNDS = 2;

export interface CallSettings {
  /** Of one attempt. */
  readonly timeoutMs?: number;
  /** Go on this long when nobody answers; for waiting, where a cluster in trouble is no reason to give up. */
  readonly patienceMs?: number;
  /** Told once when patience begins to be used. */
  readonly onTrouble?: (why: string) => void;
}

export interface Opened<D extends CompatServiceDefinition> {
  readonly client: Client<D>;
  readonly address: string;
  /** Turns what the stream threw into RpcError, and moves to the next endpoint when this one is to blame. */
  readonly failed: (error: unknown, trailer: Metadata | undefined) => unknown;
}

export class Api {
  readonly #endpoints: readonly Endpoint[];
  readonly #signal: AbortSignal;
  readonly #memory: LastEndpoint;
  #current = 0;
  #remembered: string | undefined;

  constructor(endpoints: readonly Endpoint[], signal: AbortSignal, memory: LastEndpoint) {
    this.#endpoints = endpoints;
    this.#signal = signal;
    this.#memory = memory;
    this.#remembered = memory.read();
    const index = endpoints.findIndex((endpoint) => endpoint.address === this.#remembered);
    if (index > 0) this.#current = index;
  }

  get signal(): AbortSignal {
    return this.#signal;
  }

  async call<D extends CompatServiceDefinition, R>(
    definition: D,
    invoke: (client: Client<D>, options: CallOptions) => Promise<R>,
    settings: CallSettings = {},
  ): Promise<R> {
    const started = performance.now();
    const tried = new Map<string, ConnectError>();
    let explained: RpcError | undefined;
    let troubled = false;
    for (let attempt = 1; ; attempt++) {
      const endpoint = this.#endpoint();
      const failure = await this.#attempt(endpoint, definition, invoke, settings.timeoutMs ?? CALL_TIMEOUT_MS);
      if ('answer' in failure) return failure.answer;
      this.#next(endpoint);
      if (failure.error instanceof ConnectError) tried.set(endpoint.address, failure.error);
      else explained = failure.error;
      const elapsed = performance.now() - started;
      const last = explained ?? new UnreachableError(tried);
      if (elapsed < (settings.patienceMs ?? 0)) {
        if (!troubled && attempt >= this.#endpoints.length) settings.onTrouble?.(last.message);
        troubled ||= attempt >= this.#endpoints.length;
      } else if (attempt >= this.#endpoints.length * ROUNDS) {
        throw last;
      } else if (attempt >= this.#endpoints.length && elapsed > EXPLAINED_PATIENCE_MS) {
        throw last;
      } else if (explained !== undefined && elapsed > EXPLAINED_PATIENCE_MS) {
        throw explained;
      }
      if (attempt % this.#endpoints.length === 0) await this.#pause(PAUSE_MS);
    }
  }

  /** A client on a connected endpoint, for streams: their retries belong to who knows where to resume. */
  async open<D extends CompatServiceDefinition>(definition: D): Promise<Opened<D>> {
    const tried = new Map<string, ConnectError>();
    for (let attempt = 0; attempt < this.#endpoints.length; attempt++) {
      const endpoint = this.#endpoint();
      try {
        await endpoint.connect(this.#signal);
        this.#works(endpoint);
        return {
          client: endpoint.client(definition),
          address: endpoint.address,
          failed: (error, trailer) => {
            this.#throwIfAborted();
            const described = rpcError(error, trailer, endpoint.address);
            if (isUnavailable(described)) this.#next(endpoint);
            return described;
          },
        };
      } catch (error) {
        this.#throwIfAborted();
        if (!(error instanceof ConnectError)) throw error;
        tried.set(endpoint.address, error);
        this.#next(endpoint);
      }
    }
    throw new UnreachableError(tried);
  }

  async pause(milliseconds: number): Promise<void> {
    await this.#pause(milliseconds);
  }

  close(): void {
    for (const endpoint of this.#endpoints) endpoint.reset();
  }

  async #attempt<D extends CompatServiceDefinition, R>(
    endpoint: Endpoint,
    definition: D,
    invoke: (client: Client<D>, options: CallOptions) => Promise<R>,
    timeoutMs: number,
  ): Promise<{ answer: R } | { error: ConnectError | RpcError }> {
    let trailer: Metadata | undefined;
    const expired = new AbortController();
    const timer = setTimeout(() => expired.abort(), timeoutMs);
    try {
      await endpoint.connect(this.#signal);
      const signal = AbortSignal.any([this.#signal, expired.signal]);
      const answer = await invoke(endpoint.client(definition), {
        signal,
        onTrailer: (metadata) => (trailer = metadata),
      });
      this.#works(endpoint);
      return { answer };
    } catch (thrown) {
      this.#throwIfAborted();
      if (thrown instanceof ConnectError) return { error: thrown };
      // Accepted the connection and then said nothing: frozen, or cut off in the middle.
      if (expired.signal.aborted) {
        return { error: new ConnectError(endpoint.address, `no answer within ${timeoutMs / 1000} s`, false) };
      }
      const error = rpcError(thrown, trailer, endpoint.address);
      if (!isUnavailable(error)) throw error;
      return { error: error.info === undefined ? await endpoint.explain(error.details) : error };
    } finally {
      clearTimeout(timer);
    }
  }

  #endpoint(): Endpoint {
    const endpoint = this.#endpoints[this.#current % this.#endpoints.length];
    if (endpoint === undefined) throw new Error('a context without endpoints');
    return endpoint;
  }

  #next(from: Endpoint): void {
    from.reset();
    if (this.#endpoint() === from) this.#current = (this.#current + 1) % this.#endpoints.length;
  }

  #works(endpoint: Endpoint): void {
    if (this.#remembered === endpoint.address) return;
    // Nothing to remember while the first one works and nothing else was noted.
    if (this.#remembered === undefined && endpoint === this.#endpoints[0]) return;
    this.#remembered = endpoint.address;
    this.#memory.write(endpoint.address);
  }

  async #pause(milliseconds: number): Promise<void> {
    try {
      await sleep(milliseconds, undefined, { signal: this.#signal });
    } catch (error) {
      this.#throwIfAborted();
      throw error;
    }
  }

  #throwIfAborted(): void {
    // The reason is the error made for the user: interrupted, or out of time.
    this.#signal.throwIfAborted();
  }
}

export function isUnavailable(error: unknown): error is RpcError {
  return error instanceof RpcError && error.code === Status.UNAVAILABLE;
}
