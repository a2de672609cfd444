// SPDX-License-Identifier: Apache-2.0
import { mkdtemp, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { ceph } from '@busbar/deploy/lab/ceph';
import { beforeAll, describe, expect, inject, it } from 'vitest';
import {
  busbar,
  busbarOk,
  eventually,
  getVm,
  guestCounter,
  guestYaml,
  HOSTS,
  inside,
  json,
  LAB,
  qemuPid,
} from './lab.ts';

/** Goal: the life of a VM as its users see it, on real parts from the API call to the sector on disk. */
const VM = 'life-1';
const PASSWORD = 'correct-horse-battery-staple';
let address: string;

beforeAll(() => {
  address = `${inject('guestSubnet')}.31`;
});

const counter = async () => (await guestCounter(address))?.counter ?? null;
const booted = async (name: string) =>
  (await busbar(['vm', 'log', name])).stdout.includes('busbar-guest: ready') ? true : null;

describe('a VM', () => {
  it('is created from YAML with disks on RBD and runs where the API says', async () => {
    expect(
      await busbarOk(['apply', '-f', '-'], { input: guestYaml({ name: VM, address, password: PASSWORD }) }),
    ).toContain('created');
    const { meta, status } = await getVm(VM);
    expect(status.phase).toBe('VM_PHASE_RUNNING');
    expect(HOSTS).toContain(status.host);
    expect(await inside(status.host, 'virsh', 'list', '--name')).toContain(VM);
    const xml = await inside(status.host, 'virsh', 'dumpxml', VM);
    for (const disk of status.disks) expect(xml).toContain(`busbar/volume.${disk.volume.id}`);
    expect(xml).toContain(meta.id);
    expect(xml).toMatch(/busbar:[a-z]+|xmlns:busbar|<busbar/);
    expect(xml).toContain("error_policy='stop'");
    // The key that opens the disks was made for this start. It is nowhere in the XML, in no argument and in no libvirt.
    expect(xml).toContain(`<auth username='busbar-vm.${meta.id}.${status.epoch}'>`);
    const key = (await ceph(LAB, ['auth', 'get-key', `client.busbar-vm.${meta.id}.${status.epoch}`])).stdout.trim();
    expect(key).toMatch(/^[\w+/]{38}==$/);
    expect(xml).not.toContain(key);
    expect(await inside(status.host, 'sh', '-c', 'cat /proc/[0-9]*/cmdline | tr "\\0" " "')).not.toContain(key);
    expect(
      (await inside(status.host, 'virsh', 'secret-list')).split('\n').filter((line) => /\w{8}-/.test(line)),
    ).toEqual([]);
  });

  it('runs in a QEMU without privileges, behind a filter of system calls, that can read no secret of the host', async () => {
    const { host } = (await getVm(VM)).status;
    const status = await inside(host, 'cat', `/proc/${await qemuPid(host, VM)}/status`);
    const field = (name: string) => new RegExp(`^${name}:\\s*(.*?)\\s*$`, 'm').exec(status)?.[1] ?? '';
    const [uid = '', gid = ''] = [field('Uid').split('\t')[0], field('Gid').split('\t')[0]];
    for (const name of ['Uid', 'Gid']) expect(field(name).split('\t')).not.toContain('0');
    expect(field('Groups').split(' ')).not.toContain('0');
    for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapAmb'])
      expect([set, BigInt(`0x${field(set)}`)]).toEqual([set, 0n]);
    expect(field('NoNewPrivs')).toBe('1');
    expect(field('Seccomp')).toBe('2');
    // What a guest that broke out would find.
    const asQemu = (...argv: string[]) =>
      inside(host, 'setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--clear-groups', ...argv);
    const readable = await asQemu(
      'find',
      '/etc/busbar',
      '/etc/ceph',
      '/var/lib/busbar',
      '/var/lib/ceph',
      '-type',
      'f',
      '-readable',
    );
    const paths = readable.split('\n');
    expect(paths).toContain('/etc/ceph/ceph.conf'); // which librbd in QEMU reads; so the search works
    // Configuration names no secret but by its path. No key, no memory, no record, no monitor's store, no disk of others.
    expect(paths.filter((path) => !/^\/etc\/(busbar|ceph)\/[a-z]+\.(yaml|conf)$/.test(path))).toEqual([]);
    expect(await asQemu('sh', '-c', 'cat /run/libvirt/libvirt-sock; virsh list; echo $?')).toMatch(/1$/);
  });

  it('leaves the password in its user data nowhere but in the sealed record and on the disk for its guest', async () => {
    const { meta, status } = await getVm(VM);
    const seed = `/var/lib/busbar/agent/seed/${meta.id}.iso`;
    for (const host of HOSTS) {
      const found = await inside(
        host,
        'sh',
        '-c',
        `grep -rlaFs -D skip '${PASSWORD}' /var/log /var/lib/busbar /var/lib/libvirt /etc /run`,
      );
      // etcd's own files, logs of every daemon and of QEMU, libvirt's XML: none. The disk for the guest shows that it is looked for.
      expect(found).toBe(host === status.host ? seed : '');
      const processes = await inside(
        host,
        'sh',
        '-c',
        'cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr "\\0" "\\n"',
      );
      expect(processes).toContain('busbar');
      expect(processes).not.toContain(PASSWORD);
    }
    const qemu = await inside(status.host, 'stat', '-c', '%u', `/proc/${await qemuPid(status.host, VM)}`);
    expect(await inside(status.host, 'stat', '-c', '%u %a', seed)).toBe(`${qemu} 600`);
    // Whoever may open the guest's console may read it; tests of the API show that a viewer may not.
    expect(await busbarOk(['vm', 'get', VM, '-o', 'json'])).toContain(PASSWORD);
  });

  it('is left alone by a second apply of the same file', async () => {
    const before = await getVm(VM);
    expect(
      await busbarOk(['apply', '-f', '-'], { input: guestYaml({ name: VM, address, password: PASSWORD }) }),
    ).toContain('unchanged');
    expect((await getVm(VM)).meta.revision).toBe(before.meta.revision);
  });

  it('is found, compared, waited for and told by the command', async () => {
    const diff = (input: string) => busbar(['diff', '-f', '-'], { input });
    const yaml = guestYaml({ name: VM, address, password: PASSWORD });
    expect(await diff(yaml)).toMatchObject({ code: 0, stdout: '' });
    const more = yaml.replace(/memoryBytes: .*/, 'memoryBytes: 300MiB');
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
    const bundle = gunzipSync(await readFile(file)).toString();
    for (const text of [VM, 'VM_STARTED', 'CreateVm']) expect(bundle).toContain(text);
    for (const secret of [PASSWORD, '#cloud-config', 'PRIVATE KEY']) expect(bundle).not.toContain(secret);
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
