// SPDX-License-Identifier: Apache-2.0
import { AdoptClusterRequest, type AdoptClusterResponse } from '@busbar/proto/gen/busbar/v1/cluster';
import { z } from 'zod';
import type { Api, Call } from '../../api/call.ts';
import { contentOf, mutate, type Plan } from '../../api/mutate.ts';
import { reference, requestId } from '../../api/validation.ts';
import { list } from '../../bounds/schema.ts';
import { newOperation } from '../../operation/create.ts';
import { operationById } from '../../operation/present.ts';
import { unchanged } from '../../view/table.ts';
import { historyRecord } from '../behind.ts';
import { type Adoption, planAdoption } from './plan.ts';
import { ADOPT_CLUSTER, ADOPTION_TARGET, assertNoObstacles } from './saga.ts';
import { adoptionInput } from './world.ts';

/** Clusters are smaller than this; the scheduler's benchmarks go to 400 hosts. */
const HOSTS_MAX = 512;
/** Each is a decision of a person. */
const KEEP_MAX = 512;

/** All of these by the longest names, indented. */
export const ADOPT_BYTES_MAX = 512 * 1024;

export const adoptSchema = z.object({
  withoutHosts: list(reference, 0, HOSTS_MAX, `at most ${HOSTS_MAX} hosts`),
  keep: list(z.object({ vm: reference, host: reference }), 0, KEEP_MAX, `at most ${KEEP_MAX} VMs`),
  validateOnly: z.boolean(),
  requestId,
});

/**
 * Plans on what this controller hears, as every controller hears every host, and leaves the doing to the leader, which plans
 * again (saga.ts).
 */
export async function adoptCluster(api: Api, request: AdoptClusterRequest, call: Call): Promise<AdoptClusterResponse> {
  await api.view.fresh();
  const { withoutHosts, keep } = request;
  const { plan } = planAdoption(await adoptionInput(api, { withoutHosts, keep }));
  if (request.validateOnly || !plan.behind) {
    return { operation: undefined, plan };
  }
  return mutate<Adoption['plan'], AdoptClusterResponse>(api, call, {
    method: 'AdoptCluster',
    whileBehind: true,
    content: contentOf(AdoptClusterRequest, request),
    requestId: request.requestId,
    validateOnly: false,
    plan: (): Plan<Adoption['plan']> => {
      assertNoObstacles(plan);
      const operation = newOperation(api, call, {
        method: 'AdoptCluster',
        requestId: request.requestId,
        target: ADOPTION_TARGET,
        saga: ADOPT_CLUSTER,
        facts: { withoutHosts: JSON.stringify(withoutHosts), keep: JSON.stringify(keep) },
      });
      const entry = historyRecord(api.view);
      return {
        compare: entry === undefined ? [] : [unchanged('store', entry)],
        writes: [operation.write],
        ids: { operationId: operation.id, resourceId: ADOPTION_TARGET.id },
        extra: plan,
      };
    },
    preview: () => ({ operation: undefined, plan }),
    respond: (ids) => ({ operation: operationById(ids.operationId, api.view), plan }),
  });
}
