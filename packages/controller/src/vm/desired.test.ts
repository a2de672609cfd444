// SPDX-License-Identifier: Apache-2.0
import { DesiredRun, DomainState, HostReport } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { VmRecord, VmStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { RunPolicy, VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Boot } from '../lease/granter.ts';
import { Rig } from '../testing/rig.ts';
import type { ClusterView } from '../view/view.ts';
import type { AccessOf } from './access.ts';
import type { CloudInitOpened } from './cloud-init.ts';
import { desiredFor } from './desired.ts';
import { ON_HOST } from './state.ts';

/** What one host is told of one VM. */
const position = { term: 3n, generation: 9n };
const storage = new Rig().api.storage;

function viewOf(
  vm: Parameters<typeof VmRecord.fromPartial>[0],
  status: Parameters<typeof VmStatusRecord.fromPartial>[0],
): ClusterView {
  const { view } = new Rig();
  const place = { id: 'v', createRevision: 1n, modRevision: 1n } as const;
  const meta = { id: 'v', name: 'relay', ...vm.meta };
  view.tables.vm.set({ ...place, record: VmRecord.fromPartial({ ...vm, meta }) } as never);
  view.tables['vm-status'].set({ ...place, record: VmStatusRecord.fromPartial(status) } as never);
  return view;
}
const running = { spec: { runPolicy: RunPolicy.RUNNING, cpu: { vcpus: 1 }, shutdownTimeoutMs: 60_000 } };
const stopped = { spec: { ...running.spec, runPolicy: RunPolicy.STOPPED } };
const here = { phase: VmPhase.RUNNING, host: 'host1', epoch: 5n };
const report = (...epochs: bigint[]) =>
  HostReport.fromPartial({ domains: epochs.map((epoch) => ({ vmId: 'v', epoch, state: DomainState.RUNNING })) });
const told = (
  view: ClusterView,
  host = 'host1',
  report: HostReport | null = null,
  cloudInitOf: CloudInitOpened = () => undefined,
  beside: readonly Boot[] = [],
  accessOf: AccessOf = () => undefined,
) =>
  desiredFor(
    host,
    position,
    view,
    { boot: { bootId: 'b1', address: '10.0.0.1' }, beside, report },
    storage,
    cloudInitOf,
    accessOf,
  );

describe('desired state', () => {
  it('names the boot that it is for, and for each VM the boot that its epoch was given to', () => {
    const view = viewOf(running, { ...here, bootId: 'b0' });
    expect(told(view)).toMatchObject({ bootId: 'b1', noStart: '', vms: [{ bootId: 'b0' }] });
  });

  it('gives a start the key of its disks, names no start that has none yet, and its end all the same', () => {
    const starting = { ...here, phase: VmPhase.STARTING };
    const key = { user: 'busbar-vm.v.5', key: Buffer.from('key') };
    const withAccess = (vm: typeof running | typeof stopped, access: ReturnType<AccessOf>) =>
      told(
        viewOf(vm, starting),
        'host1',
        null,
        () => undefined,
        [],
        () => access,
      ).vms;
    expect(withAccess(running, key)).toMatchObject([{ domain: { diskAccess: key } }]);
    expect(withAccess(running, undefined)).toMatchObject([{ domain: { diskAccess: undefined } }]);
    expect(withAccess(running, null)).toEqual([]);
    expect(withAccess(stopped, null)).toMatchObject([{ run: DesiredRun.SHUTDOWN }]);
  });

  it('forbids starts while two machines say that they are the host, and leaves what runs', () => {
    const beside = ['1', '9'].map((n) => ({ bootId: `b${n}`, address: `10.0.0.${n}` }));
    const state = told(viewOf(running, here), 'host1', report(5n), () => undefined, beside);
    expect(state.noStart).toMatch(/10\.0\.0\.1 .* and 10\.0\.0\.9/);
    expect(state).toMatchObject({ vms: [{ run: DesiredRun.RUNNING }], destroy: [] });
  });

  it.each<[string, Parameters<typeof viewOf>[0], Parameters<typeof viewOf>[1], DesiredRun, number]>([
    ['run', running, here, DesiredRun.RUNNING, 60_000],
    ['stop', stopped, here, DesiredRun.SHUTDOWN, 60_000],
    ['stop in its own time', { ...stopped, stopTimeoutMs: 7 }, here, DesiredRun.SHUTDOWN, 7],
    ['stop by force', { ...stopped, stopByForce: true }, here, DesiredRun.POWER_OFF, 60_000],
    ['delete', { ...running, meta: { deleting: true } }, here, DesiredRun.SHUTDOWN, 60_000],
    [
      'delete by force',
      { ...running, meta: { deleting: true }, stopByForce: true },
      here,
      DesiredRun.POWER_OFF,
      60_000,
    ],
    ['restart', running, { ...here, restartEpoch: 5n }, DesiredRun.SHUTDOWN, 60_000],
    ['restart by force', running, { ...here, restartEpoch: 5n, restartByForce: true }, DesiredRun.POWER_OFF, 60_000],
    [
      'restart of an earlier epoch',
      running,
      { ...here, restartEpoch: 4n, restartByForce: true },
      DesiredRun.RUNNING,
      60_000,
    ],
    ['force of an earlier stop', { ...running, stopByForce: true }, here, DesiredRun.RUNNING, 60_000],
  ])('%s', (_name, vm, status, run, shutdownTimeoutMs) => {
    expect(told(viewOf(vm, status))).toMatchObject({
      position,
      vms: [{ vmId: 'v', epoch: 5n, run, shutdownTimeoutMs }],
      destroy: [],
    });
    expect(told(viewOf(vm, status), 'host2')).toMatchObject({ vms: [], destroy: [] });
  });

  it('destroys older epochs everywhere, the current one only where it is not owned', () => {
    const view = viewOf(running, here);
    expect(told(view, 'host1', report(4n)).destroy).toEqual([{ vmId: 'v', epochMax: 4n }]);
    expect(told(view, 'host1', report(5n)).destroy).toEqual([]);
    expect(told(view, 'host2', report(5n)).destroy).toEqual([{ vmId: 'v', epochMax: 5n }]);
    expect(told(viewOf(stopped, { phase: VmPhase.STOPPED, epoch: 5n }), 'host1', report(5n)).destroy).toEqual([
      { vmId: 'v', epochMax: 5n },
    ]);
  });

  it('leaves alone what it does not know: other VMs, newer epochs, what has ended', () => {
    const view = viewOf(running, here);
    expect(
      told(view, 'host1', HostReport.fromPartial({ domains: [{ vmId: 'x', epoch: 1n, state: DomainState.RUNNING }] }))
        .destroy,
    ).toEqual([]);
    expect(told(view, 'host2', report(6n)).destroy).toEqual([]);
    expect(
      told(view, 'host2', HostReport.fromPartial({ domains: [{ vmId: 'v', epoch: 1n, state: DomainState.ENDED }] }))
        .destroy,
    ).toEqual([]);
  });

  it('never destroys the current epoch on its host, and names a VM to no other', () => {
    const phases = fc.constantFrom(...(Object.values(VmPhase) as VmPhase[]));
    const epochs = fc.array(fc.bigInt(0n, 8n), { maxLength: 4 });
    fc.assert(
      fc.property(phases, fc.bigInt(0n, 6n), epochs, fc.boolean(), (phase, epoch, domains, wanted) => {
        const status = { phase, epoch, host: ON_HOST.has(phase) ? 'host1' : '' };
        const view = viewOf(wanted ? running : stopped, status);
        const owner = told(view, 'host1', report(...domains));
        if (ON_HOST.has(phase)) for (const order of owner.destroy) expect(order.epochMax).toBeLessThan(epoch);
        expect(owner.vms.length).toBe(ON_HOST.has(phase) ? 1 : 0);
        expect(told(view, 'host2', report(...domains)).vms).toEqual([]);
      }),
      { numRuns: 100 },
    );
  });

  it('of a VM whose cloud-init data do not open: no start, but an end', () => {
    const starting = { ...here, phase: VmPhase.STARTING };
    const broken: CloudInitOpened = () => null;
    expect(told(viewOf(running, starting), 'host1', null, broken).vms).toEqual([]);
    expect(told(viewOf(running, starting)).vms).toHaveLength(1);
    const stopping = told(viewOf(stopped, { ...here, phase: VmPhase.STOPPING }), 'host1', null, broken);
    expect(stopping.vms).toMatchObject([{ run: DesiredRun.SHUTDOWN, domain: { cloudInit: undefined } }]);
  });
});

describe('desired state while the store is behind', () => {
  const boot = { bootId: 'b1', address: '10.0.0.1' };
  const held = (view: ClusterView, report: HostReport | null, host = 'host1') =>
    desiredFor(
      host,
      position,
      view,
      { boot, beside: [], report },
      storage,
      () => undefined,
      () => undefined,
      'STORE_BEHIND: wait',
    );

  it('confirms what the host itself reports, and neither stops nor destroys it', () => {
    const says = (state: DomainState) => HostReport.fromPartial({ domains: [{ vmId: 'v', epoch: 5n, state }] });
    for (const state of [DomainState.RUNNING, DomainState.PAUSED, DomainState.ENDED])
      expect(held(viewOf({ ...stopped, stopByForce: true }, here), says(state))).toMatchObject({
        vms: [{ vmId: 'v', epoch: 5n, run: DesiredRun.RUNNING }],
        destroy: [],
        noStart: 'STORE_BEHIND: wait',
      });
    // An older copy, which would be destroyed otherwise.
    expect(told(viewOf(running, here), 'host2', report(4n)).destroy).toHaveLength(1);
    expect(held(viewOf(running, here), report(4n), 'host2')).toMatchObject({ vms: [], destroy: [] });
  });

  it('takes back a start that has not begun, or that only the record knows', () => {
    const starting = HostReport.fromPartial({ domains: [{ vmId: 'v', epoch: 5n, state: DomainState.STARTING }] });
    for (const seen of [null, report(), report(4n), starting])
      expect(held(viewOf(running, { ...here, phase: VmPhase.STARTING }), seen).vms).toEqual([]);
  });
});

it('destroys what adoption left below its floor, except where the VM is', () => {
  const adopted = { ...here, epochFloor: 1_000_002n };
  expect(told(viewOf(running, adopted), 'host2', report(7n)).destroy).toEqual([{ vmId: 'v', epochMax: 1_000_002n }]);
  expect(told(viewOf(running, adopted), 'host1', report(5n))).toMatchObject({ vms: [{ epoch: 5n }], destroy: [] });
});
