// SPDX-License-Identifier: Apache-2.0
/** The parts of a support bundle. A new service gets a line in SECTIONS, and an allow-list in allow.ts. */
import { hostname, release } from 'node:os';
import { Cluster, ClusterServiceDefinition } from '@busbar/proto/gen/busbar/v1/cluster';
import { EventFilter } from '@busbar/proto/gen/busbar/v1/event';
import packageJson from '../../package.json' with { type: 'json' };
import type { Api } from '../api/api.ts';
import { openApi } from '../api/open.ts';
import { describeError } from '../api/rpc-error.ts';
import type { Session } from '../cli/session.ts';
import { splitEndpoints } from '../config/address.ts';
import { chooseContext, readConfig } from '../config/file.ts';
import { describe } from '../context/show.ts';
import { events } from '../event/resource.ts';
import { present } from '../operation/resource.ts';
import { type KindName, kindEntry } from '../resource/kinds.ts';
import { listAll } from '../resource/resource.ts';
import { CLUSTER, EVENT, HOST, IMAGE, NETWORK, OPERATION, VM, VOLUME } from './allow.ts';
import { type AllowTree, redact, scrub } from './redact.ts';

export interface Section {
  /** Of the file, without ".json". */
  readonly name: string;
  readonly what: string;
  /** Asks the cluster: left out once no controller answers. */
  readonly remote: boolean;
  /** What stands in the file; nothing that may not be seen. */
  collect(session: Session): Promise<unknown>;
}

export const SECTIONS: readonly Section[] = [
  { name: 'versions', what: 'of this command and its machine', remote: false, collect: versions },
  { name: 'context', what: 'how this command reaches the cluster', remote: false, collect: context },
  {
    name: 'cluster',
    what: 'as one controller sees it',
    remote: true,
    collect: async (session) => cluster(await session.api()),
  },
  { name: 'controllers', what: 'the cluster as each of them sees it', remote: true, collect: controllers },
  resources('host', HOST),
  resources('vm', VM),
  resources('volume', VOLUME),
  resources('image', IMAGE),
  resources('network', NETWORK),
  resources('operation', OPERATION),
  { name: 'events', what: 'what happened in the last week', remote: true, collect: lastEvents },
];

async function lastEvents(session: Session): Promise<unknown> {
  const { items } = await listAll(await session.api(), events, EventFilter.create());
  return items.map((item) => redact(events.toJson(item), EVENT));
}

function resources(kind: KindName, allow: AllowTree): Section {
  return {
    name: `${kind}s`,
    what: kind === 'vm' ? 'all VMs, without their first-boot data' : `all ${kind}s`,
    remote: true,
    async collect(session) {
      const resource = await kindEntry(kind).load();
      const { items } = await listAll(await session.api(), resource, {});
      return items.map((item) => redact(resource.toJson(item), allow));
    },
  };
}

async function cluster(api: Api): Promise<unknown> {
  const answer = await api.call(ClusterServiceDefinition, (client, options) => client.getCluster({}, options));
  return redact(Cluster.toJSON(present(answer.cluster, 'the cluster')), CLUSTER);
}

/** One after the other, each on its own: where they disagree is often where the trouble is. */
async function controllers(session: Session): Promise<unknown> {
  const given = splitEndpoints(session.global.endpoint ?? []);
  const endpoints = given.length > 0 ? given : chosenContext(session).endpoints;
  const answers = [];
  for (const endpoint of endpoints) {
    try {
      answers.push({ endpoint, cluster: await cluster(openApi(session, [endpoint])) });
    } catch (error) {
      session.signal.throwIfAborted();
      answers.push({ endpoint, error: scrub(describeError(error, '').why.join('; ')) });
    }
  }
  return answers;
}

function chosenContext(session: Session) {
  const wanted = session.global.context ?? session.io.env['BUSBAR_CONTEXT'];
  return chooseContext(readConfig(session.io), wanted === '' ? undefined : wanted);
}

async function versions(): Promise<unknown> {
  const { platform, arch, versions: of } = process;
  return {
    busbar: packageJson.version,
    node: of.node,
    openssl: of.openssl,
    platform,
    arch,
    kernel: release(),
    machine: hostname(),
  };
}

/** Subjects and dates of the certificates; of the key only where it is and who may read it. */
async function context(session: Session): Promise<unknown> {
  return describe(chosenContext(session), session.io.now());
}
