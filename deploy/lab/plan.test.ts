// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { checkLabName, findHost, type LabSpec, MAX_INDEX, planLab, replicas, SpecError, voterNames } from './plan.ts';

const spec: LabSpec = {
  name: 'lab',
  index: 0,
  hosts: 3,
  witnesses: 0,
  ceph: true,
  fsid: '00000000-0000-4000-8000-000000000000',
};

describe('plan of a lab', () => {
  it('gives every host its addresses', () => {
    const plan = planLab({ ...spec, index: 4, witnesses: 2 });
    expect(plan.hosts.map((host) => [host.name, host.role, host.management, host.storage])).toEqual([
      ['host1', 'hypervisor', '10.77.8.11', '10.77.9.11'],
      ['host2', 'hypervisor', '10.77.8.12', '10.77.9.12'],
      ['host3', 'hypervisor', '10.77.8.13', '10.77.9.13'],
      ['witness1', 'witness', '10.77.8.21', '10.77.9.21'],
      ['witness2', 'witness', '10.77.8.22', '10.77.9.22'],
    ]);
    expect(Object.values(plan.bridges).map((bridge) => [bridge.name, bridge.address])).toEqual([
      ['bb4m', '10.77.8.1'],
      ['bb4s', '10.77.9.1'],
      ['bb4v', '10.78.4.1'],
      ['bb4t', undefined],
    ]);
    expect(plan.hosts.map((host) => host.osd)).toEqual([0, 1, 2, undefined, undefined]);
    expect(plan.hosts.filter((host) => host.mgr).map((host) => host.name)).toEqual(['witness1', 'witness2']);
  });

  it('never gives two labs or hosts the same link, address or card', () => {
    const plans = [0, 1, 11, MAX_INDEX].map((index) => planLab({ ...spec, index, hosts: 9, witnesses: 9 }));
    const hosts = plans.flatMap((plan) => plan.hosts);
    const unique = (values: string[]): void => expect(new Set(values).size).toBe(values.length);
    unique([
      ...hosts.flatMap((host) => Object.values(host.links)),
      ...plans.flatMap((plan) => Object.values(plan.bridges).map((b) => b.name)),
    ]);
    unique([
      ...hosts.flatMap((host) => Object.values(host.macs)),
      ...plans.flatMap((plan) => Object.values(plan.bridges).map((b) => b.mac)),
    ]);
    unique([...hosts.flatMap((host) => [host.management, host.storage])]);
    for (const host of hosts) for (const link of Object.values(host.links)) expect(link.length).toBeLessThan(16); // IFNAMSIZ
    for (const host of hosts) for (const mac of Object.values(host.macs)) expect(mac).toMatch(/^02(:[0-9a-f]{2}){5}$/);
  });

  it.each([
    [1, 0, ['host1']],
    [2, 0, ['host1']],
    [2, 1, ['witness1', 'host1', 'host2']],
    [3, 0, ['host1', 'host2', 'host3']],
    [3, 1, ['witness1', 'host1', 'host2']],
    [4, 0, ['host1', 'host2', 'host3']],
    [9, 0, ['host1', 'host2', 'host3', 'host4', 'host5']],
    [4, 1, ['witness1', 'host1', 'host2', 'host3', 'host4']],
  ])('has an odd number of voters, witnesses first: %i hosts, %i witnesses', (hosts, witnesses, voters) => {
    expect([...voterNames(hosts, witnesses)]).toEqual(voters);
  });

  it.each([
    [1, 1, 1],
    [2, 2, 2],
    [3, 3, 2],
    [5, 3, 2],
  ])('keeps copies as the number of OSDs allows: %i', (hosts, size, minSize) => {
    expect(replicas(planLab({ ...spec, hosts }))).toEqual({ size, minSize });
  });

  it('says what is wrong with a name or a size', () => {
    for (const name of ['', 'Lab', '1lab', 'a b', '../x', 'a'.repeat(17), 'a-', 'a/b', 'labs.json'])
      expect(() => checkLabName(name)).toThrow(SpecError);
    for (const hosts of [0, 10, 1.5, Number.NaN]) expect(() => planLab({ ...spec, hosts })).toThrow(/hosts must be/);
    expect(() => planLab({ ...spec, witnesses: -1 })).toThrow(/witnesses must be/);
    expect(() => planLab({ ...spec, index: MAX_INDEX + 1 })).toThrow(/index/);
    expect(() => findHost(planLab(spec), 'host4')).toThrow('lab "lab" has no host "host4": it has host1, host2, host3');
  });
});
