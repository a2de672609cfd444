// SPDX-License-Identifier: Apache-2.0
import { X509Certificate } from 'node:crypto';
import { silentLogger } from '@busbar/core/log';
import { serialsOf } from '@busbar/pki/revocation-list.fixture';
import { RevocationScope, RevokeCertificateRequest } from '@busbar/proto/gen/busbar/v1/certificate';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { type FoundedRig, foundedRig } from '../testing/founded-rig.ts';
import { keepEtcdRevocations } from './etcd-revocations.ts';

let founded: FoundedRig;
beforeEach(async () => {
  founded = await foundedRig();
});
afterEach(() => founded.rig.stop());

const own = (purpose: 'agent' | 'controller' | 'etcd' | 'etcd-client') =>
  new X509Certificate(founded.host1.certificates[purpose]?.certificatePem ?? '').serialNumber.toLowerCase();
const revoke = (serial: string, unrecorded = false, scope: RevocationScope = RevocationScope.CERTIFICATE) =>
  founded.rig.call(
    'CertificateService',
    'revokeCertificate',
    RevokeCertificateRequest.fromPartial({ serial, reason: 'stolen', unrecorded, scope }),
    founded.admin,
  );

/** Keeps a list in memory; `lists` are what was written, as serial numbers. */
function keeping(fails: () => boolean = () => false) {
  const lists: string[][] = [];
  const over = new AbortController();
  const { view, clock } = founded.rig;
  const write = async (list: Uint8Array) => {
    if (fails()) throw new Error('no space left on device');
    lists.push([...serialsOf(list)].sort());
  };
  const ended = keepEtcdRevocations(
    { view, seal: founded.rig.api.seal, clock, logger: silentLogger, write },
    over.signal,
  );
  const passes = async (ms: number) => {
    // Signing is WebCrypto's: real time passes beside the virtual one.
    for (let i = 0; i < 10; i++) {
      await clock.advance(ms / 10);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  };
  return {
    lists,
    passes,
    end: async () => {
      over.abort();
      await passes(1_000);
      await ended;
    },
  };
}

it('writes a list at once, and another when somebody whom etcd would admit is revoked', async () => {
  const kept = keeping();
  await kept.passes(1_000);
  expect(kept.lists).toEqual([[]]);
  await revoke(own('agent')); // no business of etcd
  await kept.passes(2_000);
  expect(kept.lists).toEqual([[]]);
  await revoke(own('etcd-client'));
  await kept.passes(2_000);
  await revoke('abcd', true);
  await kept.passes(2_000);
  expect(kept.lists).toEqual([[], [own('etcd-client')], ['abcd', own('etcd-client')].sort()]);
  await kept.end();
});

it('lists what ends together with a certificate of the API: a stolen voter is shut out by one command', async () => {
  const kept = keeping();
  await revoke(own('controller'), false, RevocationScope.UNSPECIFIED);
  await kept.passes(2_000);
  expect(kept.lists.at(-1)).toEqual([own('etcd'), own('etcd-client')].sort());
  await kept.end();
});

it('tries again when the file cannot be written', async () => {
  let full = true;
  const kept = keeping(() => full);
  await kept.passes(6_000);
  expect(kept.lists).toEqual([]);
  full = false;
  await expect
    .poll(async () => {
      await kept.passes(1_000);
      return kept.lists;
    })
    .toEqual([[]]);
  await kept.end();
});
