// SPDX-License-Identifier: Apache-2.0
/** `busbar host join`: on the new host, with nothing but a token. */
import { resolve } from 'node:path';
import { assertUnused, writeTree } from '@busbar/pki/files';
import { parseJoinToken } from '@busbar/pki/join-token';
import { checkController } from '../api/open.ts';
import type { Session } from '../cli/session.ts';
import { readInput } from '../cli/values.ts';
import { isHypervisor, redeem } from '../join/redeem.ts';
import { hostTree, withSelf } from '../join/skeleton.ts';
import { note, print } from '../output/print.ts';
import { ipFlag } from './addresses.ts';

export interface JoinOptions {
  readonly tokenFile: string;
  readonly dir: string;
  readonly managementAddress?: string;
  readonly storageAddress?: string;
}

export async function join(session: Session, options: JoinOptions): Promise<void> {
  session.doing = 'join the cluster';
  const { io } = session;
  const directory = resolve(io.directory, options.dir);
  const given = (flag: string, value: string | undefined) => (value === undefined ? [] : [ipFlag(flag, value)]);
  const [management, storage] = [
    given('--management-address', options.managementAddress),
    given('--storage-address', options.storageAddress),
  ];
  // Before the token is used up.
  await assertUnused(directory);
  const token = parseJoinToken(await readInput(io, options.tokenFile));
  const said = [...new Set([...management, ...storage])];
  const { response, credentials } = await redeem(token, said, checkController, session.signal);
  const { cluster, host, voter, etcdEndpoints, addresses } = response;
  const managementAddress = management[0] ?? (addresses[0] as string);
  const storageAddress = storage[0] ?? addresses.find((each) => each !== managementAddress) ?? managementAddress;
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
