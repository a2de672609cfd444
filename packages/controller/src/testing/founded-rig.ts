// SPDX-License-Identifier: Apache-2.0
import { X509Certificate } from 'node:crypto';
import { silentLogger } from '@busbar/core/log';
import { foundCluster, type HostCredentials, type NewCluster } from '@busbar/pki/found';
import { callerOf, presented } from '../api/authenticate.ts';
import type { Caller } from '../api/call.ts';
import { takeOverAuthorities } from '../certificate/take-over.ts';
import { Rig } from './rig.ts';

/** A rig whose cluster was made by the product's own `cluster init`, with its first host and an admin. */
export interface FoundedRig {
  readonly rig: Rig;
  readonly cluster: NewCluster;
  readonly host1: HostCredentials;
  readonly admin: Caller;
}

export async function foundedRig(now = new Date('2030-01-01T00:00:00Z'), since = now): Promise<FoundedRig> {
  const cluster = await foundCluster({ name: 'test', now: since });
  const host1 = await cluster.host({ name: 'host1', addresses: ['10.0.0.1'], voter: true });
  const admin = callerWith((await cluster.client('admin', 'admin')).certificatePem);
  const rig = new Rig(1, now, host1.sealKey ?? undefined);
  rig.usesCrypto = true;
  await rig.start();
  const { store, clock } = rig.api;
  const deps = { store, clock, logger: silentLogger };
  await rig.run(takeOverAuthorities(deps, cluster.sealed(), new AbortController().signal));
  await rig.run(rig.view.fresh());
  return { rig, cluster, host1, admin };
}

/** The caller that a transport makes of a certificate. */
export function callerWith(certificatePem: string): Caller {
  const certificate = new X509Certificate(certificatePem);
  const { serialNumber, subjectAltName, validFrom, validTo } = certificate;
  const peer = { serialNumber, subjectaltname: subjectAltName, valid_from: validFrom, valid_to: validTo };
  const caller = callerOf(presented(peer), 'test');
  if (caller === null) throw new Error(`${subjectAltName} is nobody`);
  return caller;
}
