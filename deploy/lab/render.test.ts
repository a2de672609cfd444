// SPDX-License-Identifier: Apache-2.0

import { controllerMonCaps } from '@busbar/storage/rbd/access';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { unready } from './busbar.ts';
import { readStatus } from './ceph.ts';
import { addContext, isEmpty, removeContext } from './context.ts';
import { ownLinks, renderPartition } from './network.ts';
import { renderSwitchFilter, renderSwitchTransaction } from './open-vswitch.ts';
import { findHost, type LabSpec, planLab } from './plan.ts';
import { freeIndex } from './registry.ts';
import { cephEntities, cephxSecret, renderCephConf, renderKeyring } from './render-ceph.ts';
import {
  renderAgentYaml,
  renderControllerYaml,
  renderHosts,
  renderLibvirtdConf,
  renderNatsConf,
} from './render-host.ts';
import { quote, renderServices } from './render-services.ts';
import { renderStatus } from './tables.ts';

const spec: LabSpec = {
  name: 'lab',
  index: 0,
  hosts: 3,
  witnesses: 1,
  ceph: true,
  fsid: '11111111-2222-4333-8444-555555555555',
};
const plan = planLab(spec);
const host1 = findHost(plan, 'host1');
const witness = findHost(plan, 'witness1');
const daemons = { node: '/opt/a b/node', repository: '/srv/busbar', controller: true, agent: true };

describe('configuration of the daemons', () => {
  it('tells a controller what it needs', () => {
    expect(parse(renderControllerYaml(plan, host1))).toMatchObject({
      cluster: 'lab',
      host: 'host1',
      listen: '10.77.0.11:7800',
      edge: { listen: '10.77.0.11:7801' },
      etcd: {
        endpoints: ['https://10.77.0.11:2379', 'https://10.77.0.12:2379', 'https://10.77.0.21:2379'],
        tls: { ca: '/etc/busbar/pki/etcd-ca.crt' },
      },
      controllers: [{ host: 'host1', address: '10.77.0.11:7800' }, { host: 'host2' }, { host: 'witness1' }],
      storage: { driver: 'rbd', pool: 'busbar', user: 'busbar-controller' },
      nats: { servers: ['tls://10.77.0.11:4222', ...['12', '13', '21'].map((n) => `tls://10.77.0.${n}:4222`)] },
    });
  });

  it('tells an agent what it needs, and nothing of etcd', () => {
    const agent = parse(renderAgentYaml(plan, host1)) as Record<string, unknown>;
    expect(agent).toMatchObject({
      host: 'host1',
      role: 'hypervisor',
      managementAddress: '10.77.0.11',
      storageAddress: '10.77.1.11',
      libvirt: { uri: 'qemu:///system' },
      storage: {
        driver: 'rbd',
        monitors: ['10.77.1.11:3300', '10.77.1.12:3300', '10.77.1.21:3300'],
      },
    });
    expect(JSON.stringify(agent)).not.toContain('etcd');
    // Each start of a VM brings a key of its own.
    expect(JSON.stringify(agent)).not.toMatch(/keyFile|keyring/);
  });

  it('tells a witness nothing of libvirt and storage, which its agent refuses', () => {
    const agent = parse(renderAgentYaml(plan, witness)) as Record<string, unknown>;
    expect(agent).toMatchObject({ host: 'witness1', role: 'witness', storageAddress: '10.77.1.21' });
    expect(Object.keys(agent)).not.toContain('libvirt');
    expect(Object.keys(agent)).not.toContain('storage');
  });

  it('uses the shared directory without Ceph', () => {
    const plain = planLab({ ...spec, ceph: false });
    const expected = { storage: { driver: 'dir', path: '/var/lib/busbar/volumes' } };
    expect(parse(renderAgentYaml(plain, host1))).toMatchObject(expected);
    expect(parse(renderControllerYaml(plain, host1))).toMatchObject(expected);
  });

  it('names the peers', () => {
    expect(renderHosts(plan)).toContain('10.77.0.12 host2\n');
    expect(JSON.parse(renderNatsConf(plan, host1))).toMatchObject({
      tls: { cert_file: '/etc/busbar/pki/nats.crt', verify_and_map: true },
      cluster: { routes: ['host2', 'host3', 'witness1'].map((name) => `nats-route://${name}:6222`) },
    });
  });
});

describe('services', () => {
  const names = (name: string): string[] =>
    renderServices(plan, findHost(plan, name), daemons).map((service) => service.name);

  it('have libvirtd listen on no network', () => {
    const libvirtd = renderServices(plan, host1, daemons).find((service) => service.name === 'libvirtd')?.run ?? '';
    expect(libvirtd).toContain('exec libvirtd');
    expect(libvirtd).not.toContain('--listen');
    const conf = renderLibvirtdConf('11111111-2222-4333-8444-555555555555');
    expect(conf).toMatch(/^unix_sock_rw_perms = "0700"\n.*\nunix_sock_ro_perms = "0700"$/m);
    expect(conf).toMatch(/^listen_tls = 0$/m);
    expect(conf).toMatch(/^listen_tcp = 0$/m);
    expect(conf).not.toMatch(/cert|key_file|listen_addr/);
  });

  it('run where they belong', () => {
    expect(names('host1')).toEqual([
      'nats',
      'etcd',
      'ceph-mon',
      'ceph-mgr',
      'ceph-osd',
      'ovsdb-server',
      'ovs-vswitchd',
      'virtlogd',
      'libvirtd',
      'controller',
      'agent',
    ]);
    expect(names('host3')).toEqual([
      'nats',
      'ceph-osd',
      'ovsdb-server',
      'ovs-vswitchd',
      'virtlogd',
      'libvirtd',
      'agent',
    ]); // no voter: the witness is one
    expect(names('witness1')).toEqual(['nats', 'etcd', 'ceph-mon', 'ceph-mgr', 'controller', 'agent']);
  });

  it('are left out while there is nothing to start', () => {
    expect(
      renderServices(plan, host1, { ...daemons, controller: false, agent: false }).map((service) => service.name),
    ).not.toContain('agent');
  });

  it('quote what goes through a shell', () => {
    expect(quote('plain-1.2:/x=y,z')).toBe('plain-1.2:/x=y,z');
    expect(quote("a'b; rm $HOME")).toBe(`'a'\\''b; rm $HOME'`);
    expect(quote('')).toBe("''");
    const run = renderServices(plan, host1, daemons).find((service) => service.name === 'agent')?.run ?? '';
    expect(run).toContain(
      `exec nice -n -10 '/opt/a b/node' /srv/busbar/packages/agent/src/main.ts --config /etc/busbar/agent.yaml`,
    );
    expect(run).toContain('export UV_THREADPOOL_SIZE=32');
  });
});

describe('Open vSwitch', () => {
  it('starts with its bridge, in the userspace datapath, with the trunk plugged in', () => {
    const [database, ...inserts] = JSON.parse(renderSwitchTransaction(host1)) as [
      string,
      ...{ table: string; row: object }[],
    ];
    expect(database).toBe('Open_vSwitch');
    expect(inserts.find(({ table }) => table === 'Bridge')?.row).toMatchObject({
      name: 'br-ovs',
      datapath_type: 'netdev',
    });
    expect(inserts.filter(({ table }) => table === 'Port').map(({ row }) => row)).toMatchObject([
      { name: 'br-ovs' },
      { name: 'ovs-uplink' },
    ]);
    expect(renderSwitchFilter()).toContain('hook ingress device "ovs-uplink"');
  });
});

describe('readiness', () => {
  const host = (name: string, state: string, bootId: string, message = '') => ({
    meta: { name },
    status: { state: `HOST_STATE_${state}`, bootId, message },
  });
  const bootIds = new Map([
    ['host1', 'b1'],
    ['host2', 'b2'],
  ]);

  it('is that of the present life of each host', () => {
    expect(unready([host('host1', 'READY', 'b1'), host('host2', 'READY', 'b2')], bootIds)).toEqual([]);
    expect(unready([host('host1', 'READY', 'b0')], bootIds)).toEqual([
      'host1 has not reported since it booted',
      'host2 has not joined',
    ]);
    expect(unready([host('host2', 'DEGRADED', 'b2', 'libvirt is silent')], new Map([['host2', 'b2']]))).toEqual([
      'host2 is degraded: libvirt is silent',
    ]);
  });
});

describe('Ceph', () => {
  it('encodes a key as Ceph does', () => {
    // u16 type 1, u32 seconds, u32 nanoseconds, u16 length, key: what `ceph-authtool --gen-print-key` prints decodes to.
    const key = Buffer.from('000102030405060708090a0b0c0d0e0f', 'hex');
    const secret = Buffer.from(cephxSecret(key, 0x5c6b2e34), 'base64');
    expect(secret.toString('hex')).toBe('0100342e6b5c000000001000000102030405060708090a0b0c0d0e0f');
    expect(() => cephxSecret(key.subarray(1), 0)).toThrow(RangeError);
  });

  it('gives clients the pool and no more', () => {
    const caps = Object.fromEntries(cephEntities(plan).map((entity) => [entity.name, entity.caps]));
    expect(Object.keys(caps).filter((name) => name.startsWith('client.'))).toEqual([
      'client.admin',
      'client.busbar-controller',
    ]);
    expect(caps['client.busbar-controller']).toEqual({
      mon: controllerMonCaps('busbar'),
      osd: 'profile rbd pool=busbar',
      mgr: 'profile rbd pool=busbar',
    });
    expect(Object.keys(caps).filter((name) => name.startsWith('osd.'))).toEqual(['osd.0', 'osd.1', 'osd.2']);
    expect(renderKeyring([{ name: 'client.x', secret: 'abc=', caps: { mon: 'allow r' } }])).toBe(
      '[client.x]\n\tkey = abc=\n\tcaps mon = "allow r"\n',
    );
    const quoted = renderKeyring([{ name: 'client.x', secret: 'abc=', caps: { mon: 'allow command "a b"' } }]);
    expect(quoted).toContain('caps mon = "allow command \\"a b\\""\n');
  });

  it('puts every OSD below its host, and everything on the storage network', () => {
    const conf = renderCephConf(plan);
    expect(conf).toContain('[osd.2]\ncrush_location = root=default host=host3\n');
    expect(conf).toContain('public_network = 10.77.1.0/24\n');
    expect(conf).toContain('[v2:10.77.1.21:3300,v1:10.77.1.21:6789]');
    expect(conf).not.toContain('10.77.0.');
  });

  it('reads its status', () => {
    const json = JSON.stringify({
      health: {
        status: 'HEALTH_WARN',
        checks: { OSD_DOWN: { severity: 'HEALTH_WARN', summary: { message: '1 osds down' } } },
      },
      quorum_names: ['host2', 'host1'],
      osdmap: { num_osds: 3, num_up_osds: 2, num_in_osds: 3 },
    });
    expect(readStatus(json)).toEqual({
      health: 'HEALTH_WARN',
      checks: ['OSD_DOWN: 1 osds down'],
      monsInQuorum: ['host1', 'host2'],
      osdsUp: 2,
      osds: 3,
    });
  });
});

describe('links', () => {
  it('are told from those of other labs', () => {
    const names = [
      'lo',
      'eth0',
      'bb1m',
      'bb1h1m',
      'bb1w2s',
      'bb11m',
      'bb11h1m',
      'bb1x',
      'br1',
      'bb1h1',
      'bb1t',
      'bb1h2t',
    ];
    expect(ownLinks(1, names)).toEqual(['bb1m', 'bb1h1m', 'bb1w2s', 'bb1t', 'bb1h2t']);
  });

  it('are cut in both directions, as one transaction', () => {
    expect(renderPartition([])).toBe('table netdev busbar_lab\ndelete table netdev busbar_lab\n');
    const rules = renderPartition(['management', 'vm']);
    expect(rules).toContain('hook ingress device "mgmt"');
    expect(rules).toContain('hook egress device "uplink"');
    expect(rules).not.toContain('storage');
  });

  it('come from the lowest free index', () => {
    expect(freeIndex([])).toBe(0);
    expect(freeIndex([0, 1, 3])).toBe(2);
    expect(() => freeIndex(Array.from({ length: 127 }, (_, i) => i))).toThrow(/in use/);
  });
});

describe('context of the command line', () => {
  const context = { endpoints: ['10.77.0.11:7800'], ca: '/ca', certificate: '/crt', key: '/key' };
  const own = '# mine\ncurrent: plant\ncontexts:\n  plant: # do not touch\n    endpoints: [10.0.0.1:7800]\n';

  it('is merged into what is there, and taken out again', () => {
    const added = addContext(own, 'lab', context);
    expect(parse(added)).toEqual({
      current: 'lab',
      contexts: { plant: { endpoints: ['10.0.0.1:7800'] }, lab: context },
    });
    expect(added).toContain('# do not touch');
    expect(parse(removeContext(added, 'lab'))).toEqual({
      current: 'plant',
      contexts: { plant: { endpoints: ['10.0.0.1:7800'] } },
    });
  });

  it('starts an empty file and ends with one', () => {
    const added = addContext('', 'lab', context);
    expect(parse(added)).toEqual({ current: 'lab', contexts: { lab: context } });
    expect(parse(removeContext(added, 'lab'))).toEqual({ contexts: {} });
    expect(isEmpty(removeContext(added, 'lab'))).toBe(true);
    expect([own, added, `${own}# x`].some(isEmpty)).toBe(false);
    expect(removeContext(own, 'lab')).toBe(own);
    expect(() => addContext('a: [', 'lab', context)).toThrow(/YAML/);
  });
});

describe('table of a status', () => {
  it('shows what is down', () => {
    const text = renderStatus({
      name: 'lab',
      index: 0,
      hosts: [
        {
          name: 'host1',
          role: 'hypervisor',
          voter: true,
          management: '10.77.0.11',
          storage: '10.77.1.11',
          power: 'on',
          bootId: 'b1',
          partitioned: ['storage'],
          services: {
            etcd: { up: true, pid: 7, rootPid: 99 },
            agent: { up: false, pid: undefined, rootPid: undefined },
          },
        },
      ],
      etcd: { members: 1, healthy: ['host1'] },
      ceph: undefined,
    });
    expect(text).toContain('1/2 (down: agent)');
    expect(text).toContain('etcd: 1 of 1 members healthy');
  });
});
