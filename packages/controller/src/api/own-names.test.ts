// SPDX-License-Identifier: Apache-2.0
import { fixedTls } from '@busbar/pki/tls/source';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { newAuthority, serverFiles } from '../testing/wire.ts';
import { type OwnNames, ownNames } from './own-names.ts';

const PORT = 7801;
let names: OwnNames;
beforeAll(async () => {
  // Of the certificate: localhost and 127.0.0.1.
  const tls = fixedTls(await serverFiles(await newAuthority('ours')));
  const controllers = [
    { host: 'host1', address: '10.0.0.1:7800' },
    { host: 'host2', address: '[fd00::2]:7800' },
    { host: 'host3', address: 'Plant7.example:7800' },
  ];
  names = ownNames(controllers, tls);
});
const OWN = ['localhost', '127.0.0.1', 'host1', '10.0.0.1', 'host2', '[fd00::2]', 'host3', 'plant7.example'];

describe('a name of the cluster', () => {
  it.each([...OWN, 'HOST1', 'host1.', '[fd00:0:0::2]', '[FD00::2]'])('is %s, with a port and without', (name) => {
    expect(names.refusalOf(name)).toBeNull();
    expect(names.refusalOf(`${name}:7801`)).toBeNull();
  });

  it.each([
    '',
    'evil.example',
    'evil.example:7801',
    'host1.evil.example',
    'host4',
    '10.0.0.10',
    'host1:7801@evil.example',
    'evil.example/host1',
    'host1, evil.example',
    'host1:7801:7801',
    '[host1]',
    'host1#',
    'host1%00',
    ' host1',
    '127.1.evil',
    '[::1]',
  ])('is not %j', (name) => {
    expect(names.refusalOf(name)).toMatchObject({ kind: 'forbidden', reason: 'OTHER_HOST' });
  });

  it('is missing from a request without any', () => {
    expect(names.refusalOf(undefined)).toMatchObject({ reason: 'OTHER_HOST' });
  });

  it('is none of what anybody may think of', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.webAuthority({ withPort: true, withUserInfo: true })), (text) => {
        const own = names.refusalOf(text) === null;
        const host = text
          .replace(/:\d{1,5}$/, '')
          .replace(/\.$/, '')
          .toLowerCase();
        expect(own).toBe(OWN.includes(host));
      }),
    );
  });
});

describe('an origin', () => {
  it.each(OWN)('of the edge itself is https://%s:7801', (name) => {
    expect(names.isOwnOrigin(`https://${name}:7801`, `${name}:7801`, PORT)).toBe(true);
    // The page of one controller may call another.
    expect(names.isOwnOrigin('https://host1:7801', `${name}:7801`, PORT)).toBe(true);
  });

  it('may come through a tunnel, by the name and the port that it is called by', () => {
    expect(names.isOwnOrigin('https://localhost:9000', 'localhost:9000', PORT)).toBe(true);
    expect(names.isOwnOrigin('https://localhost:9000', 'localhost:9001', PORT)).toBe(false);
  });

  it.each([
    ['a stranger who names himself in both', 'https://evil.example:7801', 'evil.example:7801'],
    ['another server on the same host', 'https://host1:8443', 'host1:7801'],
    ['one in plain text', 'http://host1:7801', 'host1:7801'],
    ['a file', 'null', 'host1:7801'],
    ['a page with a path', 'https://host1:7801/x', 'host1:7801'],
    ['a page with a user', 'https://a@host1:7801', 'host1:7801'],
    ['two at once', 'https://host1:7801 https://evil.example', 'host1:7801'],
    ['a name that begins alike', 'https://host1.evil.example:7801', 'host1:7801'],
    ['nothing', '', 'host1:7801'],
  ])('is not that of %s', (_name, origin, authority) => {
    expect(names.isOwnOrigin(origin, authority, PORT)).toBe(false);
  });
});
