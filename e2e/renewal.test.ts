// SPDX-License-Identifier: Apache-2.0
/**
 * Goal: the daemons get successors of their certificates from the cluster's own authority.
 * Method: the real gRPC server, dialer, API and authority over TLS; only the store and the clock are simulated.
 */
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GrpcDialer } from '@busbar/agent/session/grpc-dialer';
import { grpcServer } from '@busbar/controller/api/grpc-server';
import { takeOverAuthorities } from '@busbar/controller/certificate/take-over';
import { Rig } from '@busbar/controller/testing/rig';
import { ownRenewer } from '@busbar/controller/tls/renewer';
import { systemClock } from '@busbar/core/clock/clock';
import { silentLogger } from '@busbar/core/log';
import { PKI_FILES, pkiFiles, writeTree } from '@busbar/pki/files';
import { foundCluster } from '@busbar/pki/found';
import { canonicalSerial } from '@busbar/pki/purpose';
import { openSeal } from '@busbar/pki/seal';
import { renewOnce } from '@busbar/pki/tls/renewal';
import { openTlsSource } from '@busbar/pki/tls/source';
import { CertificatePurpose, RevocationScope, RevokeCertificateRequest } from '@busbar/proto/gen/busbar/v1/certificate';
import { afterEach, beforeEach, expect, test } from 'vitest';

const DAY_MS = 86_400_000;
const ends: (() => void)[] = [];
let rig: Rig;
let files: Record<'agent' | 'controller' | 'etcd-client', { ca: string; certificate: string; key: string }>;

beforeEach(async () => {
  rig = new Rig(1, new Date());
  const cluster = await foundCluster({ name: 'test', now: new Date(Date.now() - 10 * DAY_MS) });
  const host = await cluster.host({ name: 'host1', addresses: ['127.0.0.1'], voter: true });
  Object.assign(rig.api, { seal: openSeal(host.sealKey as Uint8Array) });
  await rig.start();
  const { store, clock } = rig.api;
  const taken = takeOverAuthorities(
    { store, clock, logger: silentLogger },
    cluster.sealed(),
    new AbortController().signal,
  );
  await rig.run(taken);
  await rig.run(rig.view.fresh());
  const parent = mkdtempSync(join(tmpdir(), 'busbar-renewal-'));
  const directory = join(parent, 'pki');
  await writeTree(directory, pkiFiles(host));
  const of = (purpose: keyof typeof PKI_FILES, ca: string) => ({
    ca: join(directory, ca),
    certificate: join(directory, PKI_FILES[purpose].certificate),
    key: join(directory, PKI_FILES[purpose].key),
  });
  files = {
    agent: of('agent', 'ca.crt'),
    controller: of('controller', 'ca.crt'),
    'etcd-client': of('etcd-client', 'etcd-ca.crt'),
  };
  const ticking = setInterval(() => void rig.clock.advance(5), 1);
  ends.push(
    () => rmSync(parent, { recursive: true, force: true }),
    () => rig.stop(),
    () => clearInterval(ticking),
  );
});
afterEach(() => {
  for (const end of ends.splice(0).reverse()) end();
});

const open = (purpose: keyof typeof files) =>
  openTlsSource({ files: files[purpose], clock: systemClock, logger: silentLogger });
const limit = () => AbortSignal.timeout(20_000);

/** As the cluster knows it, by what lies in the file now. */
function recorded(purpose: keyof typeof files) {
  const { serialNumber } = new X509Certificate(readFileSync(files[purpose].certificate));
  return rig.view.tables.certificate.get(canonicalSerial(serialNumber))?.record.certificate;
}

test('an agent renews its certificate at a controller, and the next connection shows the new one', async () => {
  const server = grpcServer({
    cluster: 'test',
    services: rig.services,
    sessions: rig.api.sessions,
    trail: rig.trail,
    admission: rig.admission,
    tls: await open('controller'),
    clock: systemClock,
    logger: silentLogger,
  });
  ends.push(() => server.close());
  const port = await server.listen('127.0.0.1:0');
  const source = await open('agent');
  const former = recorded('agent');
  // The first controller is not there: the second one does it.
  const controllers = [
    { host: 'host2', address: '127.0.0.1:1' },
    { host: 'host1', address: `127.0.0.1:${port}` },
  ];
  const dialer = new GrpcDialer({ cluster: 'test', controllers, loadTls: () => source.current() });
  ends.push(() => void dialer.close());
  const renewer = {
    renew: (csr: string, signal: AbortSignal) => dialer.renewCertificate(CertificatePurpose.AGENT, csr, signal),
    async prove(csr: string, signal: AbortSignal) {
      await dialer.renewCertificate(CertificatePurpose.AGENT, csr, signal, { validateOnly: true });
    },
  };
  const renew = () => renewOnce({ source, files: files.agent, renewer, logger: silentLogger }, limit());
  await renew();
  const second = recorded('agent');
  expect(second).toMatchObject({ subject: 'host/host1', purpose: CertificatePurpose.AGENT, issuedBy: 'host/host1' });
  expect(second?.serial).not.toBe(former?.serial);
  expect(second?.notAfter?.getTime()).toBeGreaterThan(former?.notAfter?.getTime() ?? 0);

  // It is used at once, so that nobody else can renew the former one, which ends soon.
  await expect.poll(() => recorded('agent')?.firstUseTime).toBeDefined();
  expect(rig.view.tables.certificate.get(former?.serial ?? '')?.record.certificate).toMatchObject({
    successorSerial: second?.serial,
    replaceTime: expect.any(Date) as Date,
  });

  // Whoever holds the former one only cannot go on once that is revoked; who renewed does.
  const revoke = (serial: string | undefined) =>
    RevokeCertificateRequest.fromPartial({ serial: serial ?? '', scope: RevocationScope.CERTIFICATE });
  await rig.call('CertificateService', 'revokeCertificate', revoke(former?.serial));
  await new Promise((resolve) => setTimeout(resolve, 1_100)); // certificates end at whole seconds
  await renew();
  expect(recorded('agent')?.serial).not.toBe(second?.serial);
  await rig.call('CertificateService', 'revokeCertificate', revoke(recorded('agent')?.serial));
  await expect(renew()).rejects.toThrow(/was revoked/);
}, 30_000);

test.each([
  ['controller', CertificatePurpose.CONTROLLER],
  ['etcd-client', CertificatePurpose.ETCD_CLIENT],
] as const)(
  'a controller renews its %s certificate by its own API',
  async (name, purpose) => {
    const gate = rig.gate();
    const identity = await open('controller');
    const source = name === 'controller' ? identity : await open(name);
    const renewer = ownRenewer({ cluster: 'test', services: rig.services, gate, identity }, purpose);
    const before = source.current();
    await renewOnce({ source, files: files[name], renewer, logger: silentLogger }, limit());
    expect(recorded(name)).toMatchObject({ subject: 'controller/host1', purpose });
    expect(source.current().serialNumber).not.toBe(before.serialNumber);
    expect(source.current().names).toBe(before.names);
  },
  30_000,
);
