// SPDX-License-Identifier: Apache-2.0
import { setTimeout as sleep } from 'node:timers/promises';
import { busbarOk } from '@busbar/deploy/demo/busbar';
import { labCeph } from '@busbar/deploy/lab/lab';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { busbar, eventually, inside, json, LAB, untilReady, VOTELESS } from './lab.ts';

/**
 * Goal: a guest sees its disk grow, and no command costs a guest its disk because its QEMU stood still for a while.
 * Method: the real QEMU on RBD is asked to grow a disk; then it is stopped (SIGSTOP) for longer than librbd waits before it
 * takes an image's lock by blocklisting the client (30 s), while somebody resizes.
 */
const NAME = 'stands-still';
const FROZEN_MS = 60_000;
const MIB = 1024 ** 2;

beforeAll(async () => {
  const input = `apiVersion: busbar.v1
kind: Vm
name: ${NAME}
spec:
  runPolicy: running
  cpu: {vcpus: 1}
  memoryBytes: 256MiB
  disks:
    - {name: boot, image: busbar-guest}
    - {name: data, sizeBytes: 64MiB}
  placement: {pinnedHost: ${VOTELESS}}
`;
  await busbarOk(LAB, ['apply', '-f', '-'], { input });
  await eventually('the guest is up', 120_000, async () => {
    await sleep(1_000);
    return (await busbar(['vm', 'log', NAME])).stdout.includes('busbar-guest: ready') ? true : null;
  });
}, 180_000);

afterAll(async () => {
  await busbar(['vm', 'delete', NAME, '--force']);
  await untilReady();
});

/** What a command prints in the guest's shell; the end mark is computed there, so that the echoed input does not hold it. */
async function inGuest(command: string): Promise<string> {
  const input = `\n${command}; echo end-$((40+2))\n`;
  return eventually(`an answer to "${command}"`, 60_000, async () => {
    const { stdout } = await busbar(['vm', 'console', NAME], { input });
    return stdout.includes('end-42') ? stdout : null;
  });
}

const guestSees = async (mib: number) =>
  expect(await inGuest('echo sectors=$(cat /sys/block/vdb/size)')).toContain(`sectors=${(mib * MIB) / 512}`);
const phase = async () => (await json<{ status: { phase: string } }>(['vm', 'get', NAME])).status.phase;
const blocklist = async () => JSON.stringify(await labCeph(LAB, ['osd', 'blocklist', 'ls', '-f', 'json']));

it('a disk grows under a running guest, which sees it', async () => {
  await guestSees(64);
  await busbarOk(LAB, ['volume', 'resize', `${NAME}-data`, '128MiB']);
  await guestSees(128);
  const { stdout } = await inside(VOTELESS, 'virsh', 'domblkinfo', NAME, 'vdb');
  expect(stdout).toMatch(new RegExp(`Capacity: +${128 * MIB}\\n`));
  const smaller = await busbar(['volume', 'resize', `${NAME}-data`, '64MiB']);
  expect(smaller.stderr).toContain('VOLUME_SHRINK');
}, 120_000);

it('a resize while its QEMU stands still fails in time, and the guest goes on as if nothing had been', async () => {
  const before = await blocklist();
  const pid = (await inside(VOTELESS, 'pgrep', '-f', `qemu-system.*guest=${NAME},`)).stdout.trim();
  expect(pid).toMatch(/^\d+$/);
  await inside(VOTELESS, 'kill', '-STOP', pid);
  const beganMs = performance.now();
  try {
    const failed = await busbar(['volume', 'resize', `${NAME}-data`, '256MiB']);
    expect(failed.stderr).toContain('VM_NOT_ANSWERING');
    expect(performance.now() - beganMs).toBeLessThan(FROZEN_MS);
    await sleep(Math.max(0, FROZEN_MS - (performance.now() - beganMs)));
  } finally {
    await inside(VOTELESS, 'kill', '-CONT', pid);
  }
  expect(await blocklist()).toBe(before);
  await eventually('it runs', 30_000, async () => ((await phase()) === 'VM_PHASE_RUNNING' ? true : null));
  // It writes, through the cache of nobody: an I/O error would have paused it.
  expect(await inGuest('dd if=/dev/zero of=/dev/vdb bs=4096 count=1 seek=1000 oflag=direct 2>&1')).toContain(
    '1+0 records out',
  );
  expect(await phase()).toBe('VM_PHASE_RUNNING');
  await busbarOk(LAB, ['volume', 'resize', `${NAME}-data`, '256MiB']);
  await guestSees(256);
}, 240_000);
