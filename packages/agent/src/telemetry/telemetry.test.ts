// SPDX-License-Identifier: Apache-2.0
import { VirtualClock } from '@busbar/core/clock/virtual';
import type { CounterDefinition, Metrics } from '@busbar/core/metrics';
import { noMetrics } from '@busbar/core/metrics';
import { Pulse } from '@busbar/core/pulse';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { DomainObservation } from '../driver/host-driver.ts';
import { Discoveries } from './discoveries.ts';
import { agentHealth, type Readiness } from './health.ts';
import { isClientOf } from './listener.ts';

describe('who may read the metrics of an agent', () => {
  const ask = (...names: string[]) => isClientOf('lab', { subjectAltName: names.join(', ') });
  const client = 'URI:spiffe://lab/client/prometheus';
  const viewer = 'URI:spiffe://lab/role/viewer';

  it.each(['viewer', 'operator', 'admin'])('a client of role %s', (role) => {
    expect(ask('DNS:x', client, `URI:spiffe://lab/role/${role}`)).toBe(true);
  });

  it.each([
    ['no names', []],
    ['no role', [client]],
    ['no identity', [viewer]],
    ['of another cluster', ['URI:spiffe://other/client/a', 'URI:spiffe://other/role/admin']],
    ['its role is of another cluster', [client, 'URI:spiffe://other/role/admin']],
    ['two identities', [client, 'URI:spiffe://lab/client/b', viewer]],
    ['a client and a host', [client, 'URI:spiffe://lab/host/host1', viewer]],
    ['two roles', [client, viewer, 'URI:spiffe://lab/role/admin']],
    ['a host', ['URI:spiffe://lab/host/host1', viewer]],
    ['a controller', ['URI:spiffe://lab/controller/host1', viewer]],
    ['an unknown role', [client, 'URI:spiffe://lab/role/root']],
    ['a path below', ['URI:spiffe://lab/client/a/b', viewer]],
    ['quoted', [`URI:"spiffe://lab/client/a"`, viewer]],
    ['as a DNS name', ['DNS:spiffe://lab/client/a', viewer]],
  ])('not one with %s', (_what, names) => {
    expect(ask(...names)).toBe(false);
  });

  it('nobody by accident', () => {
    fc.assert(fc.property(fc.array(fc.string()), (names) => !ask(...names)));
  });
});

describe('what listings show', () => {
  function open() {
    const counted: string[] = [];
    const metrics: Metrics = {
      ...noMetrics,
      counter: <L extends string>(_definition: CounterDefinition<L>) => ({
        add: (labels: Readonly<Record<L, string>>) => counted.push(...(Object.values(labels) as string[])),
      }),
    };
    const domain = (id: string, state: DomainObservation['state'], epoch = 1n) =>
      ({ vmId: id, epoch, state }) as DomainObservation;
    const seen = new Discoveries(metrics);
    const list = (...domains: DomainObservation[]) => {
      seen.listing();
      seen.listed(domains);
      return counted.splice(0);
    };
    return { seen, list, domain };
  }

  it('is counted once per change, by what led to it; the first one is no news', () => {
    const { seen, list, domain } = open();
    expect(list(domain('a', 'running'))).toEqual([]);
    expect(list(domain('a', 'running'))).toEqual([]);
    seen.hinted();
    expect(list(domain('a', 'paused'), domain('b', 'running'))).toEqual(['event', 'event']);
    expect(list(domain('b', 'running'))).toEqual(['listing']);
    expect(list(domain('b', 'running', 2n))).toEqual(['listing']);
  });

  it('is owed to a hint that comes while the list is under way', () => {
    const { seen, list, domain } = open();
    list();
    seen.listing();
    seen.hinted();
    seen.listed([domain('a', 'running')]);
    // The hint is still there for the next one, which may show more.
    expect(list(domain('a', 'paused'))).toEqual(['event', 'event']);
    expect(list(domain('a', 'running'))).toEqual(['listing']);
  });
});

describe('the health of an agent', () => {
  const WELL: Readiness = { controllers: 3, acknowledging: 3, leaseHeld: true, hypervisor: '', hasInventory: true };

  it('is its loops, each by its own limit', async () => {
    const clock = new VirtualClock();
    const [reconciler, sessions] = [new Pulse(clock), new Pulse(clock)];
    const health = agentHealth({ reconciler, sessions, readiness: () => WELL });
    const ill = () => health.live().flatMap(({ name, problem }) => (problem === '' ? [] : [`${name} ${problem}`]));
    expect(ill()).toEqual([]);
    reconciler.beat();
    sessions.beat();
    await clock.advance(11_000);
    expect(ill()).toEqual(['heartbeats has not gone round for 11 s']);
    await clock.advance(40_000);
    expect(ill()).toHaveLength(2);
    sessions.beat();
    reconciler.rest();
    expect(ill()).toEqual([]);
  });

  it.each<[string, Partial<Readiness>, string]>([
    ['lease', { acknowledging: 1, leaseHeld: false }, '1 of 3 controllers acknowledge: no majority, no lease'],
    ['hypervisor', { hypervisor: 'libvirtd ended' }, 'libvirtd ended'],
    ['inventory', { hasInventory: false }, 'not read yet'],
  ])('says that the %s is missing', async (name, change, problem) => {
    const clock = new VirtualClock();
    const health = agentHealth({
      reconciler: undefined,
      sessions: new Pulse(clock),
      readiness: () => ({ ...WELL, ...change }),
    });
    expect((await health.ready()).filter((check) => check.problem !== '')).toEqual([{ name, problem }]);
  });
});
