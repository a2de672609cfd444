// SPDX-License-Identifier: Apache-2.0
/** `busbar cluster init`: on the first host, before anything runs. Asks nobody. */
import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { AUTHORITIES_FILE, writeTree } from '@busbar/pki/files';
import { foundCluster } from '@busbar/pki/found';
import { isIdentityName } from '@busbar/pki/identity';
import { encodeSealedAuthorities } from '@busbar/pki/sealed-authorities';
import { usageError } from '../cli/exit.ts';
import type { Session } from '../cli/session.ts';
import { addContext } from '../config/edit.ts';
import { configPath, readConfig } from '../config/file.ts';
import { ipFlag } from '../host/addresses.ts';
import { API_PORT, bracketed, type HostSetup, hostTree } from '../join/skeleton.ts';
import { note, print } from '../output/print.ts';

export interface InitOptions {
  readonly name: string;
  readonly host: string;
  readonly managementAddress: string;
  readonly storageAddress?: string;
  readonly dir: string;
}

export async function init(session: Session, options: InitOptions): Promise<void> {
  session.doing = `make cluster ${options.name}`;
  const { io } = session;
  for (const [flag, value] of [
    ['--name', options.name],
    ['--host', options.host],
  ] as const) {
    if (!isIdentityName(value)) {
      const rule = 'names are 1 to 63 lower-case letters, digits and hyphens, not beginning or ending with a hyphen';
      throw usageError(`${flag} ${value} is not allowed`, rule, 'choose another name');
    }
  }
  const directory = resolve(io.directory, options.dir);
  const managementAddress = ipFlag('--management-address', options.managementAddress);
  const storageAddress = ipFlag('--storage-address', options.storageAddress ?? managementAddress);
  const config = configPath(io);
  if (existsSync(config) && Object.hasOwn(readConfig(io).contexts, options.name)) {
    throw usageError(
      `there is a context ${options.name} already`,
      `${config} would have to be overwritten`,
      'choose another --name, or remove the context',
    );
  }

  const cluster = await foundCluster({ name: options.name, now: io.now() });
  const host = { name: options.host, addresses: [...new Set([managementAddress, storageAddress])] };
  const credentials = await cluster.host({ ...host, voter: true });
  const admin = await cluster.client('admin', 'admin');
  const address = `${bracketed(managementAddress)}:${API_PORT}`;
  const setup: HostSetup = {
    cluster: options.name,
    host: options.host,
    hypervisor: true,
    voter: true,
    managementAddress,
    storageAddress,
    controllers: [{ host: options.host, address }],
    etcdEndpoints: [],
    first: true,
  };
  await writeTree(directory, [
    ...hostTree(directory, setup, credentials),
    { path: `pki/${AUTHORITIES_FILE}`, content: encodeSealedAuthorities(cluster.sealed()), secret: true },
    { path: 'admin/ca.crt', content: cluster.authorities.ca, secret: false },
    { path: 'admin/admin.crt', content: admin.certificatePem, secret: false },
    { path: 'admin/admin.key', content: admin.keyPem, secret: true },
  ]);
  try {
    const file = (name: string) => join(directory, 'admin', name);
    const files = { ca: file('ca.crt'), certificate: file('admin.crt'), key: file('admin.key') };
    addContext(config, options.name, { endpoints: [address], ...files }, true);
  } catch (error) {
    // Half a cluster is none: the next attempt begins anew, with other keys.
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
  await print(session, {
    json: () => ({ cluster: options.name, host: options.host, directory, context: options.name }),
    table: () => `cluster/${options.name} is made: ${directory}, context ${options.name} in ${config}\n`,
  });
  note(io, `Next: complete agent.yaml and controller.yaml in ${directory}, start etcd, the controller and the agent.`);
  note(io, `Keep a copy of ${join(directory, 'pki')} where no host is: seal.key opens everything that is sealed.`);
}
