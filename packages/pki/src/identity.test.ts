// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { type Identity, IdentityError, identityUri, parseIdentityUri } from './identity.ts';

describe('certificate identity', () => {
  it('round-trips', () => {
    const identities: Identity[] = [
      { kind: 'controller', cluster: 'lab', host: 'host1' },
      { kind: 'host', cluster: 'plant-7', host: 'witness1' },
      { kind: 'client', cluster: 'lab', client: 'admin' },
    ];
    for (const identity of identities) expect(parseIdentityUri(identityUri(identity))).toEqual(identity);
    expect(identities.map(identityUri)).toEqual([
      'spiffe://lab/controller/host1',
      'spiffe://plant-7/host/witness1',
      'spiffe://lab/client/admin',
    ]);
  });

  it.each([
    'spiffe://lab/host/',
    'spiffe://lab/host/host1/',
    'spiffe://lab/host/host1?x',
    'spiffe://lab/host/%68ost1',
    'spiffe://lab/host/../client/admin',
    'spiffe://lab/owner/host1',
    'spiffe://LAB/host/host1',
    'https://lab/host/host1',
    ' spiffe://lab/host/host1',
  ])('is nobody: %s', (uri) => expect(parseIdentityUri(uri)).toBeUndefined());

  it('does not build what it would not read', () => {
    expect(() => identityUri({ kind: 'host', cluster: 'lab', host: 'a/b' })).toThrow(IdentityError);
    expect(() => identityUri({ kind: 'client', cluster: '', client: 'admin' })).toThrow(IdentityError);
  });
});
