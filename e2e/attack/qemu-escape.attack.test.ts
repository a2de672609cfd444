// SPDX-License-Identifier: Apache-2.0
/**
 * Goal: a guest that broke out of its QEMU has what is its own, and nothing of another VM or of the host. Method: two VMs on one
 * host; a search (search.mjs) as the first one's user, with the groups that its QEMU really has, and Ceph's own programs with its key.
 */
import { fileURLToPath } from 'node:url';
import { busbarOk } from '@busbar/deploy/demo/busbar';
import { ceph } from '@busbar/deploy/lab/ceph';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { guestYaml, type VmJson } from '../lab.ts';
import { busbar, inside, json, LAB, VOTELESS } from './lab.ts';

const SEARCH = fileURLToPath(new URL('./search.mjs', import.meta.url));
const [MINE, OTHER] = ['escape-1', 'escape-2'];
const PASSWORD = 'word-in-the-seed-of-the-other';
const ON = VOTELESS;

interface Found {
  readonly files: readonly string[];
  readonly needles: readonly string[];
  readonly sockets: readonly string[];
  readonly processes: readonly string[];
  readonly ownKey?: string;
  readonly looked: {
    readonly files: number;
    readonly read: number;
    readonly sockets: number;
    readonly processes: number;
  };
}

let mine: VmJson;
let other: VmJson;
let ids: { readonly uid: string; readonly gid: string; readonly groups: string };
let otherKey: string;

const qemuOf = async (vm: string) => (await inside(ON, 'pgrep', '-f', `qemu-system.*guest=${vm},`)).stdout.trim();
const idsOf = async (vm: string) => {
  const { stdout } = await inside(ON, 'cat', `/proc/${await qemuOf(vm)}/status`);
  const field = (name: string) => new RegExp(`^${name}:\\s*(.*?)\\s*$`, 'm').exec(stdout)?.[1] ?? '';
  return { uid: field('Uid'), gid: field('Gid'), groups: field('Groups') };
};
const entityOf = ({ meta, status }: VmJson) => `busbar-vm.${meta.id}.${status.epoch}`;
/** As whoever took the first VM's QEMU over. */
const asMine = (...argv: string[]) => {
  const [uid, gid] = [ids.uid.split('\t')[0] ?? '', ids.gid.split('\t')[0] ?? ''];
  const groups = ids.groups === '' ? ['--clear-groups'] : ['--groups', ids.groups.split(/\s+/).join(',')];
  return inside(ON, 'setpriv', `--reuid=${uid}`, `--regid=${gid}`, ...groups, ...argv);
};

beforeAll(async () => {
  for (const name of [MINE, OTHER]) {
    const input = guestYaml({ name, pinnedHost: ON, password: name === OTHER ? PASSWORD : 'own' });
    await busbarOk(LAB, ['apply', '-f', '-'], { input });
  }
  [mine, other] = [await json<VmJson>(['vm', 'get', MINE]), await json<VmJson>(['vm', 'get', OTHER])];
  ids = await idsOf(MINE);
  const { stdout } = await ceph(LAB, ['auth', 'get-key', `client.${entityOf(other)}`]);
  otherKey = stdout.trim();
});
afterAll(async () => {
  for (const name of [MINE, OTHER]) await busbar(['vm', 'delete', name, '--force']);
});

describe('a guest that broke out of its QEMU', () => {
  it('is a user and a group that no other QEMU and nobody else is', async () => {
    const others = await idsOf(OTHER);
    const distinct = (text: string) => [...new Set(text.split(/\s+/).filter((word) => word !== ''))];
    expect([distinct(ids.uid), distinct(ids.gid)]).toEqual([[expect.any(String)], [expect.any(String)]]);
    expect(distinct(others.uid)).not.toEqual(distinct(ids.uid));
    expect(distinct(others.gid)).not.toEqual(distinct(ids.gid));
    // No group that another user of the host is in.
    expect(distinct(ids.groups).filter((group) => group !== distinct(ids.gid)[0])).toEqual([]);
    for (const file of ['/etc/passwd', '/etc/group']) {
      expect((await inside(ON, 'cat', file)).stdout).not.toMatch(new RegExp(`:${distinct(ids.uid)[0]}:`));
    }
  });

  it('finds no key, file, socket, process or memory of another VM or of the host', async () => {
    const what = { names: [other.meta.id, OTHER, ...other.status.disks.map(({ volume }) => volume.id)] };
    const users = (await idsOf(OTHER)).uid.split('\t').map(Number);
    const needles = [otherKey, PASSWORD, '-----BEGIN PRIVATE KEY-----\nM'];
    const { stdout, stderr } = await asMine(process.execPath, SEARCH, JSON.stringify({ ...what, users, needles }));
    expect(stdout, stderr).not.toBe('');
    const found = JSON.parse(stdout) as Found;
    const { files, needles: secrets, sockets, processes } = found;
    expect({ files, secrets, sockets, processes }).toEqual({ files: [], secrets: [], sockets: [], processes: [] });
    // So it did look, as somebody who has a key of his own.
    expect(found.looked.files).toBeGreaterThan(1_000);
    expect(found.looked.read).toBeGreaterThan(10);
    expect(found.looked.sockets).toBeGreaterThan(3);
    expect(found.looked.processes).toBeGreaterThan(10);
    const { stdout: ownKey } = await ceph(LAB, ['auth', 'get-key', `client.${entityOf(mine)}`]);
    expect(found.ownKey).toBe(ownKey.trim());
  });

  it('opens its own disk with its key, and no other, lists no pool and stops no host', async () => {
    const { stdout: ownKey } = await ceph(LAB, ['auth', 'get-key', `client.${entityOf(mine)}`]);
    const as = async (program: string, ...args: string[]) => {
      const { code, stdout, stderr } = await asMine(program, '--id', entityOf(mine), `--key=${ownKey.trim()}`, ...args);
      return code === 0 ? `done ${stdout}` : `failed ${stderr}`;
    };
    const volumeOf = (vm: VmJson) => `busbar/volume.${vm.status.disks[0]?.volume.id}`;
    const objectOf = (vm: VmJson) => `rbd_id.volume.${vm.status.disks[0]?.volume.id}`;
    expect(await as('rados', '-p', 'busbar', 'get', objectOf(mine), '-')).toMatch(/^done /);
    for (const argv of [
      ['rbd', 'info', volumeOf(other)],
      ['rbd', 'export', volumeOf(other), '-'],
      ['rbd', 'bench', '--io-type', 'write', '--io-total', '4K', volumeOf(other)],
      ['rbd', 'ls', 'busbar'],
      ['rados', '-p', 'busbar', 'ls'],
      ['rados', '-p', 'busbar', 'get', objectOf(other), '-'],
      ['ceph', 'auth', 'ls'],
      ['ceph', 'osd', 'blocklist', 'add', '10.77.250.250:0/0', '5'],
      ['ceph', 'osd', 'blocklist', 'range', 'add', '10.77.250.0/24', '5'],
    ]) {
      const [program = '', ...args] = argv;
      const denied = /^failed [\s\S]*(not permitted|EACCES|denied|EPERM)/;
      expect([argv.join(' '), await as(program, ...args)]).toEqual([argv.join(' '), expect.stringMatching(denied)]);
    }
  });

  it('loses its key with its QEMU', async () => {
    const { stdout: key } = await ceph(LAB, ['auth', 'get-key', `client.${entityOf(mine)}`]);
    await busbarOk(LAB, ['vm', 'stop', MINE, '--force']);
    await busbarOk(LAB, ['vm', 'start', MINE]);
    const now = await json<VmJson>(['vm', 'get', MINE]);
    const own = ['--id', entityOf(mine), `--key=${key.trim()}`];
    const former = await inside(ON, 'rbd', ...own, 'info', `busbar/volume.${mine.status.disks[0]?.volume.id}`);
    expect(former.code).not.toBe(0);
    expect((await ceph(LAB, ['auth', 'get-key', `client.${entityOf(now)}`])).stdout.trim()).not.toBe(key.trim());
    mine = now;
  });
});
