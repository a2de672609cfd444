// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { numRuns } from '@busbar/core/testing/runs.fixture';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { message } from '../schema/schema.ts';
import { startLab, type TestLab } from '../testing/cli.ts';
import { HOST, OPERATION, VM } from './allow.ts';
import { LEFT_OUT, redact, scrub } from './redact.ts';
import { tar } from './tar.ts';

vi.setConfig({ testTimeout: 60_000 });

const SECRET = 'MARKER-7f3a';
const PEM = `-----BEGIN EC PRIVATE KEY-----\n${SECRET}\n-----END EC PRIVATE KEY-----`;

let lab: TestLab;
beforeEach(async () => {
  lab = await startLab(2);
  lab.cluster.addHost('host1', 1);
  lab.file('user-data', `#cloud-config\npassword: ${SECRET}\n`);
  lab.file('network-config', `version: 2\nwifi: ${SECRET}\n`);
  const data = ['--user-data', 'user-data', '--network-config', 'network-config'];
  await lab.cli('vm', 'create', 'web', '--vcpus', '1', '--memory', '64MiB', '--label', 'plant=label-stays', ...data);
  const vm = lab.cluster.vms.get('web');
  if (vm?.status !== undefined) vm.status.message = `boom: password=${SECRET}, key:\n${PEM}`;
  const host = lab.cluster.hosts.get('host1');
  if (host?.status !== undefined) host.status.message = `rbd: key = AQBxMARKERxx7f3axAAAAAAAAAAAAAAAAAAAAA==`;
  for (const operation of lab.cluster.operations.values()) {
    operation.error = { reason: 'X', message: `token: "${SECRET} and more"`, hint: PEM, fields: [] };
    Object.assign(operation, { secretOfALaterVersion: SECRET });
  }
  lab.cluster.trail.addEvent('VM_ENDED', 'web', `qemu: secret="${SECRET}"`, new Date(0));
  lab.file('client.key', PEM);
  const config = readFileSync(join(lab.directory, 'config.yaml'), 'utf8');
  lab.file('config.yaml', config.replace('    plaintext', '    key: client.key\n    plaintext'));
  execFileSync('chmod', ['600', join(lab.directory, 'client.key')]);
});
afterEach(() => lab.end());

function unpack(file: string): Map<string, string> {
  execFileSync('tar', ['-xzf', file], { cwd: lab.directory });
  const folder = readdirSync(lab.directory).find((name) => /^busbar-support-[^.]+$/.test(name)) ?? '';
  return new Map(
    readdirSync(join(lab.directory, folder)).map((name) => [
      name,
      readFileSync(join(lab.directory, folder, name), 'utf8'),
    ]),
  );
}

test('holds what a supporter needs, and none of the secrets that lie around', async () => {
  const { code, stdout, stderr } = await lab.cli('support-bundle', '--file', 'out.tar.gz');
  expect(code).toBe(0);
  expect(stdout).toMatch(/^FILE +ENTRIES +SIZE +WHAT\nversions\.json/);
  for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
  expect(stderr).toMatch(/out\.tar\.gz \(.*\) holds no secrets that busbar knows of/);
  expect(statSync(join(lab.directory, 'out.tar.gz')).mode & 0o777).toBe(0o600);

  const files = unpack('out.tar.gz');
  expect([...files.keys()].sort()).toEqual(
    [
      'README.txt',
      'cluster',
      'contents',
      'context',
      'controllers',
      'events',
      'hosts',
      'images',
      'networks',
      'operations',
      'versions',
      'vms',
      'volumes',
    ]
      .map((name) => (name.includes('.') ? name : `${name}.json`))
      .sort(),
  );
  for (const [name, text] of files) {
    expect(text, name).not.toContain(SECRET);
    expect(text, name).not.toMatch(/PRIVATE KEY|AQBx/);
  }
  expect(JSON.parse(files.get('vms.json') ?? '')).toMatchObject([
    {
      meta: { name: 'web', labels: { plant: 'label-stays' } },
      spec: { memoryBytes: '67108864', cloudInit: LEFT_OUT },
      status: { phase: 'VM_PHASE_RUNNING', message: `boom: password=${LEFT_OUT} key:\n${LEFT_OUT}` },
    },
  ]);
  expect(JSON.parse(files.get('controllers.json') ?? '')).toMatchObject([
    { cluster: { answeredBy: 'host1' } },
    { cluster: { answeredBy: 'host2' } },
  ]);
  expect(JSON.parse(files.get('context.json') ?? '')).toMatchObject({ name: 'lab', key: { mode: '0600' } });
});

test('a dead controller is told, a dead cluster leaves the rest', async () => {
  lab.controllers[1]?.kill();
  expect((await lab.cli('support-bundle', '--file', 'one.tar.gz')).code).toBe(0);
  expect(JSON.parse(unpack('one.tar.gz').get('controllers.json') ?? '')).toMatchObject([
    { cluster: { answeredBy: 'host1' } },
    { error: expect.stringContaining('no controller answers') as string },
  ]);
  lab.controllers[0]?.kill();
  const { code, stdout, stderr } = await lab.cli('support-bundle', '--file', 'none.tar.gz');
  expect(code).toBe(0);
  expect(stdout).toMatch(/vms\.json +- +0B +MISSING: no controller answers/);
  expect(stderr).toContain('9 of 11 parts are missing\n');
});

test('is never written over something', async () => {
  lab.file('there.tar.gz', 'mine');
  const { code, stderr } = await lab.cli('support-bundle', '--file', 'there.tar.gz');
  expect(code).toBe(2);
  expect(stderr).toContain('error: cannot write there.tar.gz\nwhy: there is a file of this name already\n');
});

describe('redaction', () => {
  test('only what is named stays, however it is nested', () => {
    const json = fc.jsonValue({ maxDepth: 5 });
    fc.assert(
      fc.property(json, fc.constantFrom(VM, HOST, OPERATION), (value, allow) => {
        const wrapped = {
          secret: { deep: [value] },
          meta: { name: 'n', secret: SECRET, labels: { a: { b: SECRET } } },
          spec: value,
        };
        const text = JSON.stringify(redact(wrapped, allow as never));
        expect(text).not.toContain(SECRET);
        expect(JSON.parse(text)).toMatchObject({ secret: LEFT_OUT });
      }),
    );
  });

  test('nothing of the first-boot data is ever named', () => {
    const names = message('busbar.v1.CloudInit').fields.map(({ name }) => name);
    expect(names).toContain('userData');
    const listed = JSON.stringify(VM);
    for (const name of [...names, 'cloudInit']) expect(listed).not.toContain(name);
  });

  test.each([
    [`x ${PEM} y`, `x ${LEFT_OUT} y`],
    ['-----BEGIN PRIVATE KEY-----\ncut off', LEFT_OUT],
    ['passwd: "a b", next', `passwd: ${LEFT_OUT}, next`],
    ['API_KEY=abc def', `API_KEY=${LEFT_OUT} def`],
    ['the token expired', 'the token expired'],
    ['key AQBdXxxjAAAAABAAcQ0000000000000000000Q== here', `key ${LEFT_OUT} here`],
  ])('%j', (text, expected) => expect(scrub(text)).toBe(expected));
});

describe('tar', () => {
  test('is what tar(1) reads, for any content', () => {
    const content = fc.uint8Array({ maxLength: 2000 });
    fc.assert(
      fc.property(fc.array(content, { minLength: 1, maxLength: 4 }), (contents) => {
        const files = contents.map((bytes, index) => ({ name: `d/f${index}`, content: Buffer.from(bytes) }));
        const archive = tar(files, new Date('2026-03-01T00:00:00Z'));
        const listed = execFileSync('tar', ['-tvf', '-'], { input: archive, encoding: 'utf8' }).trim().split('\n');
        expect(listed.map((line) => Number(line.split(/\s+/)[2]))).toEqual(contents.map((bytes) => bytes.length));
        const last = files.at(-1);
        expect(execFileSync('tar', ['-xOf', '-', last?.name ?? ''], { input: archive })).toEqual(last?.content);
      }),
      { numRuns: numRuns(15) },
    );
  });

  test('refuses names that do not fit', () => {
    for (const name of ['', 'ä', 'x'.repeat(101)])
      expect(() => tar([{ name, content: Buffer.alloc(0) }], new Date(0))).toThrow(/does not fit/);
  });
});
