// SPDX-License-Identifier: Apache-2.0
import type { HostId, NetworkId, VmId } from '@busbar/core/ids';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { freeMemoryBytes, usedVcpus } from './checkers.ts';
import { DEFAULT_POLICY, type PlacedVm, type PlacementRequest, type SchedulableHost } from './model.ts';
import { describeRefusal, place } from './place.ts';

const GIB = 1024n ** 3n;
const plant = 'n-plant' as NetworkId;

function host(id: string, over: Partial<SchedulableHost> = {}): SchedulableHost {
  return {
    id: id as HostId,
    notSchedulable: '',
    labels: {},
    onlineCpus: 4,
    memoryBytes: 16n * GIB,
    networks: new Set([plant]),
    vms: [],
    ...over,
  };
}

function vm(name: string, over: Partial<PlacedVm> = {}): PlacedVm {
  return { id: name as VmId, name, vcpus: 1, memoryBytes: GIB, antiAffinityGroup: '', ...over };
}

function request(over: Partial<PlacementRequest> = {}): PlacementRequest {
  return {
    vm: vm('new'),
    hostSelector: {},
    pinnedHost: '',
    preferredHosts: [],
    networks: [{ id: plant, name: 'plant' }],
    ...over,
  };
}

const snapshot = (...hosts: SchedulableHost[]) => ({ hosts, policy: DEFAULT_POLICY });

describe('place', () => {
  it('spreads: the emptier host wins', () => {
    const result = place(snapshot(host('a', { vms: [vm('x')] }), host('b')), request());
    expect(result).toMatchObject({ ok: true, value: { host: 'b' } });
  });

  it('takes a preferred host although it is fuller', () => {
    const result = place(snapshot(host('a', { vms: [vm('x')] }), host('b')), request({ preferredHosts: ['a'] }));
    expect(result).toMatchObject({ ok: true, value: { host: 'a' } });
  });

  it('names every obstacle of every host', () => {
    const result = place(
      snapshot(
        host('a', { memoryBytes: 5n * GIB }),
        host('b', { networks: new Set(), vms: [vm('relay-a', { antiAffinityGroup: 'relay' })] }),
        host('c', { notSchedulable: 'unreachable' }),
      ),
      request({ vm: vm('relay-b', { memoryBytes: 8n * GIB, vcpus: 17, antiAffinityGroup: 'relay' }) }),
    );
    expect(result.ok).toBe(false);
    if (result.ok) return;
    expect(describeRefusal(result.error)).toBe(
      'a: memory: needs 8288 MiB, 1024 MiB free, cpu: needs 17 vCPUs, 16 of 16 free (4 CPUs × 4); ' +
        'b: network: no bridge for plant, anti-affinity: "relay-a" of group "relay" is here, cpu: needs 17 vCPUs, 15 of 16 free (4 CPUs × 4); ' +
        'c: state: unreachable, cpu: needs 17 vCPUs, 16 of 16 free (4 CPUs × 4)',
    );
  });

  it('never over-commits, and answers the same for any order of hosts', () => {
    const arbitraryHost = fc.record({
      memory: fc.bigInt({ min: 0n, max: 32n }),
      cpus: fc.integer({ min: 1, max: 8 }),
      vms: fc.array(fc.record({ vcpus: fc.integer({ min: 1, max: 8 }), memory: fc.bigInt({ min: 1n, max: 8n }) }), {
        maxLength: 5,
      }),
    });
    fc.assert(
      fc.property(
        fc.array(arbitraryHost, { maxLength: 6 }),
        fc.integer({ min: 1, max: 8 }),
        fc.bigInt({ min: 1n, max: 16n }),
        (raw, vcpus, memory) => {
          const hosts = raw.map((h, i) =>
            host(`h${i}`, {
              memoryBytes: h.memory * GIB,
              onlineCpus: h.cpus,
              vms: h.vms.map((v, j) => vm(`v${i}-${j}`, { vcpus: v.vcpus, memoryBytes: v.memory * GIB })),
            }),
          );
          const wanted = request({ vm: vm('new', { vcpus, memoryBytes: memory * GIB }) });
          const result = place(snapshot(...hosts), wanted);
          expect(place(snapshot(...hosts.toReversed()), wanted)).toEqual(result);
          const fitting = hosts.filter(
            (h) =>
              freeMemoryBytes(h, DEFAULT_POLICY) >= wanted.vm.memoryBytes + DEFAULT_POLICY.vmOverheadBytes &&
              usedVcpus(h) + vcpus <= h.onlineCpus * DEFAULT_POLICY.vcpuOvercommit,
          );
          expect(result.ok).toBe(fitting.length > 0);
          if (result.ok) expect(fitting.map((h) => h.id)).toContain(result.value.host);
        },
      ),
    );
  });
});
