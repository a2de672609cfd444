// SPDX-License-Identifier: Apache-2.0
import type { Epoch } from '@busbar/core/ids';
import type { DomainNic } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import { DiskBus, DiskCache, Firmware, MachineType, NicModel, WatchdogAction } from '@busbar/proto/gen/busbar/v1/vm';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { fileDisk, rbdDisk, startRequest, testNic, testSpec } from '../driver/domain.fixture.ts';
import { buildDomain } from './build.ts';
import type { HostFacts } from './facts.ts';
import { METADATA_URI, metadataElement, parseMetadata } from './metadata.ts';
import { nicsToChange } from './nics.ts';
import { seedFiles, yamlString } from './seed.ts';
import { childrenNamed, element, find, parseXml, serialize, textOf, type XmlElement } from './xml.ts';

const host: HostFacts = {
  kvmUsable: true,
  uid: null,
  rbd: { monitors: ['10.0.0.1:6789', '[fd00::2]:6789', '10.0.0.3'], user: 'busbar', secretUuid: 'secret-uuid' },
  paths: { consoleSocket: '/run/c', serialLog: '/log/s', nvram: '/state/n.fd', seedIso: '/state/s.iso' },
  cpus: { online: [0, 1, 2, 3, 4, 5, 6, 7], isolated: [6, 7], ofNode: new Map(), pretended: false },
};

/** Any text that XML 1.0 can hold, with a taste for markup. */
const text = fc
  .oneof(
    fc.string({ unit: 'grapheme' }),
    fc.string({
      unit: fc.constantFrom('<', '>', '&', '"', "'", ']', '/', '!', '-', ' ', '\t', '\n', '\r', 'a', ';', '#', '&amp;'),
    }),
    fc.constantFrom('</name><devices/>', '<![CDATA[x]]>', '&#38;lt;', '<!--', '-->', '&quot;', "' or '", '<?xml?>'),
  )
  .filter((value) => {
    try {
      serialize(element('x', {}, value));
      return true;
    } catch {
      return false;
    }
  });

describe('xml', () => {
  test('whatever text goes in comes out, as attribute and as content', () => {
    fc.assert(
      fc.property(text, text, (attribute, content) => {
        const root = element('a', { one: attribute }, element('b', {}, content), element('c'));
        const parsed = parseXml(serialize(root));
        expect(parsed.attributes.one).toBe(attribute);
        expect(textOf(find(parsed, 'b'))).toBe(content);
        expect(parsed.children).toHaveLength(2);
      }),
      { numRuns: 500 },
    );
  });

  test.each(['\0', '\u0007', '\u001f', '\ufffe', '\uffff', '\ud800', 'a\udc00b'])('%j cannot be held', (value) => {
    expect(() => serialize(element('x', {}, value))).toThrow('XML cannot hold');
    expect(() => serialize(element('x', { y: value }))).toThrow('XML cannot hold');
  });

  test('names are never data', () => {
    expect(() => serialize(element('a b'))).toThrow('no element name');
    expect(() => serialize(element('a', { 'x="': 1 }))).toThrow('no attribute name');
  });
});

describe('a domain', () => {
  test('holds no markup from names, labels and paths', () => {
    fc.assert(
      fc.property(text, text, text, text, text, (name, path, bridge, model, pool) => {
        const request = {
          ...startRequest(1),
          name,
          domain: testSpec({
            cpuModel: model,
            disks: [fileDisk(path), rbdDisk(pool, path, { name: 'two' })],
            nics: [testNic({ bridge })],
          }),
        };
        const built = buildDomain(request, { ...host, paths: { ...host.paths, consoleSocket: path } });
        const parsed = parseXml(serialize(built));
        expect(shape(parsed)).toEqual(shape(built));
        expect(textOf(find(parsed, 'name'))).toBe(name);
        const [file, rbd] = childrenNamed(find(parsed, 'devices') as XmlElement, 'disk');
        expect(find(file as XmlElement, 'source')?.attributes.file).toBe(path);
        expect(find(rbd as XmlElement, 'source')?.attributes.name).toBe(`${pool}/${path}`);
        expect(find(parsed, 'devices', 'interface', 'source')?.attributes.bridge).toBe(bridge);
      }),
      { numRuns: 200 },
    );
  });

  test('metadata comes back, and what is not ours does not', () => {
    const metadata = { vmId: startRequest(1).vmId, name: '<&">', epoch: 12n as Epoch, specRevision: 2n ** 62n };
    expect(parseMetadata(serialize(metadataElement(metadata)))).toEqual(metadata);
    expect(parseMetadata('<x id="1"/>')).toBeNull();
    const largest = serialize(metadataElement({ ...metadata, epoch: (2n ** 63n - 1n) as Epoch }));
    expect(parseMetadata(largest)?.epoch).toBe(2n ** 63n - 1n);
    expect(parseMetadata(largest.replace(String(2n ** 63n - 1n), String(2n ** 63n)))).toBeNull();
    expect(METADATA_URI).toBe('urn:busbar:vm:1');
  });

  const xml = (spec: Parameters<typeof testSpec>[0], facts: Partial<HostFacts> = {}) =>
    serialize(buildDomain(startRequest(1, spec), { ...host, ...facts }));

  test('disks stop on errors; Ceph by monitors and secret, files by kernel aio', () => {
    const written = xml({
      disks: [
        rbdDisk('pool', 'image'),
        fileDisk('/d', { bus: DiskBus.SCSI, cache: DiskCache.WRITEBACK, bootOrder: 0, readOnly: true }),
      ],
    });
    expect(written.match(/error_policy="stop" rerror_policy="stop"/g)).toHaveLength(2);
    expect(written).toContain('<secret type="ceph" uuid="secret-uuid"/>');
    expect(written).toContain('<host name="10.0.0.1" port="6789"/>');
    expect(written).toContain('<host name="fd00::2" port="6789"/>');
    expect(written).toContain('<host name="10.0.0.3"/>');
    expect(written).toContain('<target dev="vda" bus="virtio"/>');
    expect(written).toContain('<target dev="sda" bus="scsi"/>');
    expect(written).toContain('<controller type="scsi" model="virtio-scsi"/>');
    expect(written).toContain('cache="writeback" error_policy="stop" rerror_policy="stop" io="threads"');
    expect(written.match(/<boot /g)).toHaveLength(1);
    expect(written.match(/<serial>5d2c0c39-41f5-4c53-9<\/serial>/g)).toHaveLength(2);
    expect(() => xml({ disks: [rbdDisk('p', 'i')] }, { rbd: null })).toThrow('no access to Ceph');
  });

  test.each([
    ['', true, '<cpu mode="host-model">'],
    ['', false, '<cpu mode="maximum">'],
    ['host-passthrough', true, '<cpu mode="host-passthrough" migratable="on">'],
    ['host-passthrough', false, '<cpu mode="maximum">'],
    ['Skylake-Server', true, '<model fallback="forbid">Skylake-Server</model>'],
    ['Skylake-Server', false, '<model fallback="forbid">Skylake-Server</model>'],
  ])('CPU model %j with KVM %s is %s', (cpuModel, kvmUsable, expected) => {
    const written = xml({ cpuModel, vcpus: 8, topology: { sockets: 1, cores: 4, threads: 2 } }, { kvmUsable });
    expect(written).toContain(expected);
    expect(written).toContain('<topology sockets="1" cores="4" threads="2"/>');
    expect(written).toContain(`<domain type="${kvmUsable ? 'kvm' : 'qemu'}">`);
  });

  test('NICs: VLAN only where it works', () => {
    const ovs = xml({
      nics: [testNic({ bridgeKind: BridgeKind.OPEN_VSWITCH, vlanTag: 5, model: NicModel.E1000E, bootOrder: 2 })],
    });
    expect(ovs).toMatch(
      /<vlan>\s*<tag id="5"\/>\s*<\/vlan>\s*<virtualport type="openvswitch"\/>\s*<model type="e1000e"\/>/,
    );
    expect(() => xml({ nics: [testNic({ vlanTag: 5 })] })).toThrow('VLAN 5 on the Linux bridge');
    expect(() => xml({ nics: [testNic({ trunkVlans: [5, 6] })] })).toThrow('VLAN 5, 6 on the Linux bridge');
    expect(xml({ nics: [testNic()] })).not.toContain('<vlan');
  });

  test('NICs: on Open vSwitch always an access port, unless a trunk is asked for', () => {
    const vlan = (nic: Partial<DomainNic>) =>
      /<vlan.*<\/vlan>/s
        .exec(xml({ nics: [testNic({ bridgeKind: BridgeKind.OPEN_VSWITCH, ...nic })] }))?.[0]
        .replace(/\s*\n\s*/g, '');
    expect(vlan({})).toBe('<vlan><tag id="0"/></vlan>');
    expect(vlan({ vlanTag: 4094 })).toBe('<vlan><tag id="4094"/></vlan>');
    expect(vlan({ trunkVlans: [10, 20] })).toBe('<vlan trunk="yes"><tag id="10"/><tag id="20"/></vlan>');
    expect(vlan({ trunkVlans: [7] })).toBe('<vlan trunk="yes"><tag id="7"/></vlan>');
  });

  test('firmware, watchdog, seed', () => {
    const cloudInit = { instanceId: 'i', hostname: 'h', userData: '', networkConfig: '' };
    const written = xml({ firmware: Firmware.UEFI, watchdog: WatchdogAction.PAUSE, cloudInit });
    expect(written).toContain('<os firmware="efi">');
    expect(written).toContain('<nvram>/state/n.fd</nvram>');
    expect(written).toContain('<watchdog model="i6300esb" action="pause"/>');
    expect(written).toContain('<target dev="sda" bus="sata"/>');
    expect(xml({ machineType: MachineType.PC, cloudInit })).toContain('<target dev="hdc" bus="ide"/>');
    const onVirtio = xml({ disks: [fileDisk('/a.raw'), fileDisk('/b.raw')], cloudInit });
    expect(onVirtio).toMatch(/<disk type="file" device="disk">[\s\S]*<target dev="vdc" bus="virtio"\/>\s*<readonly\/>/);
    expect(xml({})).not.toMatch(/<graphics|<video|<watchdog|<nvram/);
  });
});

test('links: only what has to change is changed, and nothing else of it', () => {
  const live = parseXml(`<domain><devices>
    <interface type='bridge'><mac address='52:54:00:00:00:01'/><target dev='vnet0'/><link state='up'/><alias name='net0'/></interface>
    <interface type='bridge'><mac address='52:54:00:00:00:02'/><alias name='net1'/></interface>
    <interface type='bridge'><mac address='52:54:00:00:00:03'/><link state='down'/></interface>
  </devices></domain>`);
  const down = nicsToChange(live, false).map((nic) => serialize(nic));
  expect(down).toHaveLength(2);
  expect(down[0]).toContain('<target dev="vnet0"/>');
  expect(down.every((nic) => nic.includes('<link state="down"/>') && !nic.includes('"up"'))).toBe(true);
  expect(nicsToChange(live, true).map((nic) => find(nic, 'mac')?.attributes.address)).toEqual(['52:54:00:00:00:03']);
});

test('YAML strings are ASCII, one line, and JSON to a JSON reader unless they go beyond 16 bits', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (value) => {
      const quoted = yamlString(value);
      expect(quoted).toMatch(/^"[\x20-\x7e]*"$/);
      const asJson = quoted
        .replace(/\\x(..)/g, '\\u00$1')
        .replace(/\\U(........)/g, (_, hex: string) =>
          JSON.stringify(String.fromCodePoint(Number.parseInt(hex, 16))).slice(1, -1),
        );
      expect(JSON.parse(asJson)).toBe(value);
    }),
  );
  const data = { instanceId: 'a: "b"', hostname: 'x\ny', userData: '#cloud-config\n', networkConfig: '' };
  expect(seedFiles(data)).toEqual({
    'meta-data': 'instance-id: "a: \\"b\\""\nlocal-hostname: "x\\x0ay"\n',
    'user-data': '#cloud-config\n',
  });
});

function shape(one: XmlElement): unknown {
  const children = one.children.filter((child): child is XmlElement => typeof child === 'object').map(shape);
  return [one.name, Object.keys(one.attributes), children];
}
