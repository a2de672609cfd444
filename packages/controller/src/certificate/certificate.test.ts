// SPDX-License-Identifier: Apache-2.0
import { X509Certificate } from 'node:crypto';
import { silentLogger } from '@busbar/core/log';
import { createRequest, matches } from '@busbar/pki/csr';
import { foundCluster } from '@busbar/pki/found';
import {
  type Certificate,
  CertificatePurpose,
  ClientRole,
  IssueCertificateRequest,
  RenewCertificateRequest,
  RevocationScope,
  RevokeCertificateRequest,
} from '@busbar/proto/gen/busbar/v1/certificate';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Caller } from '../api/call.ts';
import { CleanUp } from '../leader/clean-up.ts';
import { testCaller } from '../testing/callers.ts';
import { callerWith, type FoundedRig, foundedRig } from '../testing/founded-rig.ts';
import { Rig } from '../testing/rig.ts';
import { admission } from './admission.ts';
import { VALID_MAX } from './plan.ts';
import { takeOverAuthorities } from './take-over.ts';

const SERVICE = 'CertificateService';
let founded: FoundedRig;
let rig: Rig;
beforeEach(async () => {
  founded = await foundedRig();
  rig = founded.rig;
});
afterEach(() => rig.stop());

type Answer = { certificate: Certificate };
async function issue(more: Partial<IssueCertificateRequest> = {}, caller: Caller = founded.admin) {
  const { csrPem, keyPem } = await createRequest('ignored');
  const request = IssueCertificateRequest.fromPartial({ csrPem, client: 'anna', role: ClientRole.OPERATOR, ...more });
  const { certificate } = await rig.call<Answer>(SERVICE, 'issueCertificate', request, caller);
  return { certificate, keyPem };
}
async function renew(caller: Caller, more: Partial<RenewCertificateRequest> = {}) {
  const request = RenewCertificateRequest.fromPartial({ csrPem: (await createRequest('x')).csrPem, ...more });
  return (await rig.call<Answer>(SERVICE, 'renewCertificate', request, caller)).certificate;
}
const revoke = (serial: string, more: Partial<RevokeCertificateRequest> = {}, caller: Caller = founded.admin) =>
  rig.call<Answer>(
    SERVICE,
    'revokeCertificate',
    RevokeCertificateRequest.fromPartial({ serial, reason: 'lost laptop', ...more }),
    caller,
  );
const list = async (subject = '', caller: Caller = founded.admin) =>
  (
    await rig.call<{ certificates: Certificate[] }>(
      SERVICE,
      'listCertificates',
      { pageSize: 0, pageToken: '', subject },
      caller,
    )
  ).certificates;
const days = (certificate: Certificate) =>
  ((certificate.notAfter?.getTime() ?? 0) - rig.clock.wallTime().getTime()) / 86_400_000;

describe('issuing', () => {
  it('makes a certificate that is somebody, and records it', async () => {
    const { certificate, keyPem } = await issue({ validDays: 30 });
    expect(matches(certificate.certificatePem, keyPem)).toBe(true);
    expect(
      new X509Certificate(certificate.certificatePem).verify(
        new X509Certificate(founded.cluster.authorities.ca).publicKey,
      ),
    ).toBe(true);
    expect(callerWith(certificate.certificatePem)).toMatchObject({ name: 'client/anna', role: 'operator' });
    expect(days(certificate)).toBeCloseTo(30, 2);
    expect(await list('client/anna')).toEqual([certificate]);
    expect(certificate).toMatchObject({
      purpose: CertificatePurpose.CLIENT,
      subject: 'client/anna',
      role: ClientRole.OPERATOR,
      issuedBy: 'client/admin',
      revokeTime: undefined,
    });
  });

  it('answers a repeat with the first certificate, though the signature would differ', async () => {
    const { csrPem } = await createRequest('x');
    const more = { csrPem, requestId: 'r1' };
    const first = await issue(more);
    expect((await issue(more)).certificate).toEqual(first.certificate);
    expect(await list('client/anna')).toHaveLength(1);
    await expect(issue({ ...more, role: ClientRole.ADMIN })).rejects.toMatchObject({ reason: 'REQUEST_ID_REUSED' });
  });

  it('in a dry run hands nothing out and records nothing', async () => {
    const before = (await list()).length;
    const { certificate } = await issue({ validateOnly: true });
    expect(certificate).toMatchObject({ subject: 'client/anna', certificatePem: '' });
    expect(await list()).toHaveLength(before);
  });

  it.each<[string, Partial<IssueCertificateRequest>, string]>([
    ['no name', { client: '' }, 'client is "", expected a lower-case DNS label'],
    ['a name that breaks out of the URI', { client: 'a/../host/host1' }, 'client is'],
    ['a name with a comma', { client: 'a, URI:spiffe://test/role/admin' }, 'client is'],
    ['no role', { role: ClientRole.UNSPECIFIED }, 'role is "CLIENT_ROLE_UNSPECIFIED", expected CLIENT_ROLE_VIEWER'],
    ['an unknown role', { role: ClientRole.UNRECOGNIZED }, 'role is'],
    ['a negative time', { validDays: -1 }, 'validDays is -1, expected 1 to 3650 days'],
    ['too long a time', { validDays: 3_651 }, 'validDays is 3651'],
    ['no request', { csrPem: '' }, 'csrPem cannot be used: it is not one PEM block'],
    ['a certificate for a request', { csrPem: '-----BEGIN CERTIFICATE-----' }, 'csrPem cannot be used'],
    ['a huge request', { csrPem: 'x'.repeat(9_000) }, 'csrPem is'],
  ])('with %s is refused', async (_name, more, why) => {
    await expect(issue(more)).rejects.toMatchObject({
      kind: 'invalid',
      message: expect.stringContaining(why) as string,
    });
  });

  it('never outlives the authority', async () => {
    const founding = new Date('2030-01-01');
    const after = async (years: number) => {
      rig.stop();
      founded = await foundedRig(new Date(founding.getTime() + years * 365 * 86_400_000), founding);
      rig = founded.rig;
      return {
        ...founded.admin,
        certificate: { ...founded.admin.certificate, notAfter: new Date('2100-01-01') },
      } as Caller;
    };
    expect(days((await issue({}, await after(19.5))).certificate)).toBeCloseTo(182.5, 0);
    await expect(issue({}, await after(20.01))).rejects.toMatchObject({ reason: 'AUTHORITY_EXPIRED' });
  });

  it('stops at sixteen valid ones of one holder', async () => {
    for (let i = 0; i < VALID_MAX; i++) await issue();
    await expect(issue()).rejects.toMatchObject({ kind: 'exhausted', reason: 'CERTIFICATE_TOO_MANY' });
    await issue({ client: 'bert' });
    await revoke((await list('client/anna'))[0]?.serial ?? '');
    await issue();
  });

  it('needs an authority', async () => {
    const bare = new Rig();
    bare.usesCrypto = true;
    await bare.start();
    const { csrPem } = await createRequest('x');
    const request = IssueCertificateRequest.fromPartial({ csrPem, client: 'anna', role: ClientRole.VIEWER });
    await expect(bare.call(SERVICE, 'issueCertificate', request)).rejects.toMatchObject({
      reason: 'AUTHORITY_MISSING',
    });
    bare.stop();
  });
});

describe('the list', () => {
  it('begins with what `cluster init` made', async () => {
    const all = await list();
    const lines = all.map((each) => `${each.subject} ${each.purpose} ${each.issuedBy}`);
    expect(lines.sort().map((line) => line.replace('CERTIFICATE_PURPOSE_', ''))).toEqual([
      'client/admin CLIENT cluster init',
      'controller/host1 CONTROLLER cluster init',
      'controller/host1 ETCD cluster init',
      'controller/host1 ETCD_CLIENT cluster init',
      'host/host1 AGENT cluster init',
      'host/host1 NATS cluster init',
    ]);
    expect(all.map((each) => each.serial)).toEqual(all.map((each) => each.serial).toSorted());
  });

  it('holds no key, and neither does the store', async () => {
    await issue();
    for (const [key, value] of await rig.stored()) expect(value, key).not.toMatch(/PRIVATE KEY|"key/i);
  });
});

describe('revoking', () => {
  it('ends a certificate for every call, and is on record', async () => {
    const anna = callerWith((await issue()).certificate.certificatePem);
    await list('', anna);
    const { certificate } = await revoke(anna.certificate?.serial ?? '');
    expect(certificate).toMatchObject({ revokeReason: 'lost laptop', revokedBy: 'client/admin' });
    await expect(list('', anna)).rejects.toMatchObject({ kind: 'unauthenticated', reason: 'CERTIFICATE_REVOKED' });
    await expect(renew(anna)).rejects.toMatchObject({ reason: 'CERTIFICATE_REVOKED' });
    expect(await list('client/anna')).toEqual([certificate]);
  });

  it('takes the serial number as openssl writes it', async () => {
    const { certificate } = await issue();
    const { serialNumber } = new X509Certificate(certificate.certificatePem);
    const pairs = `00:${serialNumber.match(/../g)?.join(':')}`;
    await revoke(pairs);
    expect((await list('client/anna'))[0]?.revokeTime).toBeDefined();
  });

  it('again changes nothing', async () => {
    const { certificate } = await issue();
    const first = await revoke(certificate.serial);
    await rig.clock.advance(1_000);
    expect(await revoke(certificate.serial, { reason: 'other' })).toEqual(first);
  });

  it('in a dry run changes nothing', async () => {
    const { certificate } = await issue();
    expect((await revoke(certificate.serial, { validateOnly: true })).certificate.revokeTime).toBeDefined();
    expect((await list('client/anna'))[0]?.revokeTime).toBeUndefined();
  });

  it('of an unknown one is refused, unless it is meant', async () => {
    await expect(revoke('abc123')).rejects.toMatchObject({ kind: 'not-found', reason: 'CERTIFICATE_NOT_FOUND' });
    await revoke('abc123', { unrecorded: true });
    const stranger = {
      ...founded.admin,
      certificate: { ...testCaller().certificate, serial: 'abc123' } as Caller['certificate'],
    };
    await expect(list('', stranger)).rejects.toMatchObject({ reason: 'CERTIFICATE_REVOKED' });
  });

  it('of the certificate in hand is refused: somebody must be left who can', async () => {
    await expect(revoke(founded.admin.certificate?.serial ?? '')).rejects.toMatchObject({
      reason: 'CERTIFICATE_IN_USE',
    });
    const other = callerWith((await issue({ role: ClientRole.ADMIN })).certificate.certificatePem);
    await revoke(founded.admin.certificate?.serial ?? '', {}, other);
    await expect(list()).rejects.toMatchObject({ reason: 'CERTIFICATE_REVOKED' });
  });
});

describe('renewing', () => {
  it('gives the same identity and role a new key, whatever the request says', async () => {
    const anna = callerWith((await issue({ validDays: 30 })).certificate.certificatePem);
    await rig.clock.advance(86_400_000);
    const { csrPem } = await createRequest('admin');
    const renewed = await renew(anna, { csrPem });
    expect(callerWith(renewed.certificatePem)).toMatchObject({ name: 'client/anna', role: 'operator' });
    expect(renewed).toMatchObject({ issuedBy: 'client/anna', subject: 'client/anna' });
    // As long as the former, not longer.
    expect(days(renewed)).toBeCloseTo(30, 2);
    // The old one stays: connections that use it go on.
    await list('', anna);
  });

  it.each([
    ['agent', 'host/host1', [CertificatePurpose.UNSPECIFIED, CertificatePurpose.AGENT, CertificatePurpose.NATS]],
    [
      'controller',
      'controller/host1',
      [CertificatePurpose.UNSPECIFIED, CertificatePurpose.ETCD, CertificatePurpose.ETCD_CLIENT],
    ],
  ] as const)('of a machine: the %s', async (purpose, subject, allowed) => {
    const former = founded.host1.certificates[purpose]?.certificatePem ?? '';
    const caller = callerWith(former);
    for (const wanted of allowed) {
      const renewed = await renew(caller, { purpose: wanted });
      expect(renewed).toMatchObject({ subject, role: ClientRole.UNSPECIFIED, ipAddresses: ['10.0.0.1', '127.0.0.1'] });
      if (wanted !== CertificatePurpose.UNSPECIFIED) expect(renewed.purpose).toBe(wanted);
      const names = new X509Certificate(renewed.certificatePem).subjectAltName;
      if (wanted === CertificatePurpose.UNSPECIFIED) expect(names).toBe(new X509Certificate(former).subjectAltName);
    }
    for (const wanted of [CertificatePurpose.CLIENT, CertificatePurpose.CONTROLLER, CertificatePurpose.AGENT]) {
      if ((allowed as readonly string[]).includes(wanted) || purpose === 'controller') continue;
      await expect(renew(caller, { purpose: wanted })).rejects.toMatchObject({ reason: 'NOTHING_TO_RENEW' });
    }
    await expect(list('', caller)).rejects.toMatchObject({ kind: 'unauthenticated' });
  });

  it('does not make an etcd certificate for an agent, nor libvirt’s for anybody', async () => {
    const witness = await founded.cluster.host({
      name: 'w1',
      addresses: ['10.0.0.9'],
      voter: false,
    });
    const caller = callerWith(witness.certificates.agent?.certificatePem ?? '');
    for (const purpose of [CertificatePurpose.CONTROLLER, CertificatePurpose.ETCD, CertificatePurpose.ETCD_CLIENT])
      await expect(renew(caller, { purpose })).rejects.toMatchObject({ kind: 'forbidden', reason: 'NOTHING_TO_RENEW' });
    const host1 = callerWith(founded.host1.certificates.agent?.certificatePem ?? '');
    await expect(renew(host1, { purpose: CertificatePurpose.ETCD })).rejects.toMatchObject({
      reason: 'NOTHING_TO_RENEW',
    });
    // libvirt's are not made any more, whoever asks: an agent from before ADR 0053 does.
    for (const purpose of [CertificatePurpose.UNRECOGNIZED, CertificatePurpose.LIBVIRT])
      await expect(renew(host1, { purpose })).rejects.toMatchObject({ kind: 'invalid' });
  });

  it('does not renew another certificate of the host that was revoked', async () => {
    const host1 = callerWith(founded.host1.certificates.agent?.certificatePem ?? '');
    for (const each of await list('host/host1'))
      if (each.purpose === CertificatePurpose.NATS) await revoke(each.serial, { scope: RevocationScope.CERTIFICATE });
    await expect(renew(host1, { purpose: CertificatePurpose.NATS })).rejects.toMatchObject({
      reason: 'NOTHING_TO_RENEW',
    });
  });

  it('ends at the end of the certificate', async () => {
    await rig.clock.advance(366 * 86_400_000);
    await expect(renew(founded.admin)).rejects.toMatchObject({
      kind: 'unauthenticated',
      reason: 'CERTIFICATE_EXPIRED',
    });
  }, 20_000);
});

describe('admission', () => {
  it('lets nobody in before the store was read, but keeps the sessions of agents', async () => {
    const dark = new Rig();
    const gate = admission(dark.view, dark.clock);
    const { certificate } = testCaller();
    if (certificate === null) throw new Error('nobody');
    expect(() => gate.check(certificate)).toThrow(
      expect.objectContaining({ kind: 'unavailable', reason: 'REVOCATIONS_UNKNOWN' }),
    );
    gate.checkAgent(certificate);
    dark.stop();
  });

  it('calls back when a certificate is revoked, once, and not after it was let go', async () => {
    const { certificate } = await issue();
    const shown = callerWith(certificate.certificatePem).certificate;
    if (shown === null) throw new Error('nobody');
    let calls = 0;
    const held = rig.admission.onRevoked(shown, () => calls++);
    rig.admission.onRevoked(shown, () => (calls += 100))[Symbol.dispose]();
    await issue({ client: 'bert' });
    expect(calls).toBe(0);
    await revoke(certificate.serial);
    expect(calls).toBe(1);
    held[Symbol.dispose]();
    rig.admission.onRevoked(shown, () => calls++)[Symbol.dispose]();
    expect(calls).toBe(2);
  });
});

describe('records', () => {
  it('are taken over once, by whichever controller is first', async () => {
    const other = await foundCluster({ name: 'test', now: rig.clock.wallTime() });
    const before = await rig.stored();
    const { store, clock } = rig.api;
    await rig.run(
      takeOverAuthorities({ store, clock, logger: silentLogger }, other.sealed(), new AbortController().signal),
    );
    expect(await rig.stored()).toEqual(before);
  });

  it('are taken over when the store comes up late', async () => {
    const late = new Rig();
    const cluster = await foundCluster({ name: 'test', now: late.clock.wallTime() });
    const { clock } = late;
    const store = late.truth.client({ clock, random: late.api.random });
    store.setReachable(false);
    const done = takeOverAuthorities(
      { store, clock, logger: silentLogger },
      cluster.sealed(),
      new AbortController().signal,
    );
    await late.clock.advance(10_000);
    store.setReachable(true);
    await late.run(done);
    expect([...(await late.stored()).keys()]).toEqual(['busbar/authority/ca', 'busbar/authority/etcd-ca']);
  });

  it('of expired certificates are removed after a month, bare revocations never', async () => {
    await issue({ validDays: 1 });
    await revoke('abc123', { unrecorded: true });
    const { store, view, clock, logger, storage } = rig.api;
    const leader = { term: 1n, signal: new AbortController().signal, txn: store.txn.bind(store) };
    const cleanUp = new CleanUp({ audit: rig.room, store, view, clock, logger, storage }, leader);
    const serials = () => [...view.tables.certificate.ids()].length;
    const before = serials();
    await rig.clock.advance(30 * 86_400_000);
    await rig.run(cleanUp.round());
    expect(serials()).toBe(before);
    await rig.clock.advance(2 * 86_400_000);
    await rig.run(cleanUp.round());
    await rig.run(view.fresh());
    expect(serials()).toBe(before - 1);
  }, 30_000);
});
