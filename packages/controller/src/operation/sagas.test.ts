// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import type { ImageId } from '@busbar/core/ids';
import { ImageFormat, ImagePhase } from '@busbar/proto/gen/busbar/v1/image';
import { OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import { CreateVmRequest, RunPolicy } from '@busbar/proto/gen/busbar/v1/vm';
import { CreateVolumeRequest } from '@busbar/proto/gen/busbar/v1/volume';
import { afterEach, describe, expect, it } from 'vitest';
import { SAGAS } from '../leader/term.ts';
import { nameKey, putRecord, ROOT } from '../records/kinds.ts';
import { Rig } from '../testing/rig.ts';
import { around } from './around.fixture.ts';
import { operationOf } from './progress.ts';
import type { Saga, SagaStep } from './saga.ts';

/**
 * Goal: every saga keeps its promises, whatever its steps are. Method: the same treatment for each saga of the leader's
 * table – every do twice, every undo twice, a fault before and after the effect of each step, a new leader at each
 * step – and the same question afterwards: is the world either as asked, or as it was?
 */
const MIB = 1024n ** 2n;

interface Scenario {
  /** Brings the world to where the call makes sense. */
  readonly prepare: (rig: Rig) => Promise<unknown>;
  readonly call: (rig: Rig) => Promise<unknown>;
}

const vmRequest = (runPolicy: RunPolicy) =>
  CreateVmRequest.fromPartial({
    name: 'relay-1',
    spec: {
      runPolicy,
      cpu: { vcpus: 1 },
      memoryBytes: 256n * MIB,
      disks: [
        { name: 'boot', image: 'debian' },
        { name: 'data', sizeBytes: 64n * MIB },
      ],
    },
  });

async function withImage(rig: Rig): Promise<void> {
  const id = '6695eb01-f6a4-4304-89aa-97f2502e193f';
  async function* source() {
    yield new Uint8Array(Number(MIB));
  }
  await rig.run(
    rig.api.storage.importImage({
      imageId: id as ImageId,
      format: 'raw',
      sizeBytes: MIB,
      sha256: null,
      source: source(),
      signal: new AbortController().signal,
    }),
  );
  const written = await rig.run(
    rig.api.store.txn({
      compare: [],
      writes: [
        putRecord('image', id, {
          meta: { id, name: 'debian', labels: {}, createTime: undefined, updateTime: undefined, deleting: false },
          spec: { format: ImageFormat.RAW, fileSizeBytes: MIB, sha256: '' },
          status: { phase: ImagePhase.READY, virtualSizeBytes: MIB, allocatedBytes: MIB, sha256: '' },
        }),
        { kind: 'put', key: nameKey('image', 'debian'), value: id },
      ],
    }),
  );
  await rig.run(rig.view.waitFor(written.revision));
}

async function withVm(rig: Rig, runPolicy: RunPolicy = RunPolicy.RUNNING): Promise<void> {
  await withImage(rig);
  await rig.call('VmService', 'createVm', vmRequest(runPolicy));
  await rig.finish();
}

async function withVolume(rig: Rig): Promise<void> {
  await rig.call(
    'VolumeService',
    'createVolume',
    CreateVolumeRequest.fromPartial({ name: 'history', spec: { sizeBytes: 64n * MIB } }),
  );
  await rig.finish();
}

const flags = { validateOnly: false, requestId: '' };
const vm = { vm: 'relay-1', ...flags };

const SCENARIOS: Readonly<Record<string, Scenario>> = {
  'create-vm': { prepare: withImage, call: (rig) => rig.call('VmService', 'createVm', vmRequest(RunPolicy.RUNNING)) },
  'delete-vm': {
    prepare: withVm,
    call: (rig) => rig.call('VmService', 'deleteVm', { ...vm, force: false, revision: 0n }),
  },
  'start-vm': { prepare: (rig) => withVm(rig, RunPolicy.STOPPED), call: (rig) => rig.call('VmService', 'startVm', vm) },
  'stop-vm': { prepare: withVm, call: (rig) => rig.call('VmService', 'stopVm', { ...vm, force: false, timeoutMs: 0 }) },
  'restart-vm': { prepare: withVm, call: (rig) => rig.call('VmService', 'restartVm', { ...vm, force: false }) },
  'create-volume': {
    prepare: async () => {},
    call: (rig) =>
      rig.call(
        'VolumeService',
        'createVolume',
        CreateVolumeRequest.fromPartial({ name: 'history', spec: { sizeBytes: 64n * MIB } }),
      ),
  },
  'resize-volume': {
    prepare: withVolume,
    call: (rig) =>
      rig.call('VolumeService', 'resizeVolume', { volume: 'history', sizeBytes: 128n * MIB, revision: 0n, ...flags }),
  },
  'delete-volume': {
    prepare: withVolume,
    call: (rig) => rig.call('VolumeService', 'deleteVolume', { volume: 'history', revision: 0n, ...flags }),
  },
  'delete-image': {
    prepare: withImage,
    call: (rig) => rig.call('ImageService', 'deleteImage', { image: 'debian', revision: 0n, ...flags }),
  },
};

type Treatment = (step: SagaStep, index: number) => SagaStep;

const treated = (saga: Saga, treatment: Treatment): Saga => ({ ...saga, steps: saga.steps.map(treatment) });
const allWith = (saga: Saga, treatment: Treatment) =>
  SAGAS.map((each) => (each.name === saga.name ? treated(each, treatment) : each));

let rig: Rig;
afterEach(() => rig.stop());

async function perform(saga: Saga, treatment: Treatment) {
  const scenario = SCENARIOS[saga.name];
  if (scenario === undefined) throw new Error(`no scenario for saga ${saga.name}: add one`);
  rig = new Rig();
  await rig.start();
  await scenario.prepare(rig);
  const before = {
    stored: await rig.stored(),
    volumes: [...rig.pool.volumes.keys()],
    images: [...rig.pool.images.keys()],
  };
  rig.newLeader(allWith(saga, treatment));
  await scenario.call(rig);
  await rig.finish();
  const operation = operationOf(lastOperation(rig).record);
  const after = {
    stored: await rig.stored(),
    volumes: [...rig.pool.volumes.keys()],
    images: [...rig.pool.images.keys()],
  };
  return { operation, before, after };
}

function lastOperation(of: Rig) {
  const last = [...of.view.tables.operation.sorted()].sort((a, b) => (a.createRevision < b.createRevision ? 1 : -1))[0];
  if (last === undefined) throw new Error('no operation');
  return last;
}

/** What is kept of the world for comparison: which things exist, not when they were last touched. */
const shape = (world: { stored: ReadonlyMap<string, string>; volumes: string[]; images: string[] }) => ({
  keys: [...world.stored.keys()].sort(),
  volumes: world.volumes.toSorted(),
  images: world.images.toSorted(),
});

/** The world after a deletion, from the world before it. */
function goneFrom(saga: Saga, world: Parameters<typeof shape>[0]) {
  const kind = saga.name === 'delete-volume' ? 'volume' : saga.name === 'delete-image' ? 'image' : null;
  if (kind === null) return {};
  const keys = shape(world).keys.filter(
    (key) => !key.startsWith(`${ROOT}${kind}/`) && !key.startsWith(`${ROOT}name/${kind}/`),
  );
  return kind === 'volume' ? { keys, volumes: [] } : { keys, images: [] };
}

const asIs: Treatment = (step) => step;

describe.each(SAGAS.map((saga) => [saga.name, saga] as const))('saga %s', (_name, saga) => {
  it('ends well, and ends the same when every step is done twice', async () => {
    const plain = await perform(saga, asIs);
    expect(plain.operation.error).toBeUndefined();
    expect(plain.operation.state).toBe(OperationState.SUCCEEDED);
    rig.stop();
    const twice = await perform(saga, (step) =>
      around(step, async (run) => {
        await run();
        return run();
      }),
    );
    expect(twice.operation.state).toBe(OperationState.SUCCEEDED);
    expect(shape(twice.after)).toEqual(shape(plain.after));
  });

  it('goes on under a new leader at every step', async () => {
    const plain = await perform(saga, asIs);
    rig.stop();
    // The effect of a step happened, its completion was not recorded, and another leader takes over.
    const lost = new Set<string>();
    const moved = await perform(saga, (step) =>
      around(step, async (run) => {
        const outcome = await run();
        if (outcome.kind === 'done' && !lost.has(step.name)) {
          lost.add(step.name);
          rig.newLeader();
          throw new BusbarError({ kind: 'unavailable', reason: 'TEST', message: 'the leader died here' });
        }
        return outcome;
      }),
    );
    expect(moved.operation.state).toBe(OperationState.SUCCEEDED);
    expect(shape(moved.after)).toEqual(shape(plain.after));
  });

  describe.each(saga.steps.map((step, index) => [step.name, index] as const))('a fault at step %s', (_step, at) => {
    const stays = saga.steps.slice(0, at + 1).some((step) => step.pointOfNoReturn);

    it.each(['before', 'after'] as const)(
      '%s its effect leaves the world as it was, or says that it cannot',
      async (when) => {
        const { operation, before, after } = await perform(saga, (step, index) => {
          const undo = step.undo;
          const faulty = around(step, async (run) => {
            const outcome = index === at && when === 'before' ? null : await run();
            if (index === at && (outcome === null || outcome.kind === 'done')) {
              throw new BusbarError({ kind: 'precondition', reason: 'INJECTED', message: `fault at ${step.name}` });
            }
            return outcome ?? { kind: 'wait', message: '' };
          });
          return {
            ...faulty,
            undo:
              undo === null
                ? null
                : async (context) => {
                    await undo(context);
                    return undo(context);
                  },
          };
        });
        expect(operation.state).toBe(OperationState.FAILED);
        expect(operation.error?.reason).toBe('INJECTED');
        if (stays) return;
        // What was already deleted cannot come back: then the world is as asked, with no trace of it.
        const asked = { ...shape(before), ...goneFrom(saga, before) };
        expect([shape(before), asked]).toContainEqual(shape(after));
      },
    );
  });
});

describe('a VM whose QEMU does not start', () => {
  it('stays, stopped, and the operation carries the reason', async () => {
    rig = new Rig();
    await rig.start();
    await withImage(rig);
    rig.startFailure = 'qemu-system-x86_64: cannot open disk';
    await rig.call('VmService', 'createVm', vmRequest(RunPolicy.RUNNING));
    await rig.finish();
    const operation = operationOf(lastOperation(rig).record);
    expect(operation.state).toBe(OperationState.FAILED);
    expect(operation.error).toMatchObject({
      reason: 'VM_START_FAILED',
      message: expect.stringContaining('cannot open disk'),
    });
    expect(rig.view.tables.vm.find('relay-1')).toBeDefined();
    expect(rig.pool.volumes.size).toBe(2);
  });
});
