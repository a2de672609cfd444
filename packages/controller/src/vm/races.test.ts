// SPDX-License-Identifier: Apache-2.0
import { HostState } from '@busbar/proto/gen/busbar/v1/host';
import { type Operation, OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import { CreateVmRequest, RunPolicy, VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { operationOf } from '../operation/progress.ts';
import { putRecord } from '../records/kinds.ts';
import { Rig } from '../testing/rig.ts';

/** Calls on one VM that overtake each other. */
const MIB = 1024n ** 2n;
const flags = { validateOnly: false, requestId: '' };
const vm = { vm: 'relay-1', ...flags };

const request = (runPolicy: RunPolicy) =>
  CreateVmRequest.fromPartial({
    name: 'relay-1',
    spec: { runPolicy, cpu: { vcpus: 1 }, memoryBytes: 256n * MIB, disks: [{ name: 'data', sizeBytes: 64n * MIB }] },
  });

let rig: Rig;
beforeEach(async () => {
  rig = new Rig();
  await rig.start();
});
afterEach(() => rig.stop());

interface Accepted {
  readonly operation: Operation;
}
const create = (runPolicy: RunPolicy = RunPolicy.RUNNING) =>
  rig.call<Accepted>('VmService', 'createVm', request(runPolicy));
const start = () => rig.call<Accepted>('VmService', 'startVm', vm);
const stop = (force = false) => rig.call<Accepted>('VmService', 'stopVm', { ...vm, force, timeoutMs: 0 });
const restart = () => rig.call<Accepted>('VmService', 'restartVm', { ...vm, force: false });
const remove = (force = false) => rig.call<Accepted>('VmService', 'deleteVm', { ...vm, force, revision: 0n });
const stateOf = ({ operation }: Accepted) => {
  const record = rig.view.tables.operation.get(operation.id)?.record;
  return record === undefined ? undefined : operationOf(record).state;
};
const status = () => rig.view.tables['vm-status'].get(rig.view.tables.vm.find('relay-1')?.id ?? '')?.record;
const { SUCCEEDED, CANCELLED } = OperationState;

describe('while a VM is being created', () => {
  it('a start comes after the creation and does not undo it', async () => {
    const created = await create(RunPolicy.STOPPED);
    const started = await start();
    await rig.finish();
    expect([stateOf(created), stateOf(started)]).toEqual([SUCCEEDED, SUCCEEDED]);
    expect(status()?.phase).toBe(VmPhase.RUNNING);
  });

  it('a stop leaves it created, and stopped', async () => {
    const created = await create();
    const stopped = await stop();
    await rig.finish();
    expect([stateOf(created), stateOf(stopped)]).toEqual([SUCCEEDED, SUCCEEDED]);
    expect(status()?.phase).toBe(VmPhase.STOPPED);
    expect(rig.pool.volumes.size).toBe(1);
  });

  it('a deletion gives the creation up', async () => {
    const created = await create();
    const removed = await remove();
    await rig.finish();
    expect([stateOf(created), stateOf(removed)]).toEqual([CANCELLED, SUCCEEDED]);
    expect(rig.view.tables.vm.size).toBe(0);
    expect(rig.pool.volumes.size).toBe(0);
  });
});

describe('a deletion', () => {
  it('that replaces another one still deletes', async () => {
    await create();
    await rig.finish();
    const first = await remove();
    const second = await remove(true);
    await rig.finish();
    expect([stateOf(first), stateOf(second)]).toEqual([CANCELLED, SUCCEEDED]);
    expect(rig.view.tables.vm.size).toBe(0);
    expect(rig.pool.volumes.size).toBe(0);
  });

  it('that is called off leaves the VM as it was', async () => {
    await create();
    await rig.finish();
    const removed = await remove();
    await rig.call('OperationService', 'cancelOperation', { operation: removed.operation.id });
    await rig.finish();
    await rig.finish();
    expect(stateOf(removed)).toBe(CANCELLED);
    expect(rig.view.tables.vm.find('relay-1')?.record.meta?.deleting).toBe(false);
    // The reconciler starts it again where the stop had begun.
    expect([VmPhase.RUNNING, VmPhase.STARTING]).toContain(status()?.phase);
  });

  it('keeps others out', async () => {
    await create();
    await rig.finish();
    await remove();
    for (const call of [start, stop, restart])
      await expect(call()).rejects.toMatchObject({ kind: 'precondition', reason: 'VM_DELETING' });
  });
});

describe('start, stop and restart', () => {
  it('replace each other: the last word counts', async () => {
    await create();
    await rig.finish();
    const calls = [await stop(), await start(), await stop(), await start()];
    await rig.finish();
    expect(calls.map(stateOf)).toEqual([CANCELLED, CANCELLED, CANCELLED, SUCCEEDED]);
    expect(status()?.phase).toBe(VmPhase.RUNNING);
  });

  it('a restart of a VM that waits after failures is not told as failed', async () => {
    await create();
    await rig.finish();
    const entry = rig.view.tables.vm.find('relay-1');
    const now = status();
    if (entry === undefined || now === undefined) throw new Error('no VM');
    const failed = { ...now, phase: VmPhase.STOPPED, host: '', failedStarts: 3, message: 'crashed' };
    const { revision } = await rig.run(
      rig.api.store.txn({ compare: [], writes: [putRecord('vm-status', entry.id, failed)] }),
    );
    await rig.run(rig.view.waitFor(revision));
    const restarted = await restart();
    await rig.finish();
    expect(stateOf(restarted)).toBe(SUCCEEDED);
    expect(status()).toMatchObject({ phase: VmPhase.RUNNING, failedStarts: 0 });
    expect(status()?.epoch).toBeGreaterThan(now.epoch);
  });

  it('a restart waits as long as its guest may take to shut down, and then for the start', async () => {
    const { spec } = request(RunPolicy.RUNNING);
    await rig.call('VmService', 'createVm', {
      ...request(RunPolicy.RUNNING),
      spec: { ...spec, shutdownTimeoutMs: 600_000 },
    });
    await rig.finish();
    const epoch = status()?.epoch ?? 0n;
    rig.shutdownHangs = true;
    const restarted = await restart();
    await expect(rig.finish(500_000)).rejects.toThrow('operations did not end');
    expect(stateOf(restarted)).toBe(OperationState.RUNNING);
    rig.shutdownHangs = false;
    await rig.finish();
    expect(stateOf(restarted)).toBe(SUCCEEDED);
    expect(status()).toMatchObject({ phase: VmPhase.RUNNING, epoch: epoch + 1n });
  });

  it('a restart whose guest stays beyond its time, power taken and all, is told as failed', async () => {
    await create();
    await rig.finish();
    rig.shutdownHangs = true;
    const restarted = await restart();
    await rig.finish();
    expect(stateOf(restarted)).toBe(OperationState.FAILED);
    const record = rig.view.tables.operation.get(restarted.operation.id)?.record;
    expect(record && operationOf(record).error).toMatchObject({ reason: 'VM_STOP_SLOW' });
  });

  it('a dry run of a start shows where a stopped VM would go', async () => {
    await create(RunPolicy.STOPPED);
    await rig.finish();
    const dry = await rig.call<{ operation?: Operation; placement: { host: string } }>('VmService', 'startVm', {
      ...vm,
      validateOnly: true,
    });
    expect(dry.operation).toBeUndefined();
    expect(dry.placement.host).toBe('host1');
    expect(rig.view.tables['host-status'].get('host1')?.record.state).toBe(HostState.READY);
  });
});
