// SPDX-License-Identifier: Apache-2.0
import { createHash, X509Certificate } from 'node:crypto';
import { createRequest, matches, spkiPin } from '@busbar/pki/csr';
import { parseJoinToken } from '@busbar/pki/join-token';
import { CertificatePurpose } from '@busbar/proto/gen/busbar/v1/certificate';
import { HostRole } from '@busbar/proto/gen/busbar/v1/host';
import {
  CreateJoinTokenRequest,
  type CreateJoinTokenResponse,
  type JoinCsr,
  type JoinRequest,
  type JoinResponse,
  type JoinTokenInfo,
} from '@busbar/proto/gen/busbar/v1/join';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
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
    CreateJoinTokenRequest.fromPartial({ host: 'host2', ...more }),
    founded.admin,
  );
/** Nobody calls: no certificate at all. */
const join = (request: Partial<JoinRequest>) =>
  rig.call<JoinResponse>('JoinService', 'join', { addresses: ['10.0.0.2'], csrs, ...request }, null);
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
  ])('with %s is refused', async (_name, more, why) => {
    await expect(create(more)).rejects.toMatchObject({
      kind: 'invalid',
      message: expect.stringContaining(why) as string,
    });
  });

  it('is one of 64 at most', async () => {
    for (let i = 0; i < 64; i++) await create({ host: `h${i}` });
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
    await expect(redeem(text, { addresses: ['10.0.0.3'] })).rejects.toMatchObject(used);
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

  it('with another host’s address is refused, and the token stays good', async () => {
    const { text } = await create();
    await expect(redeem(text, { addresses: ['10.0.0.2', '10.0.1.1'] })).rejects.toMatchObject({
      kind: 'precondition',
      reason: 'ADDRESS_IN_USE',
      message: '10.0.1.1 is an address of host "host1", so "host2" cannot have it',
    });
    await redeem(text);
  });

  it.each<[string, () => Partial<JoinRequest>, string]>([
    ['no requests', () => ({ csrs: [] }), 'csrs is [], expected 1 to 8'],
    ['a missing one', () => ({ csrs: csrs.slice(0, 1) }), 'one for CERTIFICATE_PURPOSE_NATS'],
    [
      'nonsense in one',
      () => ({ csrs: [...csrs.slice(0, 1), { purpose: CertificatePurpose.NATS, csrPem: 'x' }] }),
      'csrs[1].csrPem cannot be used',
    ],
    ['no address', () => ({ addresses: [] }), 'addresses is []'],
    ['a name for an address', () => ({ addresses: ['host2'] }), 'addresses[0] is "host2", expected an IP address'],
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
    const attempts = Array.from({ length: 6 }, () =>
      guard.attempt(() => Promise.reject(refusal)).catch((e: unknown) => e),
    );
    const ended: unknown[] = [];
    for (const attempt of attempts) void attempt.then((error) => ended.push(error));
    await clock.advance(499);
    expect(ended.map((each) => (each as { reason?: string }).reason)).toEqual(['JOIN_BUSY', 'JOIN_BUSY']);
    await clock.advance(1);
    expect(ended.slice(2)).toEqual([refusal, refusal, refusal, refusal]);
    await expect(guard.attempt(() => Promise.resolve('in'))).resolves.toBe('in');
  });
});
