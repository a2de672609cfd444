// SPDX-License-Identifier: Apache-2.0
/** `busbar host join`: on the new host, with nothing but a token. */
import { isIP } from 'node:net';
import { resolve } from 'node:path';
import { assertUnused, writeTree } from '@busbar/pki/files';
import { parseJoinToken } from '@busbar/pki/join-token';
import { checkController } from '../api/open.ts';
import { usageError } from '../cli/exit.ts';
import type { Session } from '../cli/session.ts';
import { readInput } from '../cli/values.ts';
import { isHypervisor, redeem } from '../join/redeem.ts';
import { hostTree, withSelf } from '../join/skeleton.ts';
import { note, print } from '../output/print.ts';

export interface JoinOptions {
  readonly tokenFile: string;
  readonly dir: string;
  readonly managementAddress: string;
  readonly storageAddress?: string;
}

export async function join(session: Session, options: JoinOptions): Promise<void> {
  session.doing = 'join the cluster';
  const { io } = session;
  const directory = resolve(io.directory, options.dir);
  const managementAddress = ipFlag('--management-address', options.managementAddress);
  const storageAddress = ipFlag('--storage-address', options.storageAddress ?? managementAddress);
  // Before the token is used up.
  await assertUnused(directory);
  const token = parseJoinToken(await readInput(io, options.tokenFile));
  const addresses = [...new Set([managementAddress, storageAddress])];
  const { response, credentials } = await redeem(token, addresses, checkController, session.signal);
  const { cluster, host, voter, etcdEndpoints } = response;
  const setup = {
    cluster,
    host,
    voter,
    hypervisor: isHypervisor(response),
    managementAddress,
    storageAddress,
    controllers: response.controllers,
    etcdEndpoints,
    first: false,
  };
  await writeTree(directory, hostTree(directory, { ...setup, controllers: withSelf(setup) }, credentials));
  const files = ['agent.yaml', ...(voter ? ['controller.yaml'] : [])];
  await print(session, {
    json: () => ({ cluster, host, directory, voter, hypervisor: setup.hypervisor }),
    table: () => `host/${host} has its certificates of cluster ${cluster} in ${directory}\n`,
  });
  note(
    io,
    `Next: complete ${files.join(' and ')} there and start ${voter ? 'etcd, the controller and ' : ''}the agent.`,
  );
}

export function ipFlag(flag: string, value: string): string {
  if (isIP(value) !== 0) return value;
  throw usageError(
    `${flag} ${value} is not allowed`,
    `${JSON.stringify(value)} is no IP address`,
    `write e.g. ${flag} 10.0.0.2`,
  );
}
