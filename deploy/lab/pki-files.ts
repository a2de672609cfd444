// SPDX-License-Identifier: Apache-2.0
// Certificates of a lab, made by what `busbar cluster init` is made of: the same authorities, the same files on each host,
// no authority's key anywhere but sealed.
import { writeFile } from 'node:fs/promises';
import { AUTHORITIES_FILE, type NewFile, pkiFiles, writeTree } from '@busbar/pki/files';
import { foundCluster } from '@busbar/pki/found';
import { ROLES } from '@busbar/pki/role';
import { encodeSealedAuthorities } from '@busbar/pki/sealed-authorities';
import { hostRoot, pkiDir } from './paths.ts';
import type { LabPlan } from './plan.ts';

export async function createPki(plan: LabPlan): Promise<void> {
  const lab = plan.spec.name;
  const cluster = await foundCluster({ name: plan.cluster, now: new Date() });
  const trees: { readonly directory: string; readonly files: readonly NewFile[] }[] = [];
  for (const host of plan.hosts) {
    const { name, management, voter } = host;
    const credentials = await cluster.host({ name, addresses: [management], voter });
    trees.push({ directory: hostRoot(lab, name, '/etc/busbar/pki'), files: pkiFiles(credentials) });
  }
  // One client of each role, named after it, for whoever works with the lab.
  const clients: NewFile[] = Object.entries(cluster.authorities).map(([name, pem]) => ({
    path: `${name}.crt`,
    content: pem,
    secret: false,
  }));
  for (const role of ROLES) {
    const pair = await cluster.client(role, role);
    clients.push({ path: `${role}.crt`, content: pair.certificatePem, secret: false });
    clients.push({ path: `${role}.key`, content: pair.keyPem, secret: true });
  }
  trees.push({ directory: pkiDir(lab), files: clients });
  for (const { directory, files } of trees) await writeTree(directory, files);
  // Last, because it lists every certificate. The first controller that reaches the store takes it over.
  const sealed = encodeSealedAuthorities(cluster.sealed());
  for (const voter of plan.voters) {
    await writeFile(hostRoot(lab, voter.name, `/etc/busbar/pki/${AUTHORITIES_FILE}`), sealed, { mode: 0o600 });
  }
}
