// SPDX-License-Identifier: Apache-2.0
// Certificates of a lab. Three authorities, because each of the servers behind them admits whoever it can verify:
// the cluster's own API, etcd (controllers only: an agent must not be able to write cluster state), and libvirt.
import { randomBytes } from 'node:crypto';
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type CertificateRequest, createAuthority, issue, type KeyPairPem, openAuthority } from '@busbar/pki/authority';
import { identityUri } from '@busbar/pki/identity';
import { ROLES, roleUri } from '@busbar/pki/role';
import { SEAL_KEY_BYTES } from '@busbar/pki/seal';
import { hostRoot, pkiDir } from './paths.ts';
import type { HostPlan, LabPlan } from './plan.ts';

const AUTHORITIES = ['ca', 'etcd-ca', 'libvirt-ca'] as const;
type AuthorityName = (typeof AUTHORITIES)[number];
/** A lab that lives longer is welcome to a new set. */
const AUTHORITY_DAYS = 730;
const CERTIFICATE_DAYS = 365;

async function writePair(directory: string, certificate: string, key: string, pair: KeyPairPem): Promise<void> {
  await mkdir(directory, { recursive: true });
  await writeFile(join(directory, certificate), pair.certificatePem);
  await writeFile(join(directory, key), pair.keyPem, { mode: 0o600 });
}

export async function createPki(plan: LabPlan): Promise<void> {
  const now = new Date();
  const directory = pkiDir(plan.spec.name);
  const issueFrom = async (
    authority: AuthorityName,
    request: Omit<CertificateRequest, 'now' | 'validDays'>,
  ): Promise<KeyPairPem> => {
    const stored = {
      certificatePem: await readFile(join(directory, `${authority}.crt`), 'utf8'),
      keyPem: await readFile(join(directory, `${authority}.key`), 'utf8'),
    };
    return await issue(await openAuthority(stored), { ...request, now, validDays: CERTIFICATE_DAYS });
  };
  for (const name of AUTHORITIES) {
    const pair = await createAuthority({
      commonName: `Busbar lab ${plan.spec.name} ${name}`,
      now,
      validDays: AUTHORITY_DAYS,
    });
    await writePair(directory, `${name}.crt`, `${name}.key`, pair);
  }
  await writeFile(join(directory, 'seal.key'), randomBytes(SEAL_KEY_BYTES), { mode: 0o600 });
  // One client of each role, named after it.
  for (const role of ROLES) {
    const client = {
      commonName: role,
      uris: [identityUri({ kind: 'client', cluster: plan.cluster, client: role }), roleUri(plan.cluster, role)],
      usages: ['clientAuth' as const],
    };
    await writePair(directory, `${role}.crt`, `${role}.key`, await issueFrom('ca', client));
  }
  for (const host of plan.hosts) await createHostPki(plan, host, directory, issueFrom);
}

type IssueFrom = (
  authority: AuthorityName,
  request: Omit<CertificateRequest, 'now' | 'validDays'>,
) => Promise<KeyPairPem>;

async function createHostPki(plan: LabPlan, host: HostPlan, directory: string, issueFrom: IssueFrom): Promise<void> {
  const lab = plan.spec.name;
  const { cluster } = plan;
  const inHost = hostRoot(lab, host.name, '/etc/busbar/pki');
  const usages = ['serverAuth', 'clientAuth'] as const;
  const names = { commonName: host.name, dns: [host.name, 'localhost'], ips: [host.management, '127.0.0.1'], usages };
  const copy = async (authority: AuthorityName, to: string): Promise<void> => {
    await mkdir(join(to, '..'), { recursive: true });
    await writeFile(to, await readFile(join(directory, `${authority}.crt`)));
  };
  await copy('ca', join(inHost, 'ca.crt'));
  const agent = identityUri({ kind: 'host', cluster, host: host.name });
  await writePair(inHost, 'agent.crt', 'agent.key', await issueFrom('ca', { ...names, uris: [agent] }));
  // Names and no identity: whoever takes a NATS server's key can speak as that server, and as nobody else.
  await writePair(inHost, 'nats.crt', 'nats.key', await issueFrom('ca', names));
  if (host.voter) {
    const controller = identityUri({ kind: 'controller', cluster, host: host.name });
    await copy('etcd-ca', join(inHost, 'etcd-ca.crt'));
    await copyFile(join(directory, 'seal.key'), join(inHost, 'seal.key'));
    await writePair(
      inHost,
      'controller.crt',
      'controller.key',
      await issueFrom('ca', { ...names, uris: [controller] }),
    );
    await writePair(inHost, 'etcd.crt', 'etcd.key', await issueFrom('etcd-ca', names));
    await writePair(
      inHost,
      'etcd-client.crt',
      'etcd-client.key',
      await issueFrom('etcd-ca', { ...names, uris: [controller], usages: ['clientAuth'] }),
    );
  }
  if (host.role === 'hypervisor') {
    // The names that libvirt's `pkipath` URI parameter looks for, so that one directory serves both directions.
    const pair = await issueFrom('libvirt-ca', { ...names, keyEncipherment: true });
    const libvirt = hostRoot(lab, host.name, '/etc/libvirt/pki');
    await copy('libvirt-ca', join(libvirt, 'cacert.pem'));
    await writePair(libvirt, 'servercert.pem', 'serverkey.pem', pair);
    await writePair(libvirt, 'clientcert.pem', 'clientkey.pem', pair);
  }
}
