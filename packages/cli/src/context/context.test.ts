// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from 'node:child_process';
import { chmodSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { startLab, type TestLab } from '../testing/cli.ts';

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let lab: TestLab;
const at = (name: string) => join(lab.directory, name);
const config = () => readFileSync(at('config.yaml'), 'utf8');

function certificate(name: string): void {
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', `${name}.key`];
  const san = 'subjectAltName=URI:spiffe://plant/client/anna,URI:spiffe://plant/role/operator';
  const args = ['req', '-x509', ...key, '-out', `${name}.pem`, '-subj', `/CN=${name}`, '-days', '30', '-addext', san];
  execFileSync('openssl', args, { cwd: lab.directory, stdio: 'ignore' });
  chmodSync(at(`${name}.key`), 0o600);
}

beforeEach(async () => {
  lab = await startLab();
  writeFileSync(
    at('config.yaml'),
    'current: a\n# mine\ncontexts:\n  a: {endpoints: [h1]} # the first\n  b: {endpoints: [h2]}\n',
  );
});
afterEach(() => lab.end());

test('list, use, rename, remove keep the rest of the file', async () => {
  expect((await lab.cli('context', 'use', 'b')).stdout).toBe('context/b is current\n');
  expect((await lab.cli('contexts', 'ls')).stdout).toMatch(
    /^ +NAME +ENDPOINTS +CERTIFICATE\n- {2}a +h1 +-\n\* {2}b +h2 +-\n$/,
  );
  expect((await lab.cli('context', 'rename', 'b', 'plant')).stdout).toBe('context/plant is the new name of b\n');
  expect(config()).toBe(
    'current: plant\n# mine\ncontexts:\n  a: { endpoints: [ h1 ] } # the first\n  plant: { endpoints: [ h2 ] }\n',
  );
  const { code, stdout, stderr } = await lab.cli('context', 'remove', 'plant');
  expect({ code, stdout, stderr }).toEqual({
    code: 0,
    stdout: 'context/plant removed; its certificate and key are still where they were\n',
    stderr: 'no context is current now: busbar context use NAME\n',
  });
  expect((await lab.cli('context', 'list', '-o', 'name')).stdout).toBe('context/a\n');
  expect((await lab.cli('vm', 'list')).stderr).toContain('error: no context is chosen\nwhy: contexts are a');
});

test.each([
  [['use', 'c'], 'error: there is no context "c"\nwhy: contexts are a, b'],
  [['rename', 'a', 'b'], 'error: cannot rename context a\nwhy: there is a context b already\n'],
  [['rename', 'a', '-x'], 'error: unknown option "-x"'],
  [['rename', 'a', 'x/y'], 'error: "x/y" is no name of a context'],
  [['show', 'aa'], 'error: there is no context "aa"'],
])('%j is refused', async (args, stderr) => {
  const result = await lab.cli('context', ...args);
  expect(result.code).toBe(2);
  expect(result.stderr).toContain(stderr);
});

test('a wrong file is told with line and field', async () => {
  lab.file('config.yaml', 'contexts: {a: {endpoint: x}}');
  const { code, stderr } = await lab.cli('context', 'list');
  expect(code).toBe(2);
  expect(stderr).toContain('contexts.a.endpoint: unknown field, did you mean endpoints?');
});

describe('add', () => {
  const add = (name: string, ...more: string[]) => {
    const files = ['--ca', 'me.pem', '--certificate', 'me.pem', '--key', 'me.key'];
    return lab.cli('context', 'add', name, '--endpoint', 'h1,h2:7900', ...files, ...more);
  };
  beforeEach(() => certificate('me'));

  test('the first one makes the file, readable by its owner only', async () => {
    execFileSync('rm', [at('config.yaml')]);
    expect((await lab.cli('vm', 'list')).stderr).toContain('do: `busbar context add --help` shows how to add one');
    expect(await add('plant')).toEqual({ code: 0, stdout: 'context/plant added and is current\n', stderr: '' });
    expect(statSync(at('config.yaml')).mode & 0o777).toBe(0o600);
    // Files beside it are named so that all can be moved together.
    expect(config()).toContain('key: me.key\n');
    expect((await add('plant')).stdout).toBe('context/plant replaced\n');
    expect((await add('other', '--use')).stdout).toBe('context/other added and is current\n');
  });

  test('show tells who one is there, and for how long; a key that others can read is warned of', async () => {
    await add('plant');
    const { stdout } = await lab.cli('context', 'show', 'plant');
    expect(stdout).toMatch(
      /^context: {6}plant\nendpoints: {4}h1:7800, h2:7900\nidentity: {5}client\/anna, role operator\n/,
    );
    expect(stdout).toMatch(
      /certificate: {2}.*me\.pem \(until \d{4}-\d\d-\d\d, -?\d+ days left\)\nkey: {10}.*me\.key \(mode 0600\)\n/,
    );
    chmodSync(at('me.key'), 0o640);
    const warning = `the key ${at('me.key')} can be read by other users (mode 0640): chmod 600 ${at('me.key')}`;
    expect((await lab.cli('context', 'show', 'plant')).stdout).toContain(`warning:      ${warning}\n`);
    expect((await lab.cli('vm', 'list', '--context', 'plant', '--endpoint', '127.0.0.1:1')).stderr).toContain(
      `warning: ${warning}\nerror: cannot list vms\n`,
    );
    expect((await lab.cli('__complete', 'zsh', '--', '--context', 'plant', 'vm', 'get', '')).stderr).toBe('');
    expect((await add('plant')).stderr).toBe(`warning: ${warning}\n`);
  });

  test.each([
    [['--endpoint', 'a b'], 'endpoint "a b" is no address'],
    [['--key', 'other.key'], 'error: --key other.key cannot be used\nwhy: it belongs to another certificate\n'],
    [['--ca', 'config.yaml'], 'error: --ca config.yaml cannot be used\nwhy: '],
    [['--certificate', 'missing.pem'], 'error: cannot read missing.pem\nwhy: there is no such file'],
  ])('%j is refused, and nothing written', async (more, stderr) => {
    certificate('other');
    const before = config();
    const result = await add('plant', ...more);
    expect(result.code).toBe(2);
    expect(result.stderr).toContain(stderr);
    expect(config()).toBe(before);
  });
});
