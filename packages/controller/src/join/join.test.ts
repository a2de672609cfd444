// SPDX-License-Identifier: Apache-2.0
import { createHash, X509Certificate } from 'node:crypto';
import { createRequest, matches, spkiPin } from '@busbar/pki/csr';
import { parseJoinToken } from '@busbar/pki/join-token';
import type { JoinTokenRecord } from '@busbar/proto/gen/busbar/store/v1/pki';
import type { HostStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { CertificatePurpose, RevokeCertificateRequest } from '@busbar/proto/gen/busbar/v1/certificate';
import { type HostInventory, HostRole } from '@busbar/proto/gen/busbar/v1/host';
import {
  CreateJoinTokenRequest,
  type CreateJoinTokenResponse,
  type JoinCsr,
  type JoinRequest,
  type JoinResponse,
  type JoinTokenInfo,
} from '@busbar/proto/gen/busbar/v1/join';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { putRecord } from '../records/kinds.ts';
import type { LeaseId } from '../store/cluster-store.ts';
import { callerWith, type FoundedRig, foundedRig } from '../testing/founded-rig.ts';
import type { Rig } from '../testing/rig.ts';
import { joinGuard } from './guard.ts';

const ALL = [
  CertificatePurpose.AGENT,
  CertificatePurpose.NATS,
  CertificatePurpose.CONTROLLER,
  CertificatePurpose.ETCD,
  CertificatePurpose.ETCD_CLIENT,
] as const;
let founded: FoundedRig;
let rig: Rig;
let csrs: JoinCsr[];
let keys: ReadonlyMap<CertificatePurpose, string>;

beforeAll(async () => {
  const made = await Promise.all(ALL.map(async (purpose) => ({ purpose, ...(await createRequest('x')) })));
  csrs = made.map(({ purpose, csrPem }) => ({ purpose, csrPem }));
  keys = new Map(made.map(({ purpose, keyPem }) => [purpose, keyPem]));
});
beforeEach(async () => {
  founded = await foundedRig();
  rig = founded.rig;
});
afterEach(() => rig.stop());

const create = (more: Partial<CreateJoinTokenRequest> = {}) =>
  rig.call<CreateJoinTokenResponse>(
    'JoinTokenService',
    'createJoinToken',
    CreateJoinTokenRequest.fromPartial({ host: 'host2', addresses: ['10.0.0.2'], ...more }),
    founded.admin,
  );
/** Nobody calls: no certificate at all. */
const join = (request: Partial<JoinRequest>) =>
  rig.call<JoinResponse>('JoinService', 'join', { addresses: [], csrs, ...request }, null);
async function redeem(text: string, more: Partial<JoinRequest> = {}) {
  const { id, secret } = parseJoinToken(text);
  return join({ tokenId: id, secret, ...more });
}
const tokens = async () =>
  (
    await rig.call<{ tokens: JoinTokenInfo[] }>(
      'JoinTokenService',
      'listJoinTokens',
      { pageSize: 0, pageToken: '' },
      founded.admin,
    )
  ).tokens;
const otherCsrs = () =>
  Promise.all(ALL.map(async (purpose) => ({ purpose, csrPem: (await createRequest('y')).csrPem })));

describe('a join token', () => {
  it('says where to ask and whom to believe', async () => {
    const { text, token } = await create();
    expect(parseJoinToken(text)).toMatchObject({
      endpoints: ['host1:7801'],
      pin: spkiPin(founded.cluster.authorities.ca),
      id: token?.id,
    });
    expect(token).toMatchObject({ host: 'host2', role: HostRole.HYPERVISOR, voter: false, createdBy: 'client/admin' });
    expect(await tokens()).toEqual([token]);
  });

  it('is kept as a digest, under a lease', async () => {
    const { text } = await create();
    const { secret, id } = parseJoinToken(text);
    const all = [...(await rig.stored())].flat().join();
    expect(all).toContain(id);
    expect(all).not.toContain(secret);
    expect(all).not.toContain(Buffer.from(secret, 'base64url').toString('hex'));
    await rig.clock.advance(3_600_000 + 86_400_000 + 5_000);
    expect(await tokens()).toEqual([]);
  }, 20_000);

  it('is the same for a repeated request, and another for another', async () => {
    const first = await create({ requestId: 'r1' });
    expect(await create({ requestId: 'r1' })).toEqual(first);
    const second = await create({ requestId: 'r2' });
    expect(parseJoinToken(second.text).secret).not.toBe(parseJoinToken(first.text).secret);
  });

  it('in a dry run is not made', async () => {
    const { text, token } = await create({ validateOnly: true });
    expect(text).toBe('');
    expect(token?.host).toBe('host2');
    expect(await tokens()).toEqual([]);
  });

  it.each<[string, Partial<CreateJoinTokenRequest>, string]>([
    ['no host', { host: '' }, 'host is ""'],
    ['a host that breaks out of the URI', { host: 'h/../client/x' }, 'host is'],
    ['an unknown role', { role: HostRole.UNRECOGNIZED }, 'role is'],
    ['59 seconds', { ttlSeconds: 59 }, 'ttlSeconds is 59, expected 60 to 604800'],
    ['more than a week', { ttlSeconds: 604_801 }, 'ttlSeconds is 604801'],
    ['a negative time', { ttlSeconds: -5 }, 'ttlSeconds is -5'],
    ['no address', { addresses: [] }, 'addresses is [], expected 1 to 8 IP addresses'],
    ['nine addresses', { addresses: Array.from({ length: 9 }, (_, i) => `10.0.0.${i + 2}`) }, 'addresses is'],
    ['a name for an address', { addresses: ['host2'] }, 'addresses[0] is "host2", expected an IP address of the host'],
    ['loopback', { addresses: ['127.0.0.1'] }, 'addresses[0] is "127.0.0.1"'],
    ['loopback as IPv6', { addresses: ['::ffff:127.0.0.1'] }, 'addresses[0] is "::ffff:127.0.0.1"'],
    ['an address of a link', { addresses: ['fe80::1%eth0'] }, 'addresses[0] is "fe80::1%eth0"'],
    ['one address twice', { addresses: ['fd00::2', 'fd00:0::2'] }, 'addresses is'],
  ])('with %s is refused', async (_name, more, why) => {
    await expect(create(more)).rejects.toMatchObject({
      kind: 'invalid',
      message: expect.stringContaining(why) as string,
    });
  });

  it.each([
    ['a controller’s', '10.0.0.7', 'host7', 'its controller is configured with it'],
    ['in a valid certificate', '10.0.0.1', 'host1', 'certificate '],
    ['in another token', '10.0.0.4', 'host4', 'join token '],
    ['in another token, spelt otherwise', '::ffff:10.0.0.4', 'host4', 'join token '],
  ])('with an address that is another host’s is refused: %s', async (_name, address, owner, by) => {
    Object.assign(rig.api, { controllers: [...rig.api.controllers, { host: 'host7', address: '10.0.0.7:7800' }] });
    await create({ host: 'host4', addresses: ['10.0.0.4'] });
    await expect(create({ addresses: ['10.0.0.2', address] })).rejects.toMatchObject({
      kind: 'precondition',
      reason: 'ADDRESS_IN_USE',
      message: expect.stringContaining(`is an address of host "${owner}" (${by}`) as string,
    });
    // Its own host may have another token.
    await create({ host: owner, addresses: [address] });
  });

  it('may have the address of a host whose certificates are revoked, or whose token has ended', async () => {
    await redeem((await create({ host: 'host4', addresses: ['10.0.0.4'] })).text);
    await create({ host: 'host5', addresses: ['10.0.0.5'], ttlSeconds: 60 });
    const [old] = rig.view.tables.certificate
      .sorted()
      .filter(({ record }) => record.certificate?.subject === 'host/host4');
    const revocation = RevokeCertificateRequest.fromPartial({ serial: old?.id ?? '', reason: 'scrapped' });
    await expect(create({ addresses: ['10.0.0.4'] })).rejects.toMatchObject({ reason: 'ADDRESS_IN_USE' });
    await rig.call('CertificateService', 'revokeCertificate', revocation, founded.admin);
    await rig.clock.advance(3_600_000);
    await create({ addresses: ['10.0.0.4', '10.0.0.5'] });
  });

  it('is one of 64 at most', async () => {
    for (let i = 0; i < 64; i++) await create({ host: `h${i}`, addresses: [`10.0.9.${i + 1}`] });
    await expect(create()).rejects.toMatchObject({ kind: 'exhausted', reason: 'JOIN_TOKEN_TOO_MANY' });
  }, 20_000);
});

describe('joining', () => {
  it('gives a hypervisor its certificates and nothing that is a voter’s', async () => {
    const answer = await redeem((await create()).text);
    expect(answer).toMatchObject({
      cluster: 'test',
      host: 'host2',
      voter: false,
      caPem: founded.cluster.authorities.ca,
      libvirtCaPem: '',
      etcdCaPem: '',
      etcdEndpoints: [],
      controllers: [{ host: 'host1', address: 'host1:7800' }],
    });
    expect(answer.sealKey).toHaveLength(0);
    expect(answer.certificates.map((each) => each.purpose)).toEqual([
      CertificatePurpose.AGENT,
      CertificatePurpose.NATS,
    ]);
    for (const { purpose, certificatePem } of answer.certificates)
      expect(matches(certificatePem, keys.get(purpose) ?? '')).toBe(true);
    const agent = answer.certificates[0]?.certificatePem ?? '';
    expect(callerWith(agent)).toMatchObject({ name: 'host/host2', role: null });
    expect(new X509Certificate(agent).checkIP('10.0.0.2')).toBe('10.0.0.2');
    const { host, useTime } = (await tokens())[0] ?? {};
    expect([host, useTime === undefined]).toEqual(['host2', false]);
  });

  it('gives a voting witness what a controller needs', async () => {
    const { text, token } = await create({ host: 'w1', role: HostRole.WITNESS, voter: true });
    const answer = await redeem(text);
    expect(answer.certificates.map((each) => each.purpose)).toEqual(ALL);
    expect(Buffer.from(answer.sealKey)).toEqual(Buffer.from(founded.host1.sealKey ?? []));
    expect(answer).toMatchObject({ etcdEndpoints: ['https://10.0.0.1:2379'] });
    const { certificates } = await rig.call<{ certificates: { issuedBy: string; subject: string }[] }>(
      'CertificateService',
      'listCertificates',
      { pageSize: 0, pageToken: '', subject: 'controller/w1' },
      founded.admin,
    );
    expect(certificates.map((each) => each.issuedBy)).toEqual(Array(3).fill(`join-token/${token?.id}`));
  });

  it('works once: the same request again gets the same answer, another is refused', async () => {
    const { text } = await create();
    const first = await redeem(text);
    expect(await redeem(text)).toEqual(first);
    const used = { kind: 'forbidden', reason: 'JOIN_TOKEN_USED' };
    await expect(redeem(text, { csrs: await otherCsrs() })).rejects.toMatchObject(used);
    await expect(redeem(text, { addresses: ['10.0.0.2'] })).rejects.toMatchObject(used);
    expect(await redeem(text)).toEqual(first);
  });

  it('of many at once with one token lets one in', async () => {
    const { text } = await create();
    const results = await Promise.allSettled([
      redeem(text),
      redeem(text, { csrs: await otherCsrs() }),
      redeem(text, { csrs: await otherCsrs() }),
      redeem(text),
    ]);
    const answers = new Set(
      results.flatMap((each) =>
        each.status === 'fulfilled'
          ? [JSON.stringify(each.value, (_, v: unknown) => (typeof v === 'bigint' ? String(v) : v))]
          : [],
      ),
    );
    expect(answers.size).toBe(1);
    for (const each of results)
      if (each.status === 'rejected') expect(each.reason).toMatchObject({ reason: 'JOIN_TOKEN_USED' });
    expect(
      rig.view.tables.certificate.sorted().filter((each) => each.record.certificate?.subject === 'host/host2'),
    ).toHaveLength(2);
  });

  it('is refused with a wrong secret as with an unknown token', async () => {
    const { id, secret } = parseJoinToken((await create()).text);
    const wrong = [
      { tokenId: id, secret: createHash('sha256').update(secret).digest('base64url') },
      { tokenId: id, secret: '' },
      { tokenId: '01234567-89ab-4cde-8f01-23456789abcd', secret },
      { tokenId: '01234567-89ab-4cde-8f01-23456789abcd', secret: '' },
    ];
    const errors = await Promise.all(wrong.map((each) => join(each).catch((error: unknown) => error)));
    for (const error of errors) {
      expect(error).toMatchObject({ kind: 'forbidden', reason: 'JOIN_TOKEN_INVALID' });
      expect((error as Error).message).toBe((errors[0] as Error).message);
    }
    await join({ tokenId: id, secret });
  });

  it('is refused once the token has ended, and says so for a day', async () => {
    const { text } = await create({ ttlSeconds: 60 });
    await rig.clock.advance(60_000);
    await expect(redeem(text)).rejects.toMatchObject({ kind: 'forbidden', reason: 'JOIN_TOKEN_EXPIRED' });
    await rig.clock.advance(86_400_000 + 5_000);
    await expect(redeem(text)).rejects.toMatchObject({ reason: 'JOIN_TOKEN_INVALID' });
  }, 20_000);

  it('does not answer a repeat after the end either', async () => {
    const { text } = await create({ ttlSeconds: 60 });
    await redeem(text);
    await rig.clock.advance(60_000);
    await expect(redeem(text)).rejects.toMatchObject({ reason: 'JOIN_TOKEN_EXPIRED' });
  });

  it('is refused with a token that was withdrawn', async () => {
    const { text, token } = await create();
    const request = { id: token?.id ?? '', validateOnly: false, requestId: '' };
    await rig.call('JoinTokenService', 'deleteJoinToken', request, founded.admin);
    await expect(redeem(text)).rejects.toMatchObject({ reason: 'JOIN_TOKEN_INVALID' });
    await expect(rig.call('JoinTokenService', 'deleteJoinToken', request, founded.admin)).rejects.toMatchObject({
      kind: 'not-found',
      reason: 'JOIN_TOKEN_NOT_FOUND',
    });
  });

  it('has the addresses of its token, whatever the host says', async () => {
    const { text, token } = await create({ addresses: ['10.0.0.2', '10.1.0.2'] });
    expect(token?.addresses).toEqual(['10.0.0.2', '10.1.0.2']);
    await expect(redeem(text, { addresses: ['10.0.0.2', '10.0.0.9'] })).rejects.toMatchObject({
      kind: 'precondition',
      reason: 'ADDRESS_NOT_IN_TOKEN',
      message: 'host "host2" wants to join with 10.0.0.2, 10.0.0.9, but its token is for 10.0.0.2, 10.1.0.2',
    });
    const answer = await redeem(text, { addresses: ['10.1.0.2'] });
    expect(answer.addresses).toEqual(['10.0.0.2', '10.1.0.2']);
    for (const { certificatePem } of answer.certificates)
      expect(new X509Certificate(certificatePem).subjectAltName?.match(/IP Address:[0-9.]+/g)).toEqual([
        'IP Address:10.0.0.2',
        'IP Address:10.1.0.2',
        'IP Address:127.0.0.1',
      ]);
  });

  it('gets no address by a lie in the inventory, neither its own nor another’s', async () => {
    // host2 reports the address of host3's machine, and host1 (the rig's) what its certificate does not have.
    const status = rig.view.tables['host-status'].get('host1')?.record;
    const inventory = {
      ...(status?.inventory as HostInventory),
      managementAddress: '10.0.0.3',
      storageAddress: '10.0.0.1',
    };
    const lie = putRecord('host-status', 'host2', { ...(status as HostStatusRecord), inventory });
    await rig.run(rig.api.store.txn({ compare: [], writes: [lie] }));
    await rig.run(rig.view.fresh());
    // The lie takes nothing from host3,
    await redeem((await create({ host: 'host3', addresses: ['10.0.0.3'] })).text);
    // and gives nothing to host2.
    await expect(create({ addresses: ['10.0.0.1'] })).rejects.toMatchObject({ reason: 'ADDRESS_IN_USE' });
    await expect(redeem((await create()).text, { addresses: ['10.0.0.3'] })).rejects.toMatchObject({
      reason: 'ADDRESS_NOT_IN_TOKEN',
    });
  });

  it('with a token of an older version, which has no addresses, is refused', async () => {
    const { text, token } = await create();
    const entry = rig.view.tables['join-token'].get(token?.id ?? '');
    const record = { ...(entry?.record as JoinTokenRecord), token: { ...(token as JoinTokenInfo), addresses: [] } };
    const put = putRecord('join-token', token?.id ?? '', record, record.lease as LeaseId);
    await rig.run(rig.api.store.txn({ compare: [], writes: [put] }));
    await rig.run(rig.view.fresh());
    await expect(redeem(text)).rejects.toMatchObject({ kind: 'precondition', reason: 'ADDRESS_NOT_IN_TOKEN' });
  });

  it('is not answered again once what it got is revoked: the seal key is in the answer', async () => {
    const { text } = await create({ host: 'w1', role: HostRole.WITNESS, voter: true });
    const answer = await redeem(text);
    const { serialNumber } = new X509Certificate(answer.certificates[0]?.certificatePem ?? '');
    const revocation = RevokeCertificateRequest.fromPartial({ serial: serialNumber, reason: 'stolen' });
    await rig.call('CertificateService', 'revokeCertificate', revocation, founded.admin);
    await expect(redeem(text)).rejects.toMatchObject({ kind: 'forbidden', reason: 'JOIN_TOKEN_REVOKED' });
  });

  it.each<[string, () => Partial<JoinRequest>, string]>([
    ['no requests', () => ({ csrs: [] }), 'csrs is [], expected 1 to 8'],
    ['a missing one', () => ({ csrs: csrs.slice(0, 1) }), 'one for CERTIFICATE_PURPOSE_NATS'],
    [
      'nonsense in one',
      () => ({ csrs: [...csrs.slice(0, 1), { purpose: CertificatePurpose.NATS, csrPem: 'x' }] }),
      'csrs[1].csrPem cannot be used',
    ],
    [
      'a name for an address',
      () => ({ addresses: ['host2'] }),
      'addresses[0] is "host2", expected an IP address of the host',
    ],
    ['a path for an id', () => ({ tokenId: '../vm/x' }), 'tokenId is'],
  ])('with %s is refused as wrong', async (_name, more, why) => {
    const { text } = await create();
    await expect(redeem(text, more())).rejects.toMatchObject({
      kind: 'invalid',
      message: expect.stringContaining(why) as string,
    });
    await redeem(text);
  });

  it('never shows a secret, however wrong it is', async () => {
    const secret = `hunter2${'x'.repeat(80)}`;
    const error = await redeem((await create()).text, { secret }).catch((thrown: unknown) => thrown);
    expect(JSON.stringify(error) + String(error)).not.toContain('hunter2');
  });
});

describe('the guard', () => {
  it('holds refused attempts back, and lets in a few at a time', async () => {
    const { clock } = rig;
    const guard = joinGuard(clock);
    const refusal = new Error('no');
    const attempts = Array.from({ length: 6 }, (_, number) =>
      guard(`10.0.0.${number % 3}`, () => Promise.reject(refusal)).catch((e: unknown) => e),
    );
    const ended: unknown[] = [];
    for (const attempt of attempts) void attempt.then((error) => ended.push(error));
    await clock.advance(499);
    expect(ended.map((each) => (each as { reason?: string }).reason)).toEqual(['JOIN_BUSY', 'JOIN_BUSY']);
    await clock.advance(1);
    expect(ended.slice(2)).toEqual([refusal, refusal, refusal, refusal]);
    await expect(guard('10.0.0.9', () => Promise.resolve('in'))).resolves.toBe('in');
  });
});
