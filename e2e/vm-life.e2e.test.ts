// SPDX-License-Identifier: Apache-2.0
import { mkdtemp, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { beforeAll, describe, expect, inject, it } from 'vitest';
import { busbar, busbarOk, eventually, getVm, guestCounter, guestYaml, HOSTS, inside, json, qemuPid } from './lab.ts';

/** Goal: the life of a VM as its users see it, on real parts from the API call to the sector on disk. */
const VM = 'life-1';
let address: string;

beforeAll(() => {
  address = `${inject('guestSubnet')}.31`;
});

const counter = async () => (await guestCounter(address))?.counter ?? null;
const booted = async (name: string) =>
  (await busbar(['vm', 'log', name])).stdout.includes('busbar-guest: ready') ? true : null;

describe('a VM', () => {
  it('is created from YAML with disks on RBD and runs where the API says', async () => {
    expect(await busbarOk(['apply', '-f', '-'], { input: guestYaml({ name: VM, address }) })).toContain('created');
    const { meta, status } = await getVm(VM);
    expect(status.phase).toBe('VM_PHASE_RUNNING');
    expect(HOSTS).toContain(status.host);
    expect(await inside(status.host, 'virsh', 'list', '--name')).toContain(VM);
    const xml = await inside(status.host, 'virsh', 'dumpxml', VM);
    for (const disk of status.disks) expect(xml).toContain(`busbar/volume.${disk.volume.id}`);
    expect(xml).toContain(meta.id);
    expect(xml).toMatch(/busbar:[a-z]+|xmlns:busbar|<busbar/);
    expect(xml).toContain("error_policy='stop'");
    // The key that opens the disks is a libvirt secret, nowhere in the XML or on QEMU's command line.
    const key = await inside(status.host, 'cat', '/etc/busbar/ceph/busbar-vm.key');
    expect(key.length).toBeGreaterThan(10);
    expect(xml).not.toContain(key);
    expect(await inside(status.host, 'sh', '-c', 'cat /proc/[0-9]*/cmdline | tr "\\0" " "')).not.toContain(key);
  });

  it('is left alone by a second apply of the same file', async () => {
    const before = await getVm(VM);
    expect(await busbarOk(['apply', '-f', '-'], { input: guestYaml({ name: VM, address }) })).toContain('unchanged');
    expect((await getVm(VM)).meta.revision).toBe(before.meta.revision);
  });

  it('is found, compared, waited for and told by the command', async () => {
    const diff = (input: string) => busbar(['diff', '-f', '-'], { input });
    expect(await diff(guestYaml({ name: VM, address }))).toMatchObject({ code: 0, stdout: '' });
    const more = guestYaml({ name: VM, address }).replace(/memoryBytes: .*/, 'memoryBytes: 300MiB');
    const changed = await diff(more);
    expect(changed.code).toBe(1);
    expect(changed.stdout).toMatch(/^-spec\.memoryBytes: \w+\n\+spec\.memoryBytes: 300MiB$/m);
    const filter = ['--filter', `name=${VM},phase=running,memory>16MiB,spec.disks.bus=virtio,age<1h`];
    expect(await busbarOk(['vm', 'list', '-o', 'name', ...filter])).toBe(`vm/${VM}\n`);
    expect(await busbarOk(['wait', `vm/${VM}`, '--for', 'phase=running', '--timeout', '30s'])).toContain(
      'phase=running',
    );
    expect((await busbar(['wait', `vm/${VM}`, '--for', 'phase=stopped', '--timeout', '1s'])).code).toBe(5);
    const [created] = (await busbarOk(['operation', 'list', '-o', 'name', '--filter', `target=vm/${VM}`])).split('\n');
    expect(await busbarOk(['operation', 'log', '-f', created ?? ''])).toMatch(/CreateVm.*\n(.*\n)*.*succeeded in/);
    const file = join(await mkdtemp(join(tmpdir(), 'busbar-e2e-')), 'bundle.tar.gz');
    expect(await busbarOk(['support-bundle', '--file', file])).toMatch(/^vms\.json +[1-9]/m);
    expect(gunzipSync(await readFile(file)).toString()).toContain(VM);
    expect(gunzipSync(await readFile(file)).toString()).not.toMatch(/#cloud-config|PRIVATE KEY/);
  });

  it('boots by BIOS, has its name and address from cloud-init, and serves its counter', async () => {
    await eventually('the guest to boot', 120_000, () => booted(VM));
    const log = await busbarOk(['vm', 'log', VM]);
    expect(log).toContain(`busbar-guest: name=${VM}`);
    expect(log).toContain(`busbar-guest: address=${address}`);
    const first = await eventually('the guest to answer', 60_000, () => guestCounter(address));
    expect(first.name).toBe(VM);
    await eventually('the counter to rise', 30_000, async () =>
      ((await counter()) ?? 0) > first.counter + 3 ? true : null,
    );
  });

  it('has an interactive serial console', async () => {
    const { stdout } = await busbar(['vm', 'console', VM], { input: '\necho console-$((40+2))\n', timeoutMs: 60_000 });
    expect(stdout).toContain('console-42');
  });

  it('answers through the guest agent channel', async () => {
    const { host } = (await getVm(VM)).status;
    const answer = await eventually('the guest agent', 30_000, async () => {
      const out = await inside(host, 'virsh', 'qemu-agent-command', VM, '{"execute":"guest-ping"}');
      return out.includes('return') ? out : null;
    });
    expect(JSON.parse(answer)).toEqual({ return: {} });
  });

  it('stops and starts, and its counter goes on', async () => {
    const before = (await counter()) ?? 0;
    const { epoch } = (await getVm(VM)).status;
    await busbarOk(['vm', 'stop', VM]);
    const stopped = await getVm(VM);
    expect(stopped.status.phase).toBe('VM_PHASE_STOPPED');
    // proto3 JSON leaves out what is empty.
    expect(stopped.status.host).toBeUndefined();
    for (const host of HOSTS) expect(await qemuPid(host, VM)).toBe('');
    await busbarOk(['vm', 'start', VM]);
    const after = await eventually('the guest to answer again', 120_000, counter);
    expect(after).toBeGreaterThanOrEqual(before);
    expect(Number((await getVm(VM)).status.epoch)).toBe(Number(epoch) + 1);
  });

  it('is started again with a new epoch when its QEMU dies', async () => {
    const { host, epoch } = (await getVm(VM)).status;
    const before = (await counter()) ?? 0;
    await inside(host, 'pkill', '-9', '-f', `qemu-system.*guest=${VM},`);
    await eventually('the next epoch to run', 120_000, async () => {
      const { status } = await getVm(VM);
      return status.phase === 'VM_PHASE_RUNNING' && Number(status.epoch) > Number(epoch) ? true : null;
    });
    const after = await eventually('the guest to answer again', 120_000, counter);
    expect(after).toBeGreaterThanOrEqual(before);
  });

  it('is deleted with its disks, and nothing of it is left', async () => {
    const { status } = await getVm(VM);
    await busbarOk(['vm', 'delete', VM]);
    expect((await busbar(['vm', 'get', VM])).code).toBe(3);
    const { volumes } = await json<{ volumes: { meta: { id: string } }[] }>(['volume', 'list']);
    for (const disk of status.disks) expect(volumes.map((volume) => volume.meta.id)).not.toContain(disk.volume.id);
    const images = await inside(
      'host1',
      'rbd',
      '--id',
      'busbar-controller',
      '--keyring',
      '/etc/busbar/ceph/busbar-controller.keyring',
      'ls',
      'busbar',
    );
    for (const disk of status.disks) expect(images).not.toContain(disk.volume.id);
  });
});

describe('a VM with UEFI', () => {
  it('boots from its own disk', async () => {
    await busbarOk(['apply', '-f', '-'], { input: guestYaml({ name: 'uefi-1', firmware: 'uefi' }) });
    await eventually('the guest to boot', 150_000, () => booted('uefi-1'));
    await busbarOk(['vm', 'delete', 'uefi-1', '--force']);
  });
});
