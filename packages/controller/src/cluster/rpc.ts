// SPDX-License-Identifier: Apache-2.0

import { withDeadline } from '@busbar/core/clock/clock';
import { errorChain } from '@busbar/core/errors';
import type {
  Cluster,
  ClusterServiceDefinition,
  StorageHealth,
  StoreHealth,
} from '@busbar/proto/gen/busbar/v1/cluster';
import { z } from 'zod';
import type { Api } from '../api/call.ts';
import type { Service } from '../api/service.ts';
import { LEADER_KEY } from '../leadership/leadership.ts';
import { phaseWord } from '../vm/state.ts';
import { ADOPT_BYTES_MAX, adoptCluster, adoptSchema } from './adopt/rpc.ts';
import { historyRecord } from './behind.ts';

/** What a person waits for without wondering. */
const CHECK_DEADLINE_MS = 2_000;

export function clusterService(api: Api): Service<typeof ClusterServiceDefinition> {
  return {
    getCluster: {
      access: 'read',
      schema: z.object({}),
      async handle() {
        const [store, storage] = await Promise.all([checkStore(api), checkStorage(api)]);
        return { cluster: present(api, store, storage) };
      },
    },
    adoptCluster: {
      access: 'administer',
      schema: adoptSchema,
      bytesMax: ADOPT_BYTES_MAX,
      handle: (request, call) => adoptCluster(api, request, call),
    },
  };
}

interface StoreCheck {
  readonly health: StoreHealth;
  readonly leaderTerm: bigint;
}

async function checkStore(api: Api): Promise<StoreCheck> {
  try {
    const read = await withDeadline(api.clock, CHECK_DEADLINE_MS, 'reading from the cluster store', () =>
      api.store.get(LEADER_KEY),
    );
    return {
      health: { healthy: true, message: '', revision: read.revision, behind: behindSigns(api) },
      leaderTerm: read.value?.createRevision ?? 0n,
    };
  } catch (error) {
    return {
      health: {
        healthy: false,
        message: errorChain(error),
        revision: api.view.revision,
        behind: behindSigns(api),
      },
      leaderTerm: 0n,
    };
  }
}

function behindSigns(api: Api): string[] {
  const record = historyRecord(api.view)?.record;
  return record?.behindSince === undefined ? [] : [...record.signs];
}

async function checkStorage(api: Api): Promise<StorageHealth> {
  const base = { driver: api.storage.kind, measureTime: api.clock.wallTime() };
  try {
    const capacity = await withDeadline(api.clock, CHECK_DEADLINE_MS, 'asking the storage pool', () =>
      api.storage.capacity(),
    );
    return { ...base, healthy: true, message: '', ...capacity };
  } catch (error) {
    return { ...base, healthy: false, message: errorChain(error), totalBytes: 0n, availableBytes: 0n };
  }
}

function present(api: Api, store: StoreCheck, storage: StorageHealth): Cluster {
  const leader = store.health.healthy ? (api.leadership.leader()?.host ?? '') : '';
  return {
    name: api.clusterName,
    leader,
    leaderTerm: store.leaderTerm,
    answeredBy: api.host,
    controllers: api.controllers.map((member) => ({ ...member, leader: member.host === leader })),
    store: store.health,
    storage,
    hostsByState: count(
      api.view.tables['host-status']
        .sorted()
        .map((entry) => entry.record.state.replace('HOST_STATE_', '').toLowerCase()),
    ),
    vmsByPhase: count(api.view.tables['vm-status'].sorted().map((entry) => phaseWord(entry.record.phase))),
    version: api.version,
    alarms: [...api.alarms.all()],
  };
}

function count(words: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const word of words) counts[word] = (counts[word] ?? 0) + 1;
  return counts;
}
