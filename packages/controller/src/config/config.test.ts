// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import { numRuns } from '@busbar/core/testing/runs.fixture';
import { DEFAULT_POLICY } from '@busbar/scheduler/model';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { auditPolicy, parseControllerFile, placementPolicy } from './config.ts';

const tls = { ca: '/pki/ca.pem', certificate: '/pki/c.pem', key: '/pki/c.key' };
const good = {
  cluster: 'plant-7',
  host: 'host1',
  listen: '10.0.0.1:7800',
  tls,
  etcd: { endpoints: ['https://10.0.0.1:2379'], tls },
  controllers: [{ host: 'host1', address: '10.0.0.1:7800' }],
  storage: { driver: 'dir', path: '/srv/busbar' },
  sealKeyFile: '/etc/busbar/seal.key',
  stateDir: '/var/lib/busbar',
};

const parse = (value: unknown) => parseControllerFile(typeof value === 'string' ? value : stringify(value), 'c.yaml');
function messageOf(value: unknown): string {
  try {
    parse(value);
  } catch (error) {
    expect(error).toBeInstanceOf(BusbarError);
    expect(error).toMatchObject({ kind: 'invalid', reason: 'CONFIG_INVALID' });
    return (error as Error).message;
  }
  throw new Error('was taken');
}

describe('controller file', () => {
  it('takes a good one', () => {
    expect(parse(good)).toMatchObject({ cluster: 'plant-7', storage: { driver: 'dir' } });
    const edge = { listen: '10.0.0.1:7801' };
    expect(parse({ ...good, edge }).edge).toEqual(edge);
  });

  it('has a placement policy: what it says, and the defaults for the rest', () => {
    expect(placementPolicy(parse(good))).toEqual(DEFAULT_POLICY);
    const placement = { vcpuOvercommit: 1.5, survive: 'any-one-host' };
    expect(placementPolicy(parse({ ...good, placement }))).toEqual({ ...DEFAULT_POLICY, ...placement });
    expect(parse(`${stringify(good)}placement: {survive: off}`).placement).toEqual({ survive: 'off' });
  });

  it('says how much of the audit trail is kept: what it says, and the defaults for the rest', () => {
    expect(auditPolicy(parse(good))).toEqual({ keepDays: 90, keepRefusedDays: 30, records: 40_000 });
    const audit = { keepDays: 365, records: 100_000 };
    expect(auditPolicy(parse({ ...good, audit }))).toEqual({ ...audit, keepRefusedDays: 30 });
  });

  it.each([
    ['audit days', { ...good, audit: { keepDays: 0 } }, 'audit.keepDays is 0, expected 1 to 3650 days'],
    ['audit room', { ...good, audit: { records: 10 } }, 'audit.records is 10, expected 1000 to 100000 records'],
    [
      'over-commit',
      { ...good, placement: { vcpuOvercommit: 0.5 } },
      'placement.vcpuOvercommit is 0.5, expected a ratio from 1 to 64',
    ],
    ['prefer', { ...good, placement: { prefer: 'best' } }, 'placement.prefer is "best", expected pack or spread'],
    [
      'survive',
      { ...good, placement: { survive: true } },
      'placement.survive is true, expected off, any-one-host or any-one-failure-domain',
    ],
    ['cluster', { ...good, cluster: 'Plant 7' }, 'cluster is "Plant 7", expected a lower-case host name (DNS label)'],
    ['host missing', { ...good, host: undefined }, 'host is missing, expected a lower-case host name (DNS label)'],
    ['listen', { ...good, listen: '10.0.0.1' }, 'listen is "10.0.0.1", expected an address host:port'],
    ['port', { ...good, listen: '10.0.0.1:99999' }, 'listen is "10.0.0.1:99999", expected a port up to 65535'],
    [
      'etcd’s own',
      { ...good, etcd: { ...good.etcd, memberTls: {} } },
      'etcd.memberTls.ca is missing, expected an absolute path',
    ],
    ['edge', { ...good, edge: { listen: '7801' } }, 'edge.listen is "7801", expected an address host:port'],
    ['tls', { ...good, tls: { ...tls, key: 'c.key' } }, 'tls.key is "c.key", expected an absolute path'],
    ['etcd', { ...good, etcd: { endpoints: [], tls } }, 'etcd.endpoints is [], expected at least one endpoint'],
    [
      'plain etcd',
      { ...good, etcd: { endpoints: ['http://h:2379'], tls } },
      'etcd.endpoints.0 is "http://h:2379", expected an address https://host:port',
    ],
    ['metrics', { ...good, metrics: { listen: '7802' } }, 'metrics.listen is "7802", expected an address host:port'],
    ['log', { ...good, log: { level: 'loud' } }, 'log.level is "loud", expected debug, info, warn, error'],
    ['typo', { ...good, sotrage: {} }, 'sotrage is unknown, expected no such field'],
    ['inner typo', { ...good, tls: { ...tls, cert: '/x' } }, 'tls.cert is unknown, expected no such field'],
    ['driver', { ...good, storage: { driver: 'nfs' } }, 'storage.driver is "nfs", expected "rbd" or "dir"'],
    [
      'not among the controllers',
      { ...good, host: 'host9' },
      'controllers: names host1, expected "host9" (host) among them',
    ],
  ])('%s: field, value and what would be right', (_name, value, expected) => {
    expect(messageOf(value)).toContain(expected);
    expect(messageOf(value).startsWith('c.yaml: ')).toBe(true);
  });

  it('tells every mistake at once', () => {
    const message = messageOf({ ...good, cluster: '', listen: 'x', stateDir: 'var' });
    for (const field of ['cluster', 'listen', 'stateDir']) expect(message).toContain(`${field} is`);
  });

  it('names the storage driver’s own mistakes', () => {
    expect(messageOf({ ...good, storage: { driver: 'dir' } })).toContain('storage.');
  });

  it.each(['', '[', 'a: b: c', '&a [*a]', '*x', '- 1', 'null', '{"tls": &t {ca: *t}}', '!!binary x', '%YAML 9.9'])(
    'refuses %j with a reason',
    (text) => {
      expect(messageOf(text)).toMatch(/^c\.yaml: /);
    },
  );

  it('refuses anything with a reason, whatever it is', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.anything().map((value) => JSON.stringify(value) ?? ''),
        ),
        (text) => {
          messageOf(text);
        },
      ),
      { numRuns: numRuns(300) },
    );
    fc.assert(
      fc.property(fc.constantFrom(...Object.keys(good)), fc.jsonValue(), (key, value) => {
        try {
          parse({ ...good, [key]: value });
        } catch (error) {
          expect(error).toBeInstanceOf(BusbarError);
        }
      }),
      { numRuns: numRuns(300) },
    );
  });
});

describe('whatever the controller file holds', () => {
  const text = stringify(good);
  const judged = (damaged: string) => {
    try {
      parse(damaged);
    } catch (error) {
      expect(error).toMatchObject({ kind: 'invalid', reason: 'CONFIG_INVALID' });
      const { message } = error as BusbarError;
      expect(message).toMatch(/^c\.yaml: /);
      expect(message.length).toBeLessThan(8192);
      expect(message).not.toMatch(/\p{Cc}/u);
    }
  };

  it('names and values that a terminal would obey are refused in words', () => {
    judged(`\u009b2J\u007f${text}`);
    judged(text.replace('host1', '\u009b2J\u007f'));
  });

  it('bytes changed, taken out or put in are refused in words, or do no harm', () => {
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
    const change = fc.tuple(fc.nat(text.length), fc.nat(12), junk);
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 3 }), (changes) => {
        let damaged = text;
        for (const [at, length, put] of changes) damaged = damaged.slice(0, at) + put + damaged.slice(at + length);
        judged(damaged);
      }),
      { numRuns: numRuns(1000) },
    );
  });

  const nine = (n: number) => Array.from({ length: 9 }, () => `*a${n}`).join(',');
  it.each([
    [
      'a bomb of aliases',
      `a0: &a0 [x,x,x,x,x,x,x,x,x]\n${Array.from({ length: 9 }, (_, i) => `a${i + 1}: &a${i + 1} [${nine(i)}]`).join('\n')}`,
    ],
    ['deep nesting', `host: ${'['.repeat(20_000)}`],
    ['a number beyond all bounds', text.replace('7800', '9'.repeat(400))],
    ['a megabyte in a field', text.replace('plant-7', 'x'.repeat(2 ** 20))],
    ['thousands of fields', text + Array.from({ length: 5000 }, (_, i) => `f${i}: 1`).join('\n')],
    ['sixty thousand fields', text + Array.from({ length: 60_000 }, (_, i) => `f${i}: 1`).join('\n')],
    ['keys that every object has', `${text}__proto__: {cluster: evil}\nconstructor: {prototype: {polluted: 1}}`],
  ])('%s is refused at once', (_what, damaged) => {
    const startedAtMs = performance.now();
    expect(() => parse(damaged)).toThrow(BusbarError);
    judged(damaged);
    // Ten times what it takes on a machine that is busy; a bomb takes minutes or all memory.
    expect(performance.now() - startedAtMs).toBeLessThan(20_000);
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
  });
});
