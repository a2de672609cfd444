// SPDX-License-Identifier: Apache-2.0

import { X509Certificate } from 'node:crypto';
import type { Authority } from '@busbar/pki/authority';
import { canonicalSerial } from '@busbar/pki/purpose';
import type { AuditRecord } from '@busbar/proto/gen/busbar/v1/audit';
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import { NetworkServiceDefinition } from '@busbar/proto/gen/busbar/v1/network';
import { createClient } from 'nice-grpc';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { grpcArrival, httpsArrival, plainAddress } from '../api/arrival.ts';
import { newAuthority, startWire, type Wire } from '../testing/wire.ts';

/** Goal: "who" is a certificate and a place, not only a name that several may share. */
let ours: Authority;
let wire: Wire;
beforeAll(async () => {
  ours = await newAuthority('ours');
  wire = await startWire(ours);
});
afterAll(() => wire.stop());

const serialOf = (own: { readonly certificatePem: string }) =>
  canonicalSerial(new X509Certificate(own.certificatePem).serialNumber);
const records = (): readonly AuditRecord[] => wire.rig.view.tables.audit.oldestFirst().map(({ record }) => record);
const named = (name: string) => records().find(({ target }) => target?.name === name);
const CREATE = '/busbar.v1.NetworkService/CreateNetwork';
const network = (name: string) => ({ name, spec: { kind: BridgeKind.LINUX, bridge: 'br-vm' } });

describe('an audit record', () => {
  it('tells two holders of one name apart, and how each call came', async () => {
    const [first, second] = [await wire.client('operator', 'anna'), await wire.client('operator', 'anna')];
    await createClient(NetworkServiceDefinition, wire.channel(first)).createNetwork(network('one'));
    const answer = await wire.post(CREATE, network('two'), second, { localAddress: '127.0.0.3' });
    expect(answer.status).toBe(200);
    expect(serialOf(first)).not.toBe(serialOf(second));
    expect([named('one'), named('two')]).toMatchObject([
      { caller: 'client/anna', certificateSerial: serialOf(first), address: '127.0.0.1', transport: 'grpc' },
      { caller: 'client/anna', certificateSerial: serialOf(second), address: '127.0.0.3', transport: 'https' },
    ]);
  });

  it('of a refused call says where it came from, also without a certificate', async () => {
    const viewer = await wire.client('viewer');
    await wire.post(CREATE, network('three'), viewer, { localAddress: '127.0.0.4' });
    await wire.post(CREATE, network('four'), null, { localAddress: '127.0.0.5' });
    const refused = () => records().filter(({ reason }) => reason !== '');
    await expect.poll(() => refused().length, { timeout: 5_000 }).toBe(2);
    expect(refused()).toMatchObject([
      { caller: 'client/viewer', certificateSerial: serialOf(viewer), address: '127.0.0.4', transport: 'https' },
      { caller: 'nobody', certificateSerial: '', address: '127.0.0.5', transport: 'https' },
    ]);
  });
});

describe('an address', () => {
  it.each([
    ['10.77.2.9', '10.77.2.9'],
    ['::ffff:10.77.2.9', '10.77.2.9'],
    ['::FFFF:10.77.2.9', '10.77.2.9'],
    ['fd00::9', 'fd00::9'],
    ['::ffff:0:10.0.0.1', '::ffff:0:10.0.0.1'],
    ['fe80::1%eth0', 'fe80::1%eth0'],
    [undefined, ''],
  ])('%s is spelled %s', (remote, expected) => {
    expect(plainAddress(remote)).toBe(expected);
    expect(httpsArrival({ remoteAddress: remote }).address).toBe(expected);
    expect(grpcArrival(remote === undefined ? 'unknown' : `${remote}:4711`).address).toBe(expected);
  });
});
