// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { agentHostOf, callerOf, presented } from './authenticate.ts';

const ANNA = 'spiffe://lab/client/anna';
const HOST = 'spiffe://lab/host/host1';
const SPAN = { notBefore: new Date('2000-01-01'), notAfter: new Date('2100-01-01') };
const certificate = (...uris: string[]) => ({ serial: '4a', uris, ips: [], ...SPAN });

describe('the caller of a client certificate', () => {
  it.each(['viewer', 'operator', 'admin'] as const)('has the role %s that it carries', (role) => {
    const shown = certificate(ANNA, `spiffe://lab/role/${role}`);
    expect(callerOf(shown, 'lab')).toEqual({ name: 'client/anna', role, certificate: shown });
  });

  it.each([
    ['no role', [ANNA]],
    ['an unknown role', [ANNA, 'spiffe://lab/role/root']],
    ['two roles', [ANNA, 'spiffe://lab/role/viewer', 'spiffe://lab/role/admin']],
    ['the same role twice', [ANNA, 'spiffe://lab/role/viewer', 'spiffe://lab/role/viewer']],
    ['two identities', [ANNA, 'spiffe://lab/client/bert', 'spiffe://lab/role/viewer']],
    ['an identity of each kind', [ANNA, HOST, 'spiffe://lab/role/viewer']],
    ["another cluster's identity", ['spiffe://plant/client/anna', 'spiffe://lab/role/admin']],
    ["another cluster's role", [ANNA, 'spiffe://plant/role/admin']],
    ['a host that claims a role', [HOST, 'spiffe://lab/role/admin']],
    ['a controller that claims a role', ['spiffe://lab/controller/host1', 'spiffe://lab/role/viewer']],
    ['a role alone', ['spiffe://lab/role/admin']],
    ['nothing', []],
  ])('with %s is nobody', (_what, uris) => expect(callerOf(certificate(...uris), 'lab')).toBeNull());

  it.each([
    ['host/host1', HOST],
    ['controller/host1', 'spiffe://lab/controller/host1'],
  ])('of a machine is %s, without a role', (name, uri) => {
    const shown = certificate(uri);
    expect(callerOf(shown, 'lab')).toEqual({ name, role: null, certificate: shown });
    expect(callerOf(shown, 'plant')).toBeNull();
  });

  it('is nobody without a certificate', () => {
    expect(callerOf(null, 'lab')).toBeNull();
    expect(agentHostOf(null, 'lab')).toBeNull();
  });

  it('is told apart from an agent', () => {
    expect(agentHostOf(certificate(HOST), 'lab')).toBe('host1');
    expect(agentHostOf(certificate(HOST, 'spiffe://lab/host/host2'), 'lab')).toBeNull();
    expect(agentHostOf(certificate('spiffe://plant/host/host1'), 'lab')).toBeNull();
    expect(agentHostOf(certificate('spiffe://lab/controller/host1'), 'lab')).toBeNull();
    expect(agentHostOf(certificate(ANNA, 'spiffe://lab/role/admin'), 'lab')).toBeNull();
  });
});

describe('what TLS shows of a certificate', () => {
  const peer = (subjectaltname: string, serialNumber = '0A1B') =>
    presented({
      serialNumber,
      subjectaltname,
      valid_from: 'Nov  4 15:43:34 2026 GMT',
      valid_to: 'Nov 24 15:43:34 2036 GMT',
    });

  it('is read exactly', () => {
    const names =
      'URI:spiffe://a/client/b, DNS:x, IP Address:10.0.0.1, URI:spiffe://c/host/d, IP Address:FD00:0:0:0:0:0:0:1';
    expect(peer(names)).toEqual({
      serial: 'a1b',
      uris: ['spiffe://a/client/b', 'spiffe://c/host/d'],
      ips: ['10.0.0.1', 'FD00:0:0:0:0:0:0:1'],
      notBefore: new Date('2026-11-04T15:43:34Z'),
      notAfter: new Date('2036-11-24T15:43:34Z'),
    });
  });

  it('leaves out what Node had to quote', () => {
    for (const names of ['DNS:"x, URI:spiffe://a/client/b"', 'URI:"spiffe://a/client/b"', ''])
      expect(peer(names)?.uris).toEqual([]);
  });

  it('is nothing when there is no certificate, or one without serial number or end', () => {
    for (const nothing of [null, undefined, {}, { subjectaltname: 'URI:spiffe://a/client/b' }])
      expect(presented(nothing)).toBeNull();
    expect(presented({ serialNumber: '1', valid_from: 'Nov 24 15:43:34 2036 GMT', valid_to: 'soon' })).toBeNull();
    expect(presented({ serialNumber: '1', valid_to: 'Nov 24 15:43:34 2036 GMT' })).toBeNull();
    expect(peer('', '')).toBeNull();
  });
});
