// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import { numRuns } from '@busbar/core/testing/runs.fixture';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parse, stringify } from 'yaml';
import { parseAgentFile, retiredFields } from './config.ts';

const GOOD = `
cluster: plant
host: host1
role: hypervisor
managementAddress: 10.77.0.11
storageAddress: 10.77.1.11
controllers:
  - {host: host1, address: "10.77.0.11:7443"}
  - {host: host2, address: "[fd00::2]:7443"}
tls: {ca: /etc/busbar/ca.pem, certificate: /etc/busbar/host.pem, key: /etc/busbar/host.key}
libvirt: {uri: "qemu:///system"}
storage: {driver: rbd, pool: vms, monitors: [10.77.1.11, "10.77.1.12:6789"], user: busbar, keyFile: /etc/busbar/rbd.key}
stateDir: /var/lib/busbar
runDir: /run/busbar
logDir: /var/log/busbar
`;

function refusal(text: string): BusbarError {
  try {
    parseAgentFile(text, 'agent.yaml');
  } catch (error) {
    if (error instanceof BusbarError) return error;
    throw error;
  }
  throw new Error('it was accepted');
}

describe('agent.yaml', () => {
  it('is accepted for a hypervisor with either storage, and for a witness', () => {
    expect(parseAgentFile(GOOD, 'agent.yaml')).toMatchObject({ role: 'hypervisor', storage: { pool: 'vms' } });
    const dir = GOOD.replace(/storage: .*/, 'storage: {driver: dir, path: /srv/vms}');
    expect(parseAgentFile(dir, 'agent.yaml')).toMatchObject({ storage: { driver: 'dir', path: '/srv/vms' } });
    const witness = GOOD.replace(/^(libvirt|storage): .*$/gm, '').replace('role: hypervisor', 'role: witness');
    expect(parseAgentFile(witness, 'agent.yaml').role).toBe('witness');
  });

  it('of before libvirtd was taken off the network is still taken, with a word on what to remove', () => {
    const libvirt = 'libvirt: {uri: "qemu:///system", pki: /etc/libvirt/pki}';
    const old = parseAgentFile(GOOD.replace(/^libvirt: .*$/m, libvirt), 'agent.yaml');
    expect(retiredFields(old).join()).toMatch(
      /libvirt\.pki is no longer used.*listen_tls = 0.*delete \/etc\/libvirt\/pki/,
    );
    expect(retiredFields(parseAgentFile(GOOD, 'agent.yaml'))).toEqual([]);
  });

  it('may pretend a topology', () => {
    const pretend = 'pretendTopology: {numaNodes: [{cpus: "0-3", memoryMib: 512}, {cpus: 4-7}], isolatedCpus: "2,3"}';
    expect(parseAgentFile(`${GOOD}${pretend}`, 'agent.yaml')).toMatchObject({
      pretendTopology: { numaNodes: [{ cpus: '0-3', memoryMib: 512 }, { cpus: '4-7' }], isolatedCpus: '2,3' },
    });
  });

  it.each([
    [
      'logDir: /var/log/busbar',
      'logDir: /var/log/busbar\npretendTopology: {numaNodes: []}',
      'pretendTopology.numaNodes',
      /at least one NUMA node/,
    ],
    [
      'logDir: /var/log/busbar',
      'logDir: /var/log/busbar\npretendTopology: {numaNodes: [{cpus: all}]}',
      'pretendTopology.numaNodes[0].cpus',
      /is "all"; right is: a Linux CPU list such as "0-7,16"/,
    ],
    [
      'logDir: /var/log/busbar',
      'logDir: /var/log/busbar\npretendTopology: {numaNodes: [{cpus: 0-3}, {cpus: 3-4}]}',
      'pretendTopology.numaNodes',
      /each CPU in one NUMA node/,
    ],
    ['host: host1', 'host: Host_1', 'host', /is "Host_1"; right is: a lower-case DNS label/],
    [
      'managementAddress: 10.77.0.11',
      'managementAddress: 10.77.0',
      'managementAddress',
      /is "10.77.0"; right is: an IP address/,
    ],
    ['"10.77.0.11:7443"', '10.77.0.11', 'controllers[0].address', /HOST:PORT/],
    ['"[fd00::2]:7443"', '"10.77.0.11:7443"', 'controllers', /each controller address once/],
    ['host: host2', 'host: host1', 'controllers', /each controller host once/],
    ['keyFile: /etc/busbar/rbd.key', 'keyFile: rbd.key', 'storage.keyFile', /is "rbd.key"; right is: an absolute path/],
    [', keyFile: /etc/busbar/rbd.key', '', 'storage.keyFile', /user and keyFile together, or neither/],
    [
      'libvirt: {uri: "qemu:///system"}',
      'libvirt: {uri: "qemu:///system", uidPool: {first: 1000, count: 5000}}',
      'libvirt.uidPool.first',
      /is 1000; right is: first from 65536/,
    ],
    ['monitors: [10.77.1.11, "10.77.1.12:6789"]', 'monitors: []', 'storage.monitors', /at least one/],
    ['driver: rbd', 'driver: zfs', 'storage.driver', /is "zfs"; right is: driver: rbd/],
    [
      'stateDir: /var/lib/busbar',
      'statedir: /var/lib/busbar',
      'stateDir',
      /stateDir is missing[\s\S]*statedir is not a known field/,
    ],
    ['logDir: /var', 'metrics: {listen: "7803"}\nlogDir: /var', 'metrics.listen', /is "7803"; right is: HOST:PORT/],
    ['logDir: /var', 'log: {level: loud}\nlogDir: /var', 'log.level', /is "loud"; right is: debug, info, warn, error/],
    ['role: hypervisor', 'role: boss', 'role', /is "boss"; right is: role: hypervisor or role: witness/],
    ['libvirt: {uri: "qemu:///system"}', '', 'libvirt', /libvirt is missing/],
    ['libvirt: {uri: "qemu:///system"}', 'libvirt: {uri: system}', 'libvirt.uri', /qemu:\/\/\/system/],
  ])('says what is wrong with %s → %s', (good, bad, field, message) => {
    const error = refusal(GOOD.replace(good, bad));
    expect(error.message).toMatch(message);
    expect(error.fields.map((violation) => violation.field)).toContain(field);
  });

  it('says so when it is empty or no YAML', () => {
    expect(refusal('').message).toMatch(/right is/);
    expect(refusal('a: [').message).toMatch(/is not YAML/);
  });
});

describe('whatever the file holds', () => {
  // A refusal that a person can read: named, and not a book.
  const judged = (text: string) => {
    try {
      parseAgentFile(text, 'agent.yaml');
    } catch (error) {
      expect(error).toBeInstanceOf(BusbarError);
      const { message, reason } = error as BusbarError;
      expect(reason).toBe('AGENT_CONFIG_INVALID');
      expect(message).toMatch(/^agent\.yaml is not (YAML|usable)/);
      expect(message.length).toBeLessThan(8192);
      // Its lines are its own; nothing else in it may be for the terminal.
      expect(message.replaceAll('\n', '')).not.toMatch(/\p{Cc}/u);
    }
  };
  const good = parse(GOOD) as Record<string, unknown>;

  it('names and values that a terminal would obey', () => {
    judged(`\u009b2J\u007f: 1\n${GOOD}`);
    judged(GOOD.replace('host1', '\u009b2J\u007f'));
  });

  it('any bytes', () => fc.assert(fc.property(fc.string({ unit: 'binary' }), judged), { numRuns: numRuns(300) }));

  it('a good file with bytes changed, taken out or put in', () => {
    const junk = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 6 }),
      fc.constantFrom(
        '*x',
        '&x ',
        '{',
        '[',
        '- ',
        '!!binary x',
        '!!js/function x',
        '? ',
        '<<: *x',
        '\t',
        '.nan',
        '1e999',
      ),
    );
    const change = fc.tuple(fc.nat(GOOD.length), fc.nat(12), junk);
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 3 }), (changes) => {
        let text = GOOD;
        for (const [at, length, put] of changes) text = text.slice(0, at) + put + text.slice(at + length);
        judged(text);
      }),
      { numRuns: numRuns(1000) },
    );
  });

  it('any value in any field', () => {
    const value = fc.anything({ withDate: true, maxDepth: 3 }).filter((one) => one !== undefined && !isSymbolic(one));
    fc.assert(
      fc.property(fc.constantFrom(...Object.keys(good)), value, (key, one) => {
        let text: string;
        try {
          text = stringify({ ...good, [key]: one });
        } catch {
          return;
        }
        judged(text);
      }),
      { numRuns: numRuns(500) },
    );
  });

  it.each([
    ['a bomb of aliases', `a0: &a0 [x,x,x,x,x,x,x,x,x]\n${layers(9)}`],
    ['itself', 'host: &a [*a]\ntls: &t {ca: *t}'],
    ['deep nesting', `host: ${'['.repeat(20_000)}`],
    ['deep nesting that ends', `host: ${'['.repeat(5000)}${']'.repeat(5000)}`],
    [
      'huge numbers',
      GOOD.replace('host: host1', `host: ${'9'.repeat(400)}`).replace('10.77.0.11:7443', `h:${'9'.repeat(400)}`),
    ],
    ['a megabyte in a field', GOOD.replace('host: host1', `host: ${'x'.repeat(2 ** 20)}`)],
    ['a megabyte of fields', GOOD + Array.from({ length: 60_000 }, (_, i) => `f${i}: 1`).join('\n')],
    ['keys that are objects’', `${GOOD}__proto__: {cluster: evil}\nconstructor: {prototype: {polluted: 1}}`],
    ['two documents', `${GOOD}---\n${GOOD}`],
  ])('%s is refused at once', (_what, text) => {
    const startedAtMs = performance.now();
    expect(() => parseAgentFile(text, 'agent.yaml')).toThrow(BusbarError);
    judged(text);
    // Ten times what it takes on a machine that is busy; a bomb takes minutes or all memory.
    expect(performance.now() - startedAtMs).toBeLessThan(10_000);
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
  });
});

/** Each line names nine times the one before: 9^n values when unfolded. */
function layers(count: number): string {
  const line = (n: number) => `a${n}: &a${n} [${Array.from({ length: 9 }, () => `*a${n - 1}`).join(',')}]\n`;
  return `${Array.from({ length: count }, (_, i) => line(i + 1)).join('')}host: *a${count}\n`;
}

function isSymbolic(value: unknown): boolean {
  return typeof value === 'symbol' || typeof value === 'function';
}
