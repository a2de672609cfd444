// SPDX-License-Identifier: Apache-2.0
// Disks that grow while their VM runs: QEMU is asked, once it has done it that is told, and it holds up nothing.
import { DomainState } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { describe, expect, it } from 'vitest';
import { desiredVm, type Rig, running, vmId } from './agent.fixture.ts';
import { fileDisk, testSpec } from './driver/domain.fixture.ts';

const VOLUME = '5d2c0c39-41f5-4c53-9d10-0f7f1b1a0001';
const MIB = 1024n ** 2n;
const wanted = (growToBytes: bigint, epoch = 1n) =>
  desiredVm(1, epoch, { domain: testSpec({ disks: [fileDisk('/volumes/a.raw', { volumeId: VOLUME, growToBytes })] }) });
const sizes = (rig: Rig) => rig.reported(1)[0]?.diskSizes;

async function grown(): Promise<Rig> {
  const rig = await running();
  rig.desire([wanted(0n)]);
  await rig.clock.advance(10_000);
  return rig;
}

/** A VM whose disk QEMU knows: the first start of the rig had none. */
async function withDisk(): Promise<Rig> {
  const rig = await grown();
  rig.desire([wanted(0n, 2n)]);
  await rig.until(
    () => rig.reported(1).some((each) => each.epoch === 2n && each.state === DomainState.RUNNING),
    20_000,
    'epoch 2',
  );
  return rig;
}

describe('a disk that shall grow', () => {
  it('is grown by QEMU, which is told with its size; what is not to grow is never asked about', async () => {
    const rig = await withDisk();
    expect(sizes(rig)).toEqual({});
    rig.desire([wanted(128n * MIB, 2n)]);
    await rig.until(() => sizes(rig)?.[VOLUME] === 128n * MIB, 10_000, 'the size');
    rig.desire([wanted(0n, 2n)]);
    await rig.clock.advance(10_000);
    expect(rig.starts(1)).toEqual([1n, 2n]);
  });

  it('is asked about again by the next agent, which does no harm', async () => {
    const rig = await withDisk();
    rig.desire([wanted(128n * MIB, 2n)]);
    await rig.until(() => sizes(rig)?.[VOLUME] === 128n * MIB, 10_000, 'the size');
    rig.killAgent();
    rig.startAgent();
    await rig.clock.advance(2_000);
    rig.desire([wanted(64n * MIB, 2n)]);
    await rig.until(() => sizes(rig)?.[VOLUME] === 128n * MIB, 10_000, 'the size that it has, not the smaller one');
  });

  it('of a QEMU that stands still: told, asked again, and the VM can be stopped meanwhile', async () => {
    const rig = await withDisk();
    rig.machine.faults.frozen = new Set([vmId(1)]);
    rig.desire([wanted(128n * MIB, 2n)]);
    await rig.until(() => /was not grown/.test(rig.reported(1)[0]?.message ?? ''), 20_000, 'the reason');
    expect(rig.reported(1)[0]).toMatchObject({ state: DomainState.RUNNING, diskSizes: {} });
    rig.machine.faults.frozen = new Set();
    await rig.until(() => sizes(rig)?.[VOLUME] === 128n * MIB, 20_000, 'the size, once it answers');
    expect(rig.reported(1)[0]?.message).toBe('');

    rig.machine.faults.frozen = new Set([vmId(1)]);
    rig.desire([wanted(256n * MIB, 2n)]);
    await rig.clock.advance(1_000);
    rig.desire([], [{ vmId: vmId(1), epochMax: 2n }]);
    await rig.until(() => rig.machine.domains.length === 0, 15_000, 'its end');
  });

  it('of libvirt that hangs is grown once it is back', async () => {
    const rig = await withDisk();
    rig.machine.setHypervisor('hung');
    rig.desire([wanted(128n * MIB, 2n)]);
    await rig.clock.advance(30_000);
    expect(rig.starts(1)).toEqual([1n, 2n]);
    rig.machine.setHypervisor('up');
    await rig.until(() => sizes(rig)?.[VOLUME] === 128n * MIB, 30_000, 'the size');
  });
});
