// SPDX-License-Identifier: Apache-2.0
import { Hello, HostReport } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { HostStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { HostInventory, HostRole, HostState } from '@busbar/proto/gen/busbar/v1/host';
import { describe, expect, it } from 'vitest';
import type { HostObservation } from '../session/registry.ts';
import { hostAlarms } from './alarms.ts';
import { LEADER_GRACE_MS, planHost, REPORT_GRACE_MS, REPORT_STALE_MS, UNREACHABLE_AFTER_MS } from './plan.ts';

const NOW = 1_000_000;
const now = (leaderSinceMs = 0) => ({ nowMs: NOW, leaderSinceMs });
const inventory = HostInventory.fromPartial({ numaNodes: [{ hugepages: [{ free: 3n }] }] });

const early = HostInventory.fromPartial({ versions: { libvirt: '', agent: '0.1.0' } });

function seen(more: Partial<HostObservation> = {}): HostObservation {
  return {
    hello: Hello.fromPartial({ host: 'host1', role: HostRole.HYPERVISOR, bootId: 'b1' }),
    boot: { bootId: 'b1', address: '10.0.0.1' },
    beside: [],
    isAlone: true,
    report: HostReport.fromPartial({ hypervisorHealthy: true }),
    inventory,
    heardMs: NOW,
    heardWall: new Date(0),
    openedMs: NOW,
    reportedMs: NOW,
    blindSinceMs: null,
    connected: true,
    published: null,
    ...more,
  };
}
const TWO = [
  { bootId: 'b2', address: '10.0.0.9' },
  { bootId: 'b1', address: '10.0.0.1' },
];
const leased = (term: bigint, generation: bigint) =>
  HostReport.fromPartial({ hypervisorHealthy: true, leaseRemainingMs: 2_000, accepted: { term, generation } });
const told = (sinceMs: number) => ({ position: { term: 5n, generation: 9n }, sinceMs });
const known = (state: HostState, message = ''): HostStatusRecord => ({
  state,
  message,
  role: HostRole.HYPERVISOR,
  bootId: 'b1',
  inventory,
});

describe('planHost', () => {
  const { UNKNOWN, READY, DEGRADED, UNREACHABLE } = HostState;
  const sick = HostReport.fromPartial({ hypervisorHealthy: false, message: 'libvirtd is down' });
  const witness = Hello.fromPartial({ role: HostRole.WITNESS });
  const blind = (blindSinceMs: number) => ({ report: null, reportedMs: null, blindSinceMs });
  const silent = { heardMs: NOW - UNREACHABLE_AFTER_MS - 1 };

  it.each<[string, HostStatusRecord | undefined, HostObservation | null, number, HostState | null]>([
    ['heard and well', undefined, seen(), 0, READY],
    ['as known', known(READY), seen(), 0, null],
    ['heard at the last moment', known(READY), seen({ heardMs: NOW - UNREACHABLE_AFTER_MS }), 0, null],
    ['silent', known(READY), seen(silent), 0, UNREACHABLE],
    ['never heard', known(READY), null, 0, UNREACHABLE],
    ['never heard by a new leader', known(READY), null, NOW - LEADER_GRACE_MS + 1, null],
    ['silent to a new leader', known(READY), seen(silent), NOW - LEADER_GRACE_MS + 1, null],
    ['never heard, grace over', known(READY), null, NOW - LEADER_GRACE_MS, UNREACHABLE],
    ['new and not yet reported', undefined, seen(blind(NOW)), 0, UNKNOWN],
    ['known and not yet reported', known(READY), seen(blind(NOW - REPORT_GRACE_MS)), 0, null],
    ['connected and blind', known(READY), seen(blind(NOW - REPORT_GRACE_MS - 1)), 0, DEGRADED],
    ['without inventory', known(READY), seen({ inventory: null, blindSinceMs: 0 }), 0, DEGRADED],
    ['there twice', known(READY), seen({ beside: TWO }), 0, DEGRADED],
    ['there twice and silent', known(READY), seen({ ...silent, beside: TWO }), 0, UNREACHABLE],
    ['late with a report', known(READY), seen({ reportedMs: NOW - REPORT_STALE_MS }), 0, null],
    ['beating only, to a new leader', known(READY), seen({ reportedMs: 0 }), NOW - LEADER_GRACE_MS + 1, null],
    ['beating only', known(READY), seen({ reportedMs: NOW - REPORT_STALE_MS - 1 }), 0, DEGRADED],
    ['libvirt down', known(READY), seen({ report: sick }), 0, DEGRADED],
    ['inventory from before libvirt answered', undefined, seen({ inventory: early }), 0, UNKNOWN],
    ['the same, known as degraded', known(DEGRADED), seen({ inventory: early }), 0, null],
    ['a witness has no libvirt', undefined, seen({ report: sick, hello: witness }), 0, READY],
    ['back again', known(UNREACHABLE), seen(), 0, READY],
    ['without a lease for long', known(READY), seen({ openedMs: 0 }), 0, DEGRADED],
    ['with a lease', known(READY), seen({ openedMs: 0, report: leased(5n, 9n) }), 0, null],
    ['told just now', known(READY), seen({ openedMs: 0, report: leased(5n, 8n), published: told(NOW) }), 0, null],
    ['refusing orders', known(READY), seen({ openedMs: 0, report: leased(5n, 8n), published: told(0) }), 0, DEGRADED],
    ['obeying', known(READY), seen({ openedMs: 0, report: leased(5n, 9n), published: told(0) }), 0, null],
    [
      'obeying a later term',
      known(READY),
      seen({ openedMs: 0, report: leased(6n, 1n), published: told(0) }),
      0,
      DEGRADED,
    ],
  ])('%s', (_name, status, observation, leaderSinceMs, expected) => {
    expect(planHost(status, observation, now(leaderSinceMs))?.state ?? null).toBe(expected);
  });

  it('keeps role, boot id and inventory of a host it does not hear', () => {
    expect(planHost(known(READY), null, now())).toMatchObject({ role: HostRole.HYPERVISOR, bootId: 'b1', inventory });
  });

  it('writes a new boot id, but not free hugepages', () => {
    const hello = Hello.fromPartial({ role: HostRole.HYPERVISOR, bootId: 'b2' });
    expect(planHost(known(READY), seen({ hello }), now())?.bootId).toBe('b2');
    const fewer = HostInventory.fromPartial({ numaNodes: [{ hugepages: [{ free: 1n }] }] });
    expect(planHost(known(READY), seen({ inventory: fewer }), now())).toBeNull();
  });

  it('bounds what a host says', () => {
    const chatty = HostReport.fromPartial({ hypervisorHealthy: false, message: 'x'.repeat(1e6) });
    expect(planHost(known(READY), seen({ report: chatty }), now())?.message.length).toBe(1_000);
  });

  it('survives the store: what was written and read again is the same', () => {
    const first = planHost(undefined, seen(), now());
    if (first === null) throw new Error('nothing to write');
    const stored = HostStatusRecord.fromJSON(JSON.parse(JSON.stringify(HostStatusRecord.toJSON(first))));
    expect(planHost(stored, seen(), now())).toBeNull();
  });
});

describe('hostAlarms', () => {
  const told = (beside: HostObservation['beside']) =>
    hostAlarms({ sessions: { hosts: () => ['host1'], observed: () => seen({ beside }) } } as never);

  it('name both machines of a host that is there twice, always in the same words', () => {
    expect(told([])).toEqual([]);
    expect(told(TWO)).toMatchObject([{ code: 'HOST_TWICE', severity: 'critical', subject: 'host/host1' }]);
    expect(told(TWO)[0]?.message).toContain('10.0.0.1 (boot b1) and 10.0.0.9 (boot b2)');
    expect(told(TWO.toReversed())).toEqual(told(TWO));
    expect(planHost(known(HostState.READY), seen({ beside: TWO }), now())?.message).toContain('10.0.0.9 (boot b2)');
  });
});
