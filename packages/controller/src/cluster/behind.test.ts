// SPDX-License-Identifier: Apache-2.0
import type { Revision } from '@busbar/core/ids';
import { DomainState, HostReport } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { StoreRecord, VmRecord, VmStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import { describe, expect, it } from 'vitest';
import { encodeRecord, recordKey } from '../records/kinds.ts';
import { Table } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';
import { assertNotBehind, behindMessage, HISTORY_ID, historySigns, reportSigns } from './behind.ts';

const V = '5f0c3a0e-2f0b-4a7a-9d57-2a0d6c6f0001';
const OTHER = '5f0c3a0e-2f0b-4a7a-9d57-2a0d6c6f0002';
const POSITION = { term: 50n, generation: 60n };

function viewOf(status: object, store: object = {}): ClusterView {
  const tables = { vm: new Table('vm'), 'vm-status': new Table('vm-status'), store: new Table('store') };
  const kv = (key: string, value: string) => ({
    key,
    value,
    createRevision: 1n as Revision,
    modRevision: 1n as Revision,
  });
  const vm = VmRecord.fromPartial({ meta: { id: V, name: 'v' } });
  tables.vm.take(V, kv(recordKey('vm', V), encodeRecord('vm', vm)));
  const one = VmStatusRecord.fromPartial({ phase: VmPhase.RUNNING, host: 'host1', epoch: 2n, ...status });
  tables['vm-status'].take(V, kv(recordKey('vm-status', V), encodeRecord('vm-status', one)));
  const record = StoreRecord.fromPartial(store);
  tables.store.take(HISTORY_ID, kv(recordKey('store', HISTORY_ID), encodeRecord('store', record)));
  return { tables } as unknown as ClusterView;
}

const signs = (report: object, status: object = {}, store: object = {}) =>
  reportSigns([{ host: 'host2', report: HostReport.fromPartial(report) }], viewOf(status, store), POSITION);
const domain = (vmId: string, epoch: bigint, state: DomainState = DomainState.RUNNING) => ({
  domains: [{ vmId, epoch, state }],
});

describe('what shows that the store went back in time', () => {
  it('is an epoch above the store, whether it runs or has ended', () => {
    expect(signs(domain(V, 3n))).toEqual(['host2 runs VM "v" with epoch 3, the store has 2']);
    expect(signs(domain(V, 3n, DomainState.ENDED))).toEqual(['host2 ran VM "v" with epoch 3, the store has 2']);
    expect(signs(domain(V, 3n, DomainState.STARTING))).toHaveLength(1);
  });

  it('is a VM that runs and that the store does not know, unless adoption left it alone', () => {
    expect(signs(domain(OTHER, 1n))).toEqual([`host2 runs VM ${OTHER}, which the store does not know`]);
    expect(signs(domain(OTHER, 1n), {}, { unknownVms: [{ vmId: OTHER, host: 'host2' }] })).toEqual([]);
  });

  it('is a term or a revision that the store has not reached', () => {
    const accepted = { term: 51n, generation: 1n };
    expect(signs({ accepted, storeRevision: 51n })).toEqual(["host2 took orders of term 51, the leader's is 50"]);
    expect(signs({ accepted: { term: 40n, generation: 61n }, storeRevision: 61n })).toEqual([
      'host2 knew the store at revision 61, it is at 60',
    ]);
  });

  it('is nothing that happens in normal life', () => {
    // The end of a deleted VM, older epochs, and orders of exactly this leader.
    expect(signs(domain(OTHER, 9n, DomainState.ENDED))).toEqual([]);
    for (const epoch of [1n, 2n]) expect(signs(domain(V, epoch))).toEqual([]);
    expect(signs({ accepted: POSITION, storeRevision: 60n })).toEqual([]);
    // What adoption put below its floor.
    expect(signs(domain(V, 7n), { epochFloor: 1_000_002n })).toEqual([]);
  });

  it('is bounded, whatever a host says', () => {
    const domains = Array.from({ length: 1_000 }, (_, i) => ({ vmId: `${i}`.repeat(100), epoch: 1n, state: 'x' }));
    const all = signs({ domains });
    expect(all).toHaveLength(20);
    for (const sign of all) expect(sign.length).toBeLessThan(200);
  });

  it('is another etcd cluster, or a log that is too short for its revision', () => {
    const record = StoreRecord.fromPartial({ clusterId: 'a', logLead: 1n });
    const history = (clusterId: string, logLength: bigint, revision: bigint) => ({
      clusterId,
      logLength,
      revision: revision as Revision,
    });
    expect(historySigns(record, history('a', 1_000n, 1_001n))).toEqual([]);
    // Leases and refused transactions are entries, too: the log is longer and longer than the revision.
    expect(historySigns(record, history('a', 9_000n, 1_001n))).toEqual([]);
    expect(historySigns(record, history('b', 1_000n, 1_001n))).toEqual([
      'etcd is another cluster than before (id b, was a)',
    ]);
    expect(historySigns(record, history('a', 5n, 1_001n))).toEqual([
      'etcd was restored from a snapshot: its log has 5 entries, its revision is 1001',
    ]);
    // A store without a record: new, or one of a former version, which may have been restored already.
    expect(historySigns(undefined, history('a', 8n, 3n))).toEqual([]);
    expect(historySigns(undefined, history('a', 8n, 1_001n))).toHaveLength(1);
    // Adopted since: the lead as it was then is the measure.
    const adopted = StoreRecord.fromPartial({ clusterId: 'a', logLead: 996n });
    expect(historySigns(adopted, history('a', 40n, 1_030n))).toEqual([]);
    expect(historySigns(adopted, history('a', 5n, 1_100n))).toHaveLength(1);
  });
});

describe('a store that is behind', () => {
  it('says so to whoever would start something', () => {
    const behind = viewOf({}, { behindSince: new Date(0), signs: ['host2 runs more'] });
    expect(behindMessage(behind)).toBe(
      'STORE_BEHIND: the cluster store went back in time (host2 runs more); nothing starts until the cluster is adopted',
    );
    expect(() => assertNotBehind(behind)).toThrow(/^the cluster store went back in time \(host2 runs more\)/);
    expect(behindMessage(viewOf({}))).toBe('');
    expect(() => assertNotBehind(viewOf({}))).not.toThrow();
  });
});
