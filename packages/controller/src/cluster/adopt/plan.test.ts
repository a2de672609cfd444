// SPDX-License-Identifier: Apache-2.0
import type { Revision } from '@busbar/core/ids';
import { DomainState, HostReport } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { VmRecord, VmStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { AdoptionAction } from '@busbar/proto/gen/busbar/v1/cluster';
import { RunPolicy, VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { newestEpoch } from '../../vm/plan.ts';
import { type AdoptionInput, planAdoption } from './plan.ts';

const entry = <T>(id: string, record: T) => ({
  id,
  record,
  createRevision: 1n as Revision,
  modRevision: 1n as Revision,
});
const vm = (id: string, status: object = {}, spec: object = {}, missingDisks: string[] = []) => ({
  vm: entry(
    id,
    VmRecord.fromPartial({ meta: { id, name: `name-${id}` }, spec: { runPolicy: RunPolicy.RUNNING, ...spec } }),
  ),
  status: entry(id, VmStatusRecord.fromPartial({ phase: VmPhase.RUNNING, host: 'host1', epoch: 1n, ...status })),
  missingDisks,
});
const host = (name: string, ...domains: (readonly [string, bigint, DomainState?])[]) => ({
  host: name,
  report: HostReport.fromPartial({
    domains: domains.map(([vmId, epoch, state = DomainState.RUNNING]) => ({ vmId, epoch, state })),
  }),
  bootId: `boot-of-${name}`,
  twice: '',
  message: '',
});
const silent = (name: string) => ({
  host: name,
  report: null,
  bootId: '',
  twice: '',
  message: 'its agent is not heard',
});
const plan = (input: Partial<AdoptionInput>) =>
  planAdoption({ signs: [], behind: true, hosts: [], vms: [], withoutHosts: [], keep: [], ...input });

describe('an adoption', () => {
  it('records host and epoch of what runs, and nothing else of it', () => {
    const { plan: told, changes } = plan({ hosts: [host('host1'), host('host2', ['v', 2n])], vms: [vm('v')] });
    expect(told).toMatchObject({ obstacles: [], vms: [{ action: AdoptionAction.TAKE_OVER, recordedHost: 'host1' }] });
    expect(changes[0]?.nextStatus).toMatchObject({
      host: 'host2',
      bootId: 'boot-of-host2',
      epoch: 2n,
      phase: VmPhase.RUNNING,
    });
    expect(changes[0]?.nextVm).toBe(changes[0]?.vm.record);
  });

  it('leaves what runs as recorded, placement included', () => {
    const placement = { host: 'host1', emulatorCpus: [3] };
    const { plan: told, changes } = plan({ hosts: [host('host1', ['v', 1n])], vms: [vm('v', { placement })] });
    expect(told.vms[0]?.action).toBe(AdoptionAction.AS_RECORDED);
    expect(changes[0]?.nextStatus).toMatchObject({ host: 'host1', epoch: 1n, placement });
  });

  it('lets a VM run on that the old record wanted stopped or deleted', () => {
    const deleted = vm('v', {}, { runPolicy: RunPolicy.STOPPED });
    const meta = { ...deleted.vm.record.meta, deleting: true };
    const record = VmRecord.fromPartial({ ...deleted.vm.record, meta });
    const { changes } = plan({
      hosts: [host('host1', ['v', 1n])],
      vms: [{ ...deleted, vm: { ...deleted.vm, record } }],
    });
    expect(changes[0]?.nextVm).toMatchObject({ meta: { deleting: false }, spec: { runPolicy: RunPolicy.RUNNING } });
  });

  it('takes a start that may still take effect for a VM that runs', () => {
    const { changes } = plan({ hosts: [host('host1', ['v', 4n, DomainState.STARTING])], vms: [vm('v')] });
    expect(changes[0]).toMatchObject({ runs: true, nextStatus: { host: 'host1', epoch: 4n } });
  });

  it('stops in the records what runs nowhere, and says whether it will be started', () => {
    const { plan: told, changes } = plan({
      hosts: [host('host1', ['a', 5n, DomainState.ENDED])],
      vms: [
        vm('a'),
        vm('b', {}, { runPolicy: RunPolicy.STOPPED }),
        vm('c', {}, {}, ['disk0']),
        vm('d', { phase: VmPhase.CREATING, host: '', epoch: 0n }),
      ],
    });
    expect(told.vms.map(({ action }) => action)).toEqual([
      AdoptionAction.START,
      AdoptionAction.STAY_OFF,
      AdoptionAction.STAY_OFF,
      AdoptionAction.START,
    ]);
    expect(told.vms[2]?.message).toContain('disk0');
    for (const { nextStatus } of changes) expect(nextStatus.host).toBe('');
    expect(changes[2]?.nextVm.spec?.runPolicy).toBe(RunPolicy.STOPPED);
    expect(changes[3]?.nextStatus.phase).toBe(VmPhase.CREATING);
  });

  it('lists what runs without a record, and records nothing of it', () => {
    const { plan: told, changes, unknownVms } = plan({ hosts: [host('host2', ['x', 1n])] });
    expect(told.vms).toMatchObject([{ vm: { id: 'x', name: '' }, action: AdoptionAction.LEAVE_ALONE }]);
    expect([changes, unknownVms]).toEqual([[], [{ vmId: 'x', host: 'host2' }]]);
  });
});

describe('what stands in the way', () => {
  const reasons = (input: Partial<AdoptionInput>) => plan(input).plan.obstacles.map(({ reason }) => reason);

  it('is a silent host, unless it is given up by name', () => {
    const hosts = [host('host1'), silent('host2')];
    expect(reasons({ hosts })).toEqual(['HOST_SILENT']);
    expect(reasons({ hosts, withoutHosts: ['host2'] })).toEqual([]);
    expect(reasons({ hosts, withoutHosts: ['host1', 'host2', 'host9'] })).toEqual(['HOST_NOT_SILENT', 'HOST_UNKNOWN']);
  });

  it('is a host that is there twice: of one machine nothing is heard', () => {
    expect(reasons({ hosts: [{ ...host('host1'), twice: 'two machines say that they are host1' }] })).toEqual([
      'HOST_TWICE',
    ]);
  });

  it('is a VM that runs twice, until it is said where it stays', () => {
    const input = { hosts: [host('host1', ['v', 2n]), host('host2', ['v', 2n])], vms: [vm('v')] };
    const { obstacles, vms } = plan(input).plan;
    expect(obstacles).toMatchObject([
      { reason: 'VM_RUNS_TWICE', message: 'VM "name-v" runs on host1 (epoch 2) and host2 (epoch 2)' },
    ]);
    expect(vms[0]?.action).toBe(AdoptionAction.UNDECIDED);
    const kept = plan({ ...input, keep: [{ vm: 'name-v', host: 'host2' }] });
    expect(kept.plan.obstacles).toEqual([]);
    expect(kept.plan.vms[0]?.message).toBe('destroyed on host1');
    expect(kept.changes[0]?.nextStatus).toMatchObject({ host: 'host2', epoch: 2n });
  });

  it('is a word on a VM that is not there', () => {
    const hosts = [host('host1', ['v', 1n])];
    expect(reasons({ hosts, vms: [vm('v')], keep: [{ vm: 'v', host: 'host2' }] })).toEqual(['KEEP_NOT_THERE']);
    expect(reasons({ hosts, keep: [{ vm: 'w', host: 'host1' }] })).toEqual(['KEEP_NOT_THERE']);
  });

  it('is a host that claims epochs that no VM can have had', () => {
    const { plan: told } = plan({ hosts: [host('host1', ['v', 2n ** 62n])], vms: [vm('v')] });
    expect(told.obstacles).toMatchObject([{ reason: 'EPOCH_IMPLAUSIBLE' }]);
    expect(told.epochFloor).toBeLessThan(2_000_000n);
  });
});

it('no start after an adoption has an epoch that any host was seen with, and each VM is on one host at most', () => {
  const id = fc.constantFrom('a', 'b', 'c');
  const epoch = fc.bigInt({ min: 1n, max: 1_000n });
  const state = fc.constantFrom(DomainState.RUNNING, DomainState.ENDED, DomainState.STARTING, DomainState.PAUSED);
  const domains = fc.array(fc.tuple(id, epoch, state), { maxLength: 5 });
  fc.assert(
    fc.property(
      fc.array(domains, { maxLength: 4 }),
      fc.array(epoch, { minLength: 3, maxLength: 3 }),
      (said, stored) => {
        const hosts = said.map((each, i) => host(`host${i}`, ...each));
        const vms = ['a', 'b', 'c'].map((name, i) => vm(name, { epoch: stored[i] }));
        const { changes, plan: told } = plan({ hosts, vms });
        for (const { vm: of, nextStatus, runs } of changes) {
          const reports = hosts.flatMap(({ host: name, report }) =>
            report.domains.filter(({ vmId }) => vmId === of.id).map((one) => ({ name, ...one })),
          );
          for (const one of reports) expect(newestEpoch(nextStatus)).toBeGreaterThan(one.epoch);
          expect(newestEpoch(nextStatus)).toBeGreaterThan(
            vms.find((each) => each.vm.id === of.id)?.status.record.epoch ?? 0n,
          );
          const there = reports.filter((one) => one.state !== DomainState.ENDED);
          if (runs)
            expect(there).toContainEqual(expect.objectContaining({ name: nextStatus.host, epoch: nextStatus.epoch }));
          else expect(nextStatus.host).toBe('');
          const on = new Set(there.map((one) => one.name));
          const isUndecided = told.obstacles.some(({ message }) => message.includes(`"name-${of.id}"`));
          expect(isUndecided).toBe(on.size > 1);
        }
      },
    ),
  );
});
