// SPDX-License-Identifier: Apache-2.0
// etcd with as little around it as a Node program can have: the yardstick of the benchmarks. No deadline, no failover,
// no retry. Lives here because only this folder speaks etcd's protocol.

import type { TlsText } from '@busbar/pki/tls/material';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { CompareTarget, type Method, prefixRange, RANGE, TXN, WATCH } from './messages.ts';
import type { Draft } from './wire.ts';

export interface BareTransaction {
  /** Keys that must have this mod revision, 0 for "must not exist". */
  readonly compare: readonly { readonly key: string; readonly modRevision: bigint }[];
  readonly puts: readonly { readonly key: string; readonly value: string }[];
}

export class BareEtcd {
  readonly #client: Client;

  constructor(address: string, tls: TlsText) {
    this.#client = new Client(address, credentials.createSsl(tls.ca, tls.key, tls.certificate), {
      'grpc.use_local_subchannel_pool': 1,
    });
  }

  /** The revision of the transaction; throws when a comparison failed. */
  async txn({ compare, puts }: BareTransaction): Promise<bigint> {
    const { header, succeeded } = await this.#unary(TXN, {
      compare: compare.map(({ key, modRevision }) => ({ target: CompareTarget.mod, key, modRevision })),
      success: puts.map((put) => ({ put })),
    });
    if (!succeeded) throw new Error(`a comparison of ${compare.map(({ key }) => key).join(', ')} failed`);
    return header?.revision ?? 0n;
  }

  /** Keys and sizes of everything below a prefix, in one answer. */
  async range(
    prefix: string,
  ): Promise<readonly { readonly key: string; readonly value: string; readonly modRevision: bigint }[]> {
    return (await this.#unary(RANGE, prefixRange(prefix))).kvs;
  }

  /** Resolves once the watch stands; `onEvents` is called for every later message with changes of the key. */
  async watch(key: string, onEvents: () => void): Promise<() => void> {
    const stream = this.#client.makeBidiStreamRequest(
      WATCH.path,
      (value: Draft<object>) => WATCH.request.encode(value as never),
      (bytes: Buffer) => WATCH.response.decode(bytes),
      new Metadata(),
    );
    stream.on('error', () => {}); // cancelled by us at the end
    const created = new Promise<void>((resolve) => {
      stream.on('data', (message: { readonly created: boolean; readonly events: readonly unknown[] }) => {
        if (message.created) resolve();
        if (message.events.length > 0) onEvents();
      });
    });
    stream.write({ create: { key: Buffer.from(key) } });
    await created;
    return () => stream.cancel();
  }

  close(): void {
    this.#client.close();
  }

  #unary<Request, Response>(method: Method<Request, Response>, request: Draft<Request>): Promise<Response> {
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        method.path,
        (value: Draft<Request>) => method.request.encode(value),
        (bytes: Buffer) => method.response.decode(bytes),
        request,
        (error, value) => (value === undefined ? reject(error ?? new Error('an empty answer')) : resolve(value)),
      );
    });
  }
}
