// SPDX-License-Identifier: Apache-2.0
import { join } from 'node:path';
import { connect } from 'node:tls';
import { GrpcDialer } from '@busbar/agent/session/grpc-dialer';
import { systemClock } from '@busbar/core/clock/clock';
import { silentLogger } from '@busbar/core/log';
import { openLab } from '@busbar/deploy/lab/lab';
import { hostRoot } from '@busbar/deploy/lab/paths';
import { CONTROLLER_PORT } from '@busbar/deploy/lab/plan';
import type { TlsFiles } from '@busbar/pki/tls/files';
import { renewOnce } from '@busbar/pki/tls/renewal';
import { openTlsSource, type TlsSource } from '@busbar/pki/tls/source';
import { CertificatePurpose } from '@busbar/proto/gen/busbar/v1/certificate';
import { expect, it } from 'vitest';
import { busbarOk, eventually, HOSTS, inside, LAB } from './lab.ts';

/**
 * Goal: every certificate of a host is renewed while it works, and nothing is restarted for it.
 * Method: what the daemons do four months before the end is done now: the same code, with the host's own keys, at the
 * cluster's own authority. Then every server of the host is asked which certificate it shows.
 */
const HOST = 'host1';
const ofHost = (directory: string, ca: string, certificate: string, key: string): TlsFiles => ({
  ca: hostRoot(LAB, HOST, join(directory, ca)),
  certificate: hostRoot(LAB, HOST, join(directory, certificate)),
  key: hostRoot(LAB, HOST, join(directory, key)),
});
const PKI = '/etc/busbar/pki';
const FILES = {
  agent: ofHost(PKI, 'ca.crt', 'agent.crt', 'agent.key'),
  controller: ofHost(PKI, 'ca.crt', 'controller.crt', 'controller.key'),
  etcd: ofHost(PKI, 'etcd-ca.crt', 'etcd.crt', 'etcd.key'),
  etcdClient: ofHost(PKI, 'etcd-ca.crt', 'etcd-client.crt', 'etcd-client.key'),
};

/** The serial number that a server shows to a new connection. */
function shown(address: string, port: number, by: TlsSource, alpn: string[] = []): Promise<string> {
  const { ca, certificate, key } = by.current();
  return new Promise((resolve, reject) => {
    const socket = connect({ host: address, port, ca, cert: certificate, key, servername: HOST, ALPNProtocols: alpn });
    socket.setTimeout(5_000, () => socket.destroy(new Error('no answer')));
    socket.once('error', reject);
    socket.once('secureConnect', () => {
      resolve(socket.getPeerX509Certificate()?.serialNumber ?? '');
      socket.destroy();
    });
  });
}

/** Since when each service runs: another number after a restart. */
const pids = () => inside(HOST, 'sh', '-c', 'sv status controller agent etcd | grep -o "^run: [a-z]*: (pid [0-9]*)"');

it('certificates of a host are renewed and used by its servers without a restart', async () => {
  const plan = await openLab(LAB);
  const address = plan.hosts[0]?.management ?? '';
  const open = (files: TlsFiles) => openTlsSource({ files, clock: systemClock, logger: silentLogger });
  const [agent, controller, etcd, etcdClient] = await Promise.all(Object.values(FILES).map(open));
  const sources = { agent, controller, etcd, etcdClient } as Record<keyof typeof FILES, TlsSource>;
  const former = await pids();
  expect(former.split('\n')).toHaveLength(3);

  const controllers = plan.voters.map((host) => ({
    host: host.name,
    address: `${host.management}:${CONTROLLER_PORT}`,
  }));
  const renewals: [keyof typeof FILES, keyof typeof FILES, CertificatePurpose][] = [
    ['agent', 'agent', CertificatePurpose.AGENT],
    ['etcd', 'controller', CertificatePurpose.ETCD],
    ['etcdClient', 'controller', CertificatePurpose.ETCD_CLIENT],
    ['controller', 'controller', CertificatePurpose.CONTROLLER],
  ];
  for (const [what, by, purpose] of renewals) {
    const before = sources[what].current().serialNumber;
    const dialer = new GrpcDialer({ cluster: plan.cluster, controllers, loadTls: () => sources[by].current() });
    const renewer = { renew: (csr: string, signal: AbortSignal) => dialer.renewCertificate(purpose, csr, signal) };
    const deps = { source: sources[what], files: FILES[what], renewer, logger: silentLogger };
    await renewOnce(deps, AbortSignal.timeout(30_000));
    await dialer.close();
    expect(sources[what].current().serialNumber).not.toBe(before);
  }

  const servers: [keyof typeof FILES, () => Promise<string>][] = [
    ['etcd', () => shown(address, 2379, sources.etcdClient, ['h2'])],
    ['controller', () => shown(address, CONTROLLER_PORT, sources.agent, ['h2'])],
  ];
  for (const [what, ask] of servers) {
    await eventually(`${what} to show its new certificate`, 30_000, async () =>
      (await ask()) === sources[what].current().serialNumber ? true : null,
    );
  }
  const told = await eventually('the daemons to use theirs', 30_000, async () => {
    const lines = await inside(HOST, 'sh', '-c', 'grep -h "a new certificate is in use" /var/log/busbar/*/current');
    const serials = Object.values(sources).map((source) => source.current().serialNumber);
    return serials.every((serial) => lines.includes(serial)) ? lines : null;
  });
  expect(told).toContain('busbar-agent');
  expect(await pids()).toBe(former);
  expect((await busbarOk(['host', 'list'])).match(/ ready /g)).toHaveLength(HOSTS.length);
});
