// SPDX-License-Identifier: Apache-2.0
/** The dir driver against QEMU's real locks; the rest of the suite runs in driver.test.ts. */
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { VolumeId } from '@busbar/core/ids';
import { systemRandom } from '@busbar/core/random';
import { expect, test, vi } from 'vitest';
import { openStorage } from '../open.ts';

test('a volume that QEMU has open is not deleted', async () => {
  const path = await mkdtemp(join(tmpdir(), 'busbar-dir-'));
  const driver = openStorage({ driver: 'dir', path }, { anyMount: true });
  const volumeId = systemRandom.uuid() as VolumeId;
  try {
    await driver.createVolume({ volumeId, sizeBytes: 1048576n });
    const source = driver.diskSource(volumeId);
    const file = source.kind === 'file' ? source.path : '';
    // A machine that never runs: its disk is opened and locked as that of a VM.
    const machine = ['-M', 'q35,accel=tcg', '-m', '32', '-display', 'none', '-nodefaults', '-S', '-monitor', 'stdio'];
    const disk = ['-drive', `if=none,id=a,format=raw,file=${file}`, '-device', 'virtio-blk-pci,drive=a'];
    const args = ['--pdeathsig', 'KILL', 'qemu-system-x86_64', ...machine, ...disk];
    const qemu = spawn('setpriv', args, { stdio: ['pipe', 'pipe', 'ignore'] });
    const exited = new Promise<void>((resolve) => qemu.once('exit', () => resolve()));
    let output = '';
    qemu.stdout.on('data', (text: Buffer) => {
      output += text.toString();
    });
    await vi.waitFor(() => expect(output).toContain('(qemu)'), { timeout: 20_000 });
    await expect(driver.deleteVolume(volumeId)).rejects.toMatchObject({ reason: 'VOLUME_IN_USE' });
    qemu.stdin.write('quit\n');
    await exited;
    await driver.deleteVolume(volumeId);
    expect(await driver.listVolumes()).toEqual([]);
  } finally {
    await driver.close();
    await rm(path, { recursive: true, force: true });
  }
});
