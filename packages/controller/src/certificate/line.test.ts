// SPDX-License-Identifier: Apache-2.0
/** A stolen certificate: what its thief gets by renewals, and what is left of it after the owner has acted. */
import { createRequest } from '@busbar/pki/csr';
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
import { putRecord } from '../records/kinds.ts';
import { callerWith, type FoundedRig, foundedRig } from '../testing/founded-rig.ts';
import type { Rig } from '../testing/rig.ts';
import { RENEWALS_PER_DAY_MAX, REPLACED_AFTER_MS } from './line.ts';
import { VALID_MAX } from './plan.ts';

const SERVICE = 'CertificateService';
let founded: FoundedRig;
let rig: Rig;
beforeEach(async () => {
  founded = await foundedRig();
  rig = founded.rig;
});
afterEach(() => {
  rig.stop();
});

async function issue(
  client = 'anna',
  role: ClientRole = ClientRole.OPERATOR,
  more: Partial<IssueCertificateRequest> = {},
) {
  const { csrPem } = await createRequest('x');
  const request = IssueCertificateRequest.fromPartial({ csrPem, client, role, ...more });
  const { certificate } = await rig.call<{ certificate: Certificate }>(
    SERVICE,
    'issueCertificate',
    request,
    founded.admin,
  );
  return callerWith(certificate.certificatePem);
}
async function renew(by: Caller, more: Partial<RenewCertificateRequest> = {}) {
  const csrPem = more.csrPem ?? (await createRequest('x')).csrPem;
  const request = RenewCertificateRequest.fromPartial({ ...more, csrPem });
  const { certificate } = await rig.call<{ certificate: Certificate }>(SERVICE, 'renewCertificate', request, by);
  return { ...callerWith(certificate.certificatePem), record: certificate };
}
const serialOf = (caller: Caller) => caller.certificate?.serial ?? '';
const revoke = (caller: Caller, more: Partial<RevokeCertificateRequest> = {}, by: Caller = founded.admin) =>
  rig.call<{ certificate: Certificate; alsoRevoked: Certificate[] }>(
    SERVICE,
    'revokeCertificate',
    RevokeCertificateRequest.fromPartial({ serial: serialOf(caller), reason: 'laptop lost', ...more }),
    by,
  );
async function list(subject: string, caller: Caller = founded.admin) {
  const request = { pageSize: 0, pageToken: '', subject };
  return (await rig.call<{ certificates: Certificate[] }>(SERVICE, 'listCertificates', request, caller)).certificates;
}
/** null when it is let in. */
const refusal = (caller: Caller): Promise<string | null> =>
  list('client/anna', caller).then(
    () => null,
    (error: unknown) => (error as { reason: string }).reason,
  );
/** Lets the controllers write down who was seen. */
async function used(caller: Caller): Promise<void> {
  expect(await refusal(caller)).toBeNull();
  await rig.clock.advance(2_000);
  await rig.run(rig.view.fresh());
}

describe('a renewed certificate', () => {
  it('knows its parent, and its parent knows it', async () => {
    const anna = await issue();
    const next = await renew(anna);
    expect(next.record.parentSerial).toBe(serialOf(anna));
    const [parent] = (await list('client/anna')).filter(({ serial }) => serial === serialOf(anna));
    expect(parent).toMatchObject({ successorSerial: serialOf(next), replaceTime: undefined, parentSerial: '' });
  });

  it('ends its parent ten minutes after it was first used, and not before', async () => {
    const anna = await issue();
    const next = await renew(anna);
    // A daemon that cannot write its file goes on with what it has, for as long as that is valid.
    await rig.clock.advance(86_400_000);
    expect(await refusal(anna)).toBeNull();
    await used(next);
    expect(await refusal(anna)).toBeNull();
    await rig.clock.advance(REPLACED_AFTER_MS);
    expect(await refusal(anna)).toBe('CERTIFICATE_REPLACED');
    expect(await refusal(next)).toBeNull();
    await expect(renew(anna)).rejects.toMatchObject({ reason: 'CERTIFICATE_REPLACED' });
  });

  it('is the only one: a second renewal is refused once the first is used', async () => {
    const anna = await issue();
    const next = await renew(anna);
    await used(next);
    await expect(renew(anna)).rejects.toMatchObject({
      kind: 'precondition',
      reason: 'CERTIFICATE_RENEWED',
      message: expect.stringContaining(serialOf(next)) as string,
    });
    expect((await list('client/anna')).map(({ serial }) => serial).toSorted()).toEqual(
      [serialOf(anna), serialOf(next)].toSorted(),
    );
  });

  it('that was never used gives way to the next: a daemon may die before it has written the answer', async () => {
    const anna = await issue();
    const lost = await renew(anna);
    const next = await renew(anna);
    expect(await refusal(lost)).toBe('CERTIFICATE_REVOKED');
    expect(await refusal(next)).toBeNull();
    expect(await refusal(anna)).toBeNull();
  });

  it('is handed out again to the same key', async () => {
    const anna = await issue();
    const { csrPem } = await createRequest('x');
    const first = await renew(anna, { csrPem });
    await used(first);
    expect((await renew(anna, { csrPem })).record).toEqual(
      (await list('client/anna')).find(({ serial }) => serial === serialOf(first)),
    );
  });

  it('of two renewals at the same time is the only one that counts', async () => {
    const anna = await issue();
    const both = await Promise.all([renew(anna), renew(anna)]);
    const refused = await Promise.all(both.map(refusal));
    expect(refused.filter((each) => each === null)).toHaveLength(1);
  });

  it('in a dry run changes nothing', async () => {
    const anna = await issue();
    const next = await renew(anna);
    const request = RenewCertificateRequest.fromPartial({
      csrPem: (await createRequest('x')).csrPem,
      validateOnly: true,
    });
    await rig.call(SERVICE, 'renewCertificate', request, anna);
    expect(await refusal(next)).toBeNull();
  });
});

describe('a thief who renews what he took', () => {
  it('is out with every copy when the owner’s serial number is revoked', async () => {
    const anna = await issue();
    const chain = [anna];
    for (let i = 0; i < 4; i++) {
      const next = await renew(chain.at(-1) as Caller);
      await used(next);
      chain.push(next);
    }
    const { certificate, alsoRevoked } = await revoke(anna);
    expect(certificate.serial).toBe(serialOf(anna));
    expect(alsoRevoked.map(({ serial }) => serial)).toEqual(chain.slice(1).map(serialOf).toSorted());
    for (const each of chain) expect(await refusal(each)).toBe('CERTIFICATE_REVOKED');
  });

  it('does not keep the owner from renewing another certificate', async () => {
    const [stolen, own] = [await issue(), await issue()];
    for (let i = 0; i < RENEWALS_PER_DAY_MAX; i++) await renew(stolen);
    await expect(renew(stolen)).rejects.toMatchObject({ kind: 'exhausted', reason: 'RENEWED_TOO_OFTEN' });
    await used(await renew(own));
    // Nor an admin from issuing one.
    await issue();
    await rig.clock.advance(86_400_000 + 1_000);
    await renew(stolen);
  }, 60_000);

  it('is out when a machine’s certificate was taken, with what he got for its other servers', async () => {
    const agent = callerWith(founded.host1.certificates.agent?.certificatePem ?? '');
    const nats = await renewRecord(agent, CertificatePurpose.NATS);
    expect(nats).toMatchObject({ parentSerial: serialOf(agent), purpose: CertificatePurpose.NATS });
    await revoke(agent, { scope: RevocationScope.LINE });
    const [recorded] = (await list('host/host1')).filter(({ serial }) => serial === nats.serial);
    expect(recorded?.revokeTime).toBeDefined();
  });

  it('wins no race against the revocation', async () => {
    const anna = await issue();
    const [stolen, gone] = await Promise.allSettled([renew(anna), revoke(anna)]);
    expect(gone.status).toBe('fulfilled');
    if (stolen.status === 'fulfilled') expect(await refusal(stolen.value)).toBe('CERTIFICATE_REVOKED');
    else expect(stolen.reason).toMatchObject({ reason: 'CERTIFICATE_REVOKED' });
  });
});

describe('what a revocation takes along', () => {
  it.each<[string, RevocationScope | undefined, readonly ('line' | 'other' | 'bert')[]]>([
    ['by default: all of the holder', undefined, ['line', 'other']],
    ['holder', RevocationScope.HOLDER, ['line', 'other']],
    ['line', RevocationScope.LINE, ['line']],
    ['certificate', RevocationScope.CERTIFICATE, []],
  ])('%s', async (_name, scope, taken) => {
    const anna = await issue();
    const line = await renew(anna);
    await used(line);
    const [other, bert] = [await issue(), await issue('bert')];
    const all = { line, other, bert };
    const { alsoRevoked } = await revoke(anna, scope === undefined ? {} : { scope });
    expect(await refusal(anna)).toBe('CERTIFICATE_REVOKED');
    for (const [name, each] of Object.entries(all))
      expect(await refusal(each)).toBe(taken.includes(name as 'line') ? 'CERTIFICATE_REVOKED' : null);
    expect(alsoRevoked.map(({ serial }) => serial)).toEqual(taken.map((name) => serialOf(all[name])).toSorted());
    for (const each of alsoRevoked) expect(each).toMatchObject({ revokedBy: 'client/admin' });
  });

  it('is the ancestors’ other descendants, too', async () => {
    const controller = callerWith(founded.host1.certificates.controller?.certificatePem ?? '');
    const etcd = await renewRecord(controller, CertificatePurpose.ETCD);
    const client = await renewRecord(controller, CertificatePurpose.ETCD_CLIENT);
    const request = RevokeCertificateRequest.fromPartial({ serial: etcd.serial, scope: RevocationScope.LINE });
    const { alsoRevoked } = await rig.call<{ alsoRevoked: Certificate[] }>(
      SERVICE,
      'revokeCertificate',
      request,
      founded.admin,
    );
    expect(alsoRevoked.map(({ serial }) => serial)).toEqual([serialOf(controller), client.serial].toSorted());
  });

  it('is not what has ended', async () => {
    const short = await issue('anna', ClientRole.VIEWER, { validDays: 1 });
    const anna = await issue();
    await rig.clock.advance(2 * 86_400_000);
    expect((await revoke(anna)).alsoRevoked).toEqual([]);
    const [old] = (await list('client/anna')).filter(({ serial }) => serial === serialOf(short));
    expect(old?.revokeTime).toBeUndefined();
  });

  it('is never the certificate in hand: somebody must be left who can', async () => {
    const twin = await issue('admin', ClientRole.ADMIN);
    for (const scope of [RevocationScope.UNSPECIFIED, RevocationScope.HOLDER])
      await expect(revoke(twin, { scope })).rejects.toMatchObject({ reason: 'CERTIFICATE_IN_USE' });
    const own = await renew(founded.admin);
    await expect(revoke(own, { scope: RevocationScope.LINE })).rejects.toMatchObject({ reason: 'CERTIFICATE_IN_USE' });
    expect((await revoke(twin, { scope: RevocationScope.CERTIFICATE })).alsoRevoked).toEqual([]);
  });

  it('is shown by a dry run, which changes nothing', async () => {
    const [anna, other] = [await issue(), await issue()];
    const { alsoRevoked } = await revoke(anna, { validateOnly: true });
    expect(alsoRevoked.map(({ serial }) => serial)).toEqual([serialOf(other)]);
    expect([await refusal(anna), await refusal(other)]).toEqual([null, null]);
  });

  it('is what was forgotten the first time', async () => {
    const [anna, other] = [await issue(), await issue()];
    const { certificate } = await revoke(anna, { scope: RevocationScope.CERTIFICATE });
    const again = await revoke(anna);
    expect(again.certificate).toEqual(certificate);
    expect(again.alsoRevoked.map(({ serial }) => serial)).toEqual([serialOf(other)]);
  });

  it('is more than one transaction holds', async () => {
    const anna = await issue();
    const record = rig.view.tables.certificate.get(serialOf(anna))?.record.certificate as Certificate;
    const many = Array.from({ length: 250 }, (_, i) => ({ ...record, serial: `f${String(i).padStart(4, '0')}` }));
    for (let i = 0; i < many.length; i += 100)
      await rig.run(
        rig.api.store.txn({
          compare: [],
          writes: many
            .slice(i, i + 100)
            .map((certificate) => putRecord('certificate', certificate.serial, { certificate })),
        }),
      );
    await rig.run(rig.view.fresh());
    expect((await revoke(anna)).alsoRevoked).toHaveLength(250);
    expect((await list('client/anna')).filter(({ revokeTime }) => revokeTime === undefined)).toEqual([]);
  });
});

describe('records of before', () => {
  it('are read, and while one of them was renewed its line is its holder', async () => {
    const [anna, other, renewed] = [await issue(), await issue(), await issue()];
    // As an older version wrote it: renewed by its holder, from nobody knows which.
    const key = `busbar/certificate/${serialOf(renewed)}`;
    const text = (await rig.stored()).get(key) ?? '';
    expect(text).not.toMatch(/parent|successor|replace|firstUse/);
    const value = text.replace('"issuedBy":"client/admin"', '"issuedBy":"client/anna"');
    await rig.run(rig.api.store.txn({ compare: [], writes: [{ kind: 'put', key, value }] }));
    await rig.run(rig.view.fresh());
    const { alsoRevoked } = await revoke(anna, { scope: RevocationScope.LINE });
    expect(alsoRevoked.map(({ serial }) => serial)).toEqual([serialOf(other), serialOf(renewed)].toSorted());
  });

  it('that are missing are made at a renewal, so that a forged one has one successor as well', async () => {
    const anna = await issue();
    await rig.run(
      rig.api.store.txn({ compare: [], writes: [{ kind: 'delete', key: `busbar/certificate/${serialOf(anna)}` }] }),
    );
    await rig.run(rig.view.fresh());
    const next = await renew(anna);
    await used(next);
    await expect(renew(anna)).rejects.toMatchObject({ reason: 'CERTIFICATE_RENEWED' });
    await revoke(next);
    expect(await refusal(anna)).toBe('CERTIFICATE_REVOKED');
  });
});

describe('the number of valid ones', () => {
  it('counts what was issued, not what was renewed', async () => {
    const own = await issue();
    for (let i = 0; i < VALID_MAX - 1; i++) await issue();
    await expect(issue()).rejects.toMatchObject({ reason: 'CERTIFICATE_TOO_MANY' });
    await used(await renew(own));
  });
});

async function renewRecord(by: Caller, purpose: CertificatePurpose): Promise<Certificate> {
  const request = RenewCertificateRequest.fromPartial({ csrPem: (await createRequest('x')).csrPem, purpose });
  return (await rig.call<{ certificate: Certificate }>(SERVICE, 'renewCertificate', request, by)).certificate;
}
