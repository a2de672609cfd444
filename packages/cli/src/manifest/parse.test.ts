// SPDX-License-Identifier: Apache-2.0

import { readFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { numRuns } from '@busbar/core/testing/runs.fixture';
import { RunPolicy } from '@busbar/proto/gen/busbar/v1/vm';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parse, stringify } from 'yaml';
import { ManifestError, parseManifests } from './parse.ts';
import { editDistance, nearest } from './suggest.ts';

const VM = `apiVersion: busbar.v1
kind: Vm
name: web
spec:
  cpu: {vcpus: 2}
  memoryBytes: 512MiB
`;

function problems(text: string): readonly string[] {
  try {
    parseManifests(text, 'f.yaml');
  } catch (error) {
    if (error instanceof ManifestError) return error.why;
    throw error;
  }
  return [];
}

describe('a good file', () => {
  test('says what a realtime VM needs', () => {
    const [vm] = parseManifests(
      `apiVersion: busbar.v1
kind: Vm
name: relay-1
spec:
  cpu: {vcpus: 4, policy: realtime, smtPolicy: isolate, realtimePriority: 50, ioThreads: 1}
  memoryBytes: 6GiB
  hugepages: 1g
  memoryLocked: true
  numa: {topology: explicit, oneNodeRequired: true, cells: [{vcpus: 4, memoryBytes: 6GiB}]}
  devices: [{class: process-bus-nic, count: 1, numaPolicy: required}]
  placement:
    rules: [{group: bay-1, kind: pair}, {group: bay-1, kind: apart, soft: true}]
`,
      'f.yaml',
    );
    expect(vm?.spec).toEqual({
      cpu: {
        vcpus: 4,
        policy: 'CPU_POLICY_REALTIME',
        smtPolicy: 'SMT_POLICY_ISOLATE',
        realtimePriority: 50,
        ioThreads: 1,
      },
      memoryBytes: 6n * 1024n ** 3n,
      hugepages: 'HUGEPAGES_1G',
      memoryLocked: true,
      numa: {
        topology: 'NUMA_TOPOLOGY_EXPLICIT',
        oneNodeRequired: true,
        cells: [{ vcpus: 4, memoryBytes: 6n * 1024n ** 3n }],
      },
      devices: [{ class: 'process-bus-nic', count: 1, numaPolicy: 'DEVICE_NUMA_POLICY_REQUIRED' }],
      placement: {
        rules: [
          { group: 'bay-1', kind: 'PLACEMENT_RULE_KIND_PAIR' },
          { group: 'bay-1', kind: 'PLACEMENT_RULE_KIND_APART', soft: true },
        ],
      },
    });
    expect(problems(`${VM}  hugepages: 4k\n`)).toEqual([expect.stringContaining('one of none, 2m, 1g')]);
  });

  test('becomes the API’s spec', () => {
    const [vm] = parseManifests(
      `${VM}  machineType: q35\n  firmware: FIRMWARE_UEFI\n  runPolicy: STOPPED\n  isolationPolicy: keep-running\n  shutdownTimeoutMs: 2min\n  disks: [{name: boot, sizeBytes: 10 GiB}]\n  cloudInit:\n    userData: |\n      #cloud-config\n      hostname: web\nlabels: {tier: "1"}\n`,
      'f.yaml',
    );
    expect(vm).toEqual({
      kind: 'Vm',
      name: 'web',
      labels: { tier: '1' },
      line: 1,
      spec: {
        cpu: { vcpus: 2 },
        memoryBytes: 536870912n,
        machineType: 'MACHINE_TYPE_Q35',
        firmware: 'FIRMWARE_UEFI',
        runPolicy: RunPolicy.STOPPED,
        isolationPolicy: 'ISOLATION_POLICY_KEEP_RUNNING',
        shutdownTimeoutMs: 120000,
        disks: [{ name: 'boot', sizeBytes: 10737418240n }],
        cloudInit: { userData: '#cloud-config\nhostname: web\n' },
      },
    });
  });

  test('may hold several documents, empty ones and anchors', () => {
    const text = `# nothing\n---\n${VM.replace('{vcpus: 2}', '&two {vcpus: 2}')}---\n---\n${VM.replace('web', 'web-2')}`;
    expect(parseManifests(text, 'f.yaml').map(({ name }) => name)).toEqual(['web', 'web-2']);
    expect(parseManifests(text, 'f.yaml').map(({ labels }) => labels)).toEqual([undefined, undefined]);
  });

  test.each(['guest-vm.yaml', 'network.yaml'])('examples/%s', (name) => {
    const text = readFileSync(new URL(`../../../../examples/${name}`, import.meta.url), 'utf8');
    expect(parseManifests(text, name)).toHaveLength(1);
  });
});

describe('a bad file says where and what would be right', () => {
  test.each<[string, string]>([
    [VM.replace('memoryBytes', 'memoryByte'), 'f.yaml:6:3: spec.memoryByte: unknown field, did you mean memoryBytes?'],
    [
      VM.replace('512MiB', '512mb'),
      'f.yaml:6:16: spec.memoryBytes: "512mb" has the unknown unit "mb", expected MiB (1024² bytes) or MB (1000² bytes)',
    ],
    [VM.replace('512MiB', '-1GiB'), 'f.yaml:6:16: spec.memoryBytes: "-1GiB" is negative, expected zero or more bytes'],
    [
      VM.replace('512MiB', '1.5'),
      'f.yaml:6:16: spec.memoryBytes: 1.5 is not a whole number of bytes, expected a whole number of bytes',
    ],
    [
      VM.replace('vcpus: 2', 'vcpus: -2'),
      'f.yaml:5:16: spec.cpu.vcpus: -2 is negative, expected a whole number from 1 to 512',
    ],
    [
      VM.replace('vcpus: 2', 'vcpus: 2.5'),
      'f.yaml:5:16: spec.cpu.vcpus: 2.5 is no whole number, expected a whole number from 1 to 512',
    ],
    [VM.replace('{vcpus: 2}', '2'), 'f.yaml:5:8: spec.cpu: 2 is no mapping, expected indented lines of "name: value"'],
    [
      VM.replace('name: web', "name: '; rm -rf / <x>'"),
      'f.yaml:3:7: name: "; rm -rf / <x>" is not allowed, expected 1 to 63 lower-case letters, digits and hyphens, beginning with a letter, not ending in a hyphen',
    ],
    [VM.replace('kind: Vm', 'kind: VM'), 'f.yaml:2:7: kind: "VM" is not known, did you mean Vm?'],
    [VM.replace('busbar.v1', 'v1'), 'f.yaml:1:13: apiVersion: "v1" is not known, expected busbar.v1'],
    [`${VM}  machineType: i440fx\n`, 'f.yaml:7:16: spec.machineType: "i440fx" is not known, expected one of q35, pc'],
    [
      `${VM}  runPolicy: unspecified\n`,
      'f.yaml:7:14: spec.runPolicy: "unspecified" is not known, expected one of running, stopped',
    ],
    [`${VM}labels: {tier: 1}\n`, 'f.yaml:7:16: labels.tier: 1 is no text, expected text in quotes, e.g. "1"'],
    [
      `${VM}  disks: [{name: a}, {name: a}]\n`,
      'f.yaml:7:22: spec.disks[1].name: "a" is there twice, expected another name',
    ],
    [`${VM}  nics: [{name: eth0}]\n`, 'f.yaml:7:10: spec.nics[0].network: is missing, expected text'],
    [`${VM}  firmware: [uefi]\n`, 'f.yaml:7:13: spec.firmware: a list is not known, expected one of bios, uefi'],
    [`${VM}labels: {__proto__: x}\n`, 'f.yaml:7:10: labels: has the name "__proto__", expected another name'],
    [`${VM}name: again\n`, 'f.yaml:7:1: name: is there twice, expected each name once'],
    [`${VM}---\n${VM}`, 'f.yaml:8:1: name: Vm "web" is described twice (first in line 1), expected each resource once'],
    ['just words', 'f.yaml:1:1: this document is no mapping, expected apiVersion, kind, name and spec'],
    ['', 'f.yaml:1:1: the file holds no document, expected apiVersion, kind, name and spec'],
    [
      `${VM}  placement: {hostSelector: *nowhere}\n`,
      'f.yaml:7:29: spec.placement.hostSelector: refers to an anchor that is not there, expected a known anchor',
    ],
  ])('%#', (text, problem) => expect(problems(text)).toEqual([problem]));

  test('every problem at once', () => {
    expect(problems(`${VM.replace('512MiB', 'lots')}  foo: 1\n`)).toHaveLength(2);
  });

  test('an image given by mistake', () => {
    expect(problems('x'.repeat(5_000_000))).toEqual([
      'f.yaml:1:1: the file is larger than 4 MiB, expected a YAML file',
    ]);
    expect(problems('QFI\u00fb\u0000\u0000\u0003\u0000').length).toBeGreaterThan(0);
  });

  test('deep nesting and self-reference', () => {
    expect(problems('['.repeat(50_000)).length).toBeGreaterThan(0);
    expect(problems(VM.replace('{vcpus: 2}', '&c {vcpus: 2, topology: *c}')).length).toBeGreaterThan(0);
  });
});

describe('a file that is made to be slow or large', () => {
  const items = (count: number, item: string) => Array.from({ length: count }, () => item).join('');
  test.each<[string, string, string | RegExp]>([
    [
      'a million documents',
      items(900_000, '---\n'),
      'f.yaml:1:1: the file holds more than 10000 documents, expected a YAML file',
    ],
    [
      'ten thousand unknown fields',
      VM + Array.from({ length: 10_000 }, (_, i) => `f${i}: 1\n`).join(''),
      'and 80 more',
    ],
    ['a hundred thousand wrong disks', `${VM}  disks: [${items(100_000, '1,')}]`, 'and 80 more'],
    // Compared each with each, these take half a minute and more.
    [
      'twenty thousand names for one text',
      `${VM}  placement: {preferredHosts: [&a 1,${items(20_000, '*a,')}]}`,
      'and 80 more',
    ],
    ['one key twenty thousand times', `${VM}labels: {${items(20_000, 'a: b,')}}`, 'and 80 more'],
    ['names for names', `a: &a [1,1,1,1]\n${layers(30)}`, /kind: is missing/],
  ])('%s', (_what, text, last) => {
    const startedAtMs = performance.now();
    const found = problems(text);
    expect(found.length).toBeLessThanOrEqual(21);
    expect(found.at(-1)).toMatch(typeof last === 'string' ? new RegExp(`^${last}$`) : last);
    // Ten times what it takes on a machine that is busy.
    expect(performance.now() - startedAtMs).toBeLessThan(15_000);
  });
});

/** Each line names four times the one before. */
function layers(count: number): string {
  const name = (n: number) => 'a'.repeat(n + 1);
  const four = (n: number) => Array.from({ length: 4 }, () => `*${name(n)}`).join(',');
  return Array.from({ length: count }, (_, n) => `${name(n + 1)}: &${name(n + 1)} [${four(n)}]\n`).join('');
}

test('what was written in any style of YAML is what is read', () => {
  const name = fc.stringMatching(/^[a-z]([a-z0-9-]{0,20}[a-z0-9])?$/);
  const text = fc.string({ unit: 'grapheme', maxLength: 40 });
  const size = fc.bigInt({ min: 0n, max: 2n ** 63n - 1n });
  const spec = fc.record({
    cpu: fc.record({ vcpus: fc.integer({ min: 1, max: 512 }) }),
    memoryBytes: size,
    runPolicy: fc.constantFrom('RUN_POLICY_RUNNING', 'RUN_POLICY_STOPPED'),
    disks: fc.uniqueArray(fc.record({ name, sizeBytes: size, readOnly: fc.boolean() }), {
      selector: (disk) => disk.name,
      maxLength: 4,
    }),
    nics: fc.uniqueArray(fc.record({ name, network: text }), { selector: (nic) => nic.name, maxLength: 4 }),
    cloudInit: fc.record({ userData: text, networkConfig: text }),
    shutdownTimeoutMs: fc.integer({ min: 0, max: 3_600_000 }),
  });
  const labels = fc.dictionary(text, text, { maxKeys: 4, noNullPrototype: true });
  const style = fc.record({
    defaultStringType: fc.constantFrom(
      'PLAIN' as const,
      'QUOTE_DOUBLE' as const,
      'QUOTE_SINGLE' as const,
      'BLOCK_LITERAL' as const,
    ),
    collectionStyle: fc.constantFrom('any' as const, 'block' as const, 'flow' as const),
    indent: fc.constantFrom(2, 4),
    // Folding is left out: the writer breaks a line within a character beyond 16 bits.
    lineWidth: fc.constant(0),
  });
  fc.assert(
    fc.property(name, labels, spec, style, (vm, given, wanted, options) => {
      const written = stringify(
        { apiVersion: 'busbar.v1', kind: 'Vm', name: vm, labels: given, spec: wanted },
        options,
      );
      // The writer loses or adds blanks at the edges of some literal blocks: what it wrote is what has to be read.
      const said = parse(written, { intAsBigInt: true }) as { labels: unknown; spec: Partial<typeof wanted> };
      fc.pre(
        isDeepStrictEqual([said.labels, said.spec.cloudInit, said.spec.nics], [given, wanted.cloudInit, wanted.nics]),
      );
      expect(parseManifests(written, 'f.yaml')).toEqual([
        { kind: 'Vm', name: vm, labels: given, spec: wanted, line: 1 },
      ]);
    }),
    { numRuns: numRuns(300) },
  );
});

describe('whatever the text is, nothing but ManifestError is thrown', () => {
  const parses = (text: string) => {
    for (const problem of problems(text)) expect(problem).toMatch(/^f\.yaml:\d+:\d+: |^and \d+ more$/);
  };

  test('any text', () => fc.assert(fc.property(fc.string({ unit: 'binary' }), parses)));

  test('any YAML', () => fc.assert(fc.property(fc.jsonValue(), (value) => parses(stringify(value)))));

  test('a good document with something else in place of a part', () => {
    const junk = fc.oneof(
      fc.string(),
      fc.constantFrom(
        '*x',
        '&x',
        '{',
        '- ',
        '!!binary x',
        '? ',
        '<<: *x',
        '\t',
        '2026-01-01',
        '.nan',
        '0x7fffffffffffffffff',
      ),
    );
    fc.assert(
      fc.property(fc.nat(VM.length), fc.nat(20), junk, (at, length, text) =>
        parses(VM.slice(0, at) + text + VM.slice(at + length)),
      ),
      { numRuns: numRuns(500) },
    );
  });

  test('any value in any field', () => {
    const fields = [
      'runPolicy',
      'cpu',
      'memoryBytes',
      'disks',
      'nics',
      'cloudInit',
      'ha',
      'placement',
      'shutdownTimeoutMs',
    ];
    fc.assert(
      fc.property(fc.constantFrom(...fields), fc.jsonValue(), (field, value) => {
        parses(
          stringify({
            apiVersion: 'busbar.v1',
            kind: 'Vm',
            name: 'a',
            spec: { cpu: { vcpus: 1 }, memoryBytes: 1, [field]: value },
          }),
        );
      }),
    );
  });
});

test('suggestions', () => {
  expect(nearest('memoryByte', ['memoryBytes', 'name'])).toBe('memoryBytes');
  expect(nearest('dsiks', ['disks', 'nics'])).toBe('disks');
  expect(nearest('completely-else', ['disks', 'nics'])).toBeUndefined();
  expect(editDistance('', 'abc')).toBe(3);
  fc.assert(fc.property(fc.string(), fc.string(), (a, b) => editDistance(a, b) === editDistance(b, a)));
});
