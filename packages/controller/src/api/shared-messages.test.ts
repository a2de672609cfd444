// SPDX-License-Identifier: Apache-2.0
import { NetworkServiceDefinition, WatchNetworksResponse } from '@busbar/proto/gen/busbar/v1/network';
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

it('encodes a message once, as it would be without it, and leaves single answers alone', () => {
  const { methods } = encodingOnce(NetworkServiceDefinition);
  const type = methods.watchNetworks.responseType;
  const message = WatchNetworksResponse.fromPartial({ change: 'CHANGE_KIND_PUT', progress: { revision: 7n } });
  const bytes = type.encode(message).finish();
  expect(Buffer.from(bytes)).toEqual(Buffer.from(WatchNetworksResponse.encode(message).finish()));
  expect(type.encode(message).finish()).toBe(bytes);
  expect(type.encode({ ...message }).finish()).not.toBe(bytes);
  expect(methods.listNetworks).toBe(NetworkServiceDefinition.methods.listNetworks);
});
