// SPDX-License-Identifier: Apache-2.0
import type { Epoch, VmId } from '@busbar/core/ids';
import { numRuns } from '@busbar/core/testing/runs.fixture';
import type { DomainSpec } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import {
  CpuPolicy,
  DiskBus,
  DiskCache,
  Firmware,
  Hugepages,
  MachineType,
  NicModel,
  WatchdogAction,
} from '@busbar/proto/gen/busbar/v1/vm';
import fc from 'fast-check';
import { XMLParser, XMLValidator } from 'fast-xml-parser';
import { expect, test } from 'vitest';
import { fileDisk, rbdDisk, testNic, testSpec } from '../driver/domain.fixture.ts';
import type { StartRequest } from '../driver/host-driver.ts';
import { buildDomain } from './build.ts';
import type { HostFacts } from './facts.ts';
import { seedFiles } from './seed.ts';
import { serialize } from './xml.ts';

/**
 * Goal: no text of a user, a controller or a configuration file becomes markup. Method: a domain with every device, in
 * which each text is hostile and carries a mark of its own. A parser that is not ours must find each mark where its text
 * belongs and nowhere else, and the same elements as with harmless texts.
 */

/** Where each text belongs, as `element@attribute` or `element` for content, with how often. User data is in no XML. */
const PLACES = {
  name: ['domain/name', 'domain/metadata/busbar:vm@name'],
  uuid: ['domain/uuid', 'domain/metadata/busbar:vm@id'],
  cpuModel: ['domain/cpu/model'],
  path: ['domain/devices/disk/source@file'],
  pool: ['domain/devices/disk/source@name'],
  image: ['domain/devices/disk/source@name'],
  serial: ['domain/devices/disk/serial'],
  bridge: ['domain/devices/interface/source@bridge'],
  mac: ['domain/devices/interface/mac@address'],
  user: ['domain/devices/disk/auth@username'],
  secret: ['domain/devices/disk/auth/secret@uuid'],
  monitor: ['domain/devices/disk/source/host@name'],
  console: ['domain/devices/serial/source@path'],
  log: ['domain/devices/serial/log@file'],
  nvram: ['domain/os/nvram'],
  seed: ['domain/devices/disk/source@file'],
  diskName: [],
  nicName: [],
  userData: [],
  networkConfig: [],
  hostname: [],
  instanceId: [],
} as const;
type Texts = Record<keyof typeof PLACES, string>;
const KEYS = Object.keys(PLACES) as (keyof Texts)[];

/** Short, so that it survives the cut of a disk's serial number, and of no character that XML escapes. */
const mark = (key: keyof Texts) => `Q${KEYS.indexOf(key).toString().padStart(2, '0')}Z`;

const markup = fc.constantFrom(
  ...['</name><devices/>', '"/><disk/><x a="', "' or '", '<![CDATA[', ']]>', '<!--', '-->', '<?xml?>', '<!DOCTYPE x>'],
  ...[
    '&lt;',
    '&#60;',
    '&#38;lt;',
    '&x;',
    '&',
    '\t',
    '\r\n',
    '\u00a0',
    '\u2028',
    '\u{1f600}',
    '/../',
    '%{x}',
    '%s',
    '$&',
  ],
);
// Neither digits nor letters alone: they could make up somebody else's mark.
const hostile = fc.array(fc.oneof(markup, fc.string({ unit: 'grapheme', maxLength: 6 })), { maxLength: 5 });
const texts: fc.Arbitrary<Texts> = fc
  .tuple(...KEYS.map(() => hostile))
  .map(
    (all) => Object.fromEntries(KEYS.map((key, i) => [key, `${mark(key)}${clean(all[i]?.join('') ?? '')}`])) as Texts,
  )
  // A serial number is cut to 20 characters: half a pair would be refused, which is right and not of interest here.
  .map((all) => ({ ...all, serial: all.serial.replace(/[\ud800-\udfff]/g, '') }));

/** What XML cannot hold is refused, which another test shows; marks come from `texts` alone. */
function clean(text: string): string {
  return text
    .replace(/[\p{Cc}\p{Cs}\ufffe\uffff]/gu, (char) => ('\t\n\r'.includes(char) ? char : ''))
    .replace(/Q\d\dZ/g, '');
}

const shape = fc.record({
  firmware: fc.constantFrom(Firmware.BIOS, Firmware.UEFI),
  machineType: fc.constantFrom(MachineType.Q35, MachineType.PC),
  bus: fc.constantFrom(DiskBus.VIRTIO, DiskBus.SCSI, DiskBus.SATA),
  cache: fc.constantFrom(DiskCache.NONE, DiskCache.WRITEBACK, DiskCache.WRITETHROUGH),
  watchdog: fc.constantFrom(WatchdogAction.UNSPECIFIED, WatchdogAction.RESET, WatchdogAction.PAUSE),
  model: fc.constantFrom(NicModel.VIRTIO, NicModel.E1000E),
  bridgeKind: fc.constantFrom(BridgeKind.LINUX, BridgeKind.OPEN_VSWITCH),
  flag: fc.boolean(),
  kvmUsable: fc.boolean(),
  tuned: fc.boolean(),
});
type Shape = typeof shape extends fc.Arbitrary<infer T> ? T : never;

/** A realtime VM with all that is tuned for one; none of it is text. */
const TUNED: Partial<DomainSpec> = {
  cpuPolicy: CpuPolicy.REALTIME,
  realtimePriority: 50,
  ioThreads: 1,
  hugepages: Hugepages.HUGEPAGES_2M,
  memoryLocked: true,
  guestNuma: true,
  placement: {
    host: 'host1',
    cells: [{ numaNode: 0, vcpus: 1, cpus: [2], memoryBytes: 32n * 1024n ** 2n }],
    emulatorCpus: [3],
    ioThreadCpus: [3],
    devices: [{ class: 'process-bus-nic', address: '0000:3b:00.1', numaNode: 0 }],
  },
};

function request(text: Texts, of: Shape): { readonly start: StartRequest; readonly facts: HostFacts } {
  const disk = { volumeId: text.serial, name: text.diskName, bus: of.bus, cache: of.cache, readOnly: of.flag };
  const domain: DomainSpec = testSpec({
    ...(of.tuned ? TUNED : {}),
    cpuModel: text.cpuModel,
    firmware: of.firmware,
    machineType: of.machineType,
    watchdog: of.watchdog,
    guestAgent: of.flag,
    disks: [fileDisk(text.path, disk), rbdDisk(text.pool, text.image, { ...disk, bootOrder: 2 })],
    nics: [
      testNic({
        name: text.nicName,
        bridge: text.bridge,
        macAddress: text.mac,
        model: of.model,
        bridgeKind: of.bridgeKind,
      }),
    ],
    cloudInit: {
      instanceId: text.instanceId,
      hostname: text.hostname,
      userData: text.userData,
      networkConfig: text.networkConfig,
    },
  });
  const facts: HostFacts = {
    kvmUsable: of.kvmUsable,
    uid: null,
    rbd: { monitors: [text.monitor], user: text.user, secretUuid: text.secret },
    paths: { consoleSocket: text.console, serialLog: text.log, nvram: text.nvram, seedIso: text.seed },
    cpus: { online: [0, 1, 2, 3], isolated: [2, 3], ofNode: new Map(), pretended: false },
  };
  return { start: { vmId: text.uuid as VmId, name: text.name, epoch: 1n as Epoch, domain }, facts };
}

const parser = new XMLParser({
  preserveOrder: true,
  ignoreAttributes: false,
  attributeNamePrefix: '',
  parseTagValue: false,
  parseAttributeValue: false,
  trimValues: false,
  htmlEntities: true,
});
type Node = Readonly<Record<string, unknown>>;

/** Every text of a document with its place, and the places of all elements and attributes. */
function read(xml: string): { readonly values: readonly [place: string, value: string][]; readonly places: string[] } {
  const values: [string, string][] = [];
  const places: string[] = [];
  const walk = (nodes: readonly Node[], path: string) => {
    for (const node of nodes) {
      if (typeof node['#text'] === 'string') {
        if (node['#text'].trim() !== '') values.push([path, node['#text']]);
        continue;
      }
      const name = Object.keys(node).find((key) => key !== ':@') ?? '';
      const here = path === '' ? name : `${path}/${name}`;
      places.push(here);
      for (const [key, value] of Object.entries((node[':@'] as Record<string, string> | undefined) ?? {})) {
        places.push(`${here}@${key}`);
        values.push([`${here}@${key}`, value]);
      }
      walk(node[name] as readonly Node[], here);
    }
  };
  walk(parser.parse(xml) as readonly Node[], '');
  return { values, places };
}

const harmless = Object.fromEntries(KEYS.map((key) => [key, mark(key)])) as Texts;

test('every text is found where it belongs, whole, and nowhere else', () => {
  fc.assert(
    fc.property(texts, shape, (text, of) => {
      const { start, facts } = request(text, of);
      const xml = serialize(buildDomain(start, facts));
      expect(XMLValidator.validate(xml)).toBe(true);
      const plain = request(harmless, of);
      const expected = read(serialize(buildDomain(plain.start, plain.facts)));
      const found = read(xml);
      // A monitor's address may have a port, which is cut off at a colon: one attribute more, and the only one.
      const withoutPort = (places: readonly string[]) => places.filter((place) => !place.endsWith('/host@port'));
      expect(withoutPort(found.places)).toEqual(withoutPort(expected.places));
      for (const key of KEYS) {
        const places = found.values.filter(([, value]) => value.includes(mark(key))).map(([place]) => place);
        const allowed = PLACES[key] as readonly string[];
        expect(places.filter((place) => !allowed.includes(place))).toEqual([]);
        if (key !== 'nvram' || of.firmware === Firmware.UEFI) expect(new Set(places)).toEqual(new Set(allowed));
      }
      const at = (place: string) => found.values.filter(([where]) => where === place).map(([, value]) => value);
      expect(at('domain/name')).toEqual([text.name]);
      expect(at('domain/devices/disk/source@name')).toEqual([`${text.pool}/${text.image}`]);
      expect(at('domain/devices/disk/source@file')).toEqual([text.path, text.seed]);
      expect(at('domain/devices/interface/source@bridge')).toEqual([text.bridge]);
      expect(at('domain/devices/serial/source@path')).toEqual([text.console]);
    }),
    { numRuns: numRuns(200) },
  );
});

test('user data reaches the seed as it is, and meta data stays two lines', () => {
  fc.assert(
    fc.property(texts, (text) => {
      const files = seedFiles({
        instanceId: text.instanceId,
        hostname: text.hostname,
        userData: text.userData,
        networkConfig: text.networkConfig,
      });
      expect(files['user-data']).toBe(text.userData);
      expect(files['network-config']).toBe(text.networkConfig);
      expect(files['meta-data']).toMatch(/^instance-id: "[\x20-\x7e]*"\nlocal-hostname: "[\x20-\x7e]*"\n$/);
    }),
  );
});
