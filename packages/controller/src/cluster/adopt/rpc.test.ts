// SPDX-License-Identifier: Apache-2.0
import type { BusbarError } from '@busbar/core/errors';
import { numRuns } from '@busbar/core/testing/runs.fixture';
import { StoreRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { AdoptClusterRequest, type AdoptClusterResponse } from '@busbar/proto/gen/busbar/v1/cluster';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { putRecord } from '../../records/kinds.ts';
import { Rig } from '../../testing/rig.ts';
import { HISTORY_ID } from '../behind.ts';
import { planAdoption } from './plan.ts';
import { adoptSchema } from './rpc.ts';

let rig: Rig;
beforeEach(async () => {
  rig = new Rig();
  await rig.start();
});
afterEach(() => rig.stop());

type Request = Parameters<typeof AdoptClusterRequest.fromPartial>[0];
const adopt = (request: Request) =>
  rig.call<AdoptClusterResponse>('ClusterService', 'adoptCluster', AdoptClusterRequest.fromPartial(request));

/** The rig has one host, which is silent. */
async function putBehind(): Promise<void> {
  const record = StoreRecord.fromPartial({ behindSince: new Date(0), signs: ['host1 runs more'] });
  await rig.run(rig.api.store.txn({ compare: [], writes: [putRecord('store', HISTORY_ID, record)] }));
}

const operations = () => rig.view.tables.operation.sorted().length;

describe('AdoptCluster', () => {
  it('has nothing to do while the store is not behind', async () => {
    const { operation, plan } = await adopt({ withoutHosts: ['host1'] });
    expect([operation, plan?.behind, operations()]).toEqual([undefined, false, 0]);
  });

  it('plans without writing anything', async () => {
    await putBehind();
    const before = await rig.stored();
    const { operation, plan } = await adopt({ validateOnly: true });
    expect(operation).toBeUndefined();
    expect(plan).toMatchObject({
      behind: true,
      signs: ['host1 runs more'],
      obstacles: [{ reason: 'HOST_SILENT', message: expect.stringContaining('host1') as string }],
    });
    expect(await rig.stored()).toEqual(before);
    expect(operations()).toBe(0);
  });

  it('is refused while something is in the way, with all of it and what to do', async () => {
    await putBehind();
    await expect(adopt({ withoutHosts: ['host9'] })).rejects.toMatchObject({
      kind: 'precondition',
      reason: 'ADOPTION_BLOCKED',
      message: expect.stringMatching(/host1 may run VMs and is silent.*there is no host "host9"/) as string,
      hint: expect.stringContaining('--without host1') as string,
    });
    expect(operations()).toBe(0);
  });

  it('makes one operation for one request id', async () => {
    await putBehind();
    const request = { withoutHosts: ['host1'], requestId: 'r1' };
    const first = await adopt(request);
    const second = await adopt(request);
    expect(first.operation).toMatchObject({ method: 'AdoptCluster', target: { kind: 'store', name: 'cluster' } });
    expect(second.operation?.id).toBe(first.operation?.id);
    expect(operations()).toBe(1);
    await expect(adopt({ requestId: 'r1' })).rejects.toMatchObject({ reason: 'REQUEST_ID_REUSED' });
  });

  it('refuses lists and words that are out of bounds, by name', async () => {
    const refused = (request: Request) => adopt(request).catch((error: unknown) => (error as BusbarError).fields);
    expect(await refused({ withoutHosts: Array.from({ length: 513 }, () => 'h') })).toMatchObject([
      { field: 'withoutHosts', expected: 'at most 512 hosts' },
    ]);
    expect(await refused({ keep: Array.from({ length: 513 }, () => ({ vm: 'v', host: 'h' })) })).toMatchObject([
      { field: 'keep', expected: 'at most 512 VMs' },
    ]);
    expect(await refused({ keep: [{ vm: 'v', host: '' }] })).toMatchObject([{ field: 'keep[0].host' }]);
  });

  it('plans for anything that its schema lets through, in bounded words', () => {
    const word = fc.oneof(
      fc.constantFrom('host1', 'v', '__proto__', 'constructor', '', '\u202e\0', 'x'.repeat(253)),
      fc.string({ unit: 'binary', maxLength: 300 }),
    );
    const request = fc.record({
      withoutHosts: fc.array(word, { maxLength: 5 }),
      keep: fc.array(fc.record({ vm: word, host: word }), { maxLength: 5 }),
      validateOnly: fc.boolean(),
      requestId: fc.constant(''),
    });
    const hosts = [{ host: 'host1', report: null, bootId: '', twice: '', message: 'its agent is not heard' }];
    fc.assert(
      fc.property(request, (said) => {
        if (!adoptSchema.safeParse(said).success) return;
        const { withoutHosts, keep } = said;
        const { plan, changes } = planAdoption({ signs: [], behind: true, hosts, vms: [], withoutHosts, keep });
        expect(changes).toEqual([]);
        expect(JSON.stringify(plan.obstacles).length).toBeLessThan(20_000);
        expect(plan.obstacles.some(({ reason }) => reason === 'HOST_SILENT')).toBe(!withoutHosts.includes('host1'));
      }),
      { numRuns: numRuns(300) },
    );
  });
});
