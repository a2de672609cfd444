// SPDX-License-Identifier: Apache-2.0
import { NetworkServiceDefinition, WatchNetworksResponse } from '@busbar/proto/gen/busbar/v1/network';
import { createChannel, createClient, createServer } from 'nice-grpc';
import { expect, it } from 'vitest';
import { encodingOnce, sharedMessages } from './shared-messages.ts';

it('builds a message once for each key, and forgets the old ones', () => {
  const shared = sharedMessages<{ n: number }>();
  let built = 0;
  const of = (key: string) => shared.of(key, () => ({ n: ++built }));
  expect(of('a')).toBe(of('a'));
  expect(of('b')).not.toBe(of('a'));
  expect(built).toBe(2);
  for (let i = 0; i < 1_000; i++) of(String(i));
  expect(of('a').n).toBeGreaterThan(1_000);
});

it('encodes a message once, as it would be without it', () => {
  const { methods } = encodingOnce(NetworkServiceDefinition);
  const type = methods.watchNetworks.responseType;
  const message = WatchNetworksResponse.fromPartial({ change: 'CHANGE_KIND_PUT', progress: { revision: 7n } });
  const bytes = type.encode(message).finish();
  expect(Buffer.from(bytes)).toEqual(Buffer.from(WatchNetworksResponse.encode(message).finish()));
  expect(type.encode(message).finish()).toBe(bytes);
  expect(type.encode({ ...message }).finish()).not.toBe(bytes);
});

it('encodes once what a server sends to many, and copies no answer', async () => {
  const { methods } = NetworkServiceDefinition;
  const type = methods.watchNetworks.responseType;
  let encoded = 0;
  const counting: typeof type = {
    ...type,
    encode(message, writer) {
      encoded++;
      return type.encode(message, writer);
    },
    fromPartial() {
      throw new Error('copied');
    },
  };
  const definition = {
    ...NetworkServiceDefinition,
    methods: { watchNetworks: { ...methods.watchNetworks, responseType: counting } },
  };
  const message = type.fromPartial({ change: 'CHANGE_KIND_PUT', progress: { revision: 7n } });
  const server = createServer();
  const watchNetworks = async function* () {
    yield message;
  };
  server.add(encodingOnce(definition) as never, { watchNetworks } as never);
  const channel = createChannel(`127.0.0.1:${await server.listen('127.0.0.1:0')}`);
  try {
    const client = createClient(NetworkServiceDefinition, channel);
    for (let i = 0; i < 3; i++) {
      for await (const told of client.watchNetworks({})) expect(told).toEqual(message);
    }
    expect(encoded).toBe(1);
  } finally {
    channel.close();
    server.forceShutdown();
  }
});
