// SPDX-License-Identifier: Apache-2.0
/**
 * From nothing to a second host: `cluster init`, a controller with the files that it wrote, certificates, tokens and
 * joins, all with the real command over real TLS. Only the store is in memory.
 */
import { X509Certificate } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseAgentFile } from '@busbar/agent/config/config';
import { parseControllerFile } from '@busbar/controller/config/config';
import { matches } from '@busbar/pki/csr';
import { encodeJoinToken, parseJoinToken } from '@busbar/pki/join-token';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { cli, type Plant, startPlant } from './plant.fixture.ts';

// Whole commands over real sockets: a limit for hanging, not a measure.
vi.setConfig({ testTimeout: 30_000, hookTimeout: 30_000 });

let top: string;
let plant: Plant;
const etc = (...path: string[]) => join(top, 'etc', ...path);
const read = (...path: string[]) => readFileSync(join(top, ...path), 'utf8');
const INIT = [
  'cluster',
  'init',
  '--name',
  'test',
  '--host',
  'host1',
  '--management-address',
  '10.0.0.1',
  '--dir',
  'etc',
];

beforeAll(async () => {
  top = mkdtempSync(join(tmpdir(), 'busbar-join-'));
  const made = await cli(top, INIT);
  expect(made.code, made.stderr).toBe(0);
  plant = await startPlant(etc());
});
afterAll(() => {
  plant.stop();
  rmSync(top, { recursive: true, force: true });
});

/** As the admin that init made, at the controller of this test. */
const admin = (...args: string[]) => cli(top, ['--endpoint', plant.grpc, ...args]);
/** A token as it is printed, with the port at which this test listens. */
async function token(host: string, address: string, ...more: string[]): Promise<string> {
  const { code, stdout, stderr } = await admin('host', 'token', 'create', host, '--address', address, ...more);
  expect(code, stderr).toBe(0);
  return encodeJoinToken({ ...parseJoinToken(stdout), endpoints: ['127.0.0.1:1', plant.edge] });
}
const joinArgs = (dir: string, ...more: string[]) => ['host', 'join', '--token-file', '-', '--dir', dir, ...more];

describe('cluster init', () => {
  it('writes configuration that the daemons take once the storage is filled in', () => {
    const storage = '\nstorage: {driver: dir, path: /srv/busbar}\n';
    const controller = parseControllerFile(read('etc/controller.yaml') + storage, 'controller.yaml');
    expect(controller).toMatchObject({ cluster: 'test', host: 'host1', listen: '10.0.0.1:7800' });
    expect(controller.authoritiesFile).toBe(etc('pki/authorities.sealed.json'));
    const agent = parseAgentFile(read('etc/agent.yaml') + storage, 'agent.yaml');
    expect(agent).toMatchObject({ role: 'hypervisor', controllers: [{ host: 'host1', address: '10.0.0.1:7800' }] });
    for (const path of [controller.tls.ca, controller.tls.key, controller.sealKeyFile, agent.tls.certificate])
      expect(statSync(path).isFile()).toBe(true);
  });

  it('leaves no authority’s key, and no secret for others to read', () => {
    const walk = (path: string): string[] =>
      statSync(path).isDirectory() ? readdirSync(path).flatMap((name) => walk(join(path, name))) : [path];
    const keys: string[] = [];
    for (const path of walk(etc())) {
      const text = readFileSync(path, 'latin1');
      if (text.includes('PRIVATE KEY')) keys.push(path);
      if (/PRIVATE KEY|sealed/i.test(text) && !path.endsWith('.yaml')) expect(statSync(path).mode & 0o77, path).toBe(0);
    }
    const authorities = ['pki/ca.crt', 'pki/etcd-ca.crt'].map((path) => read('etc', path));
    for (const key of keys)
      for (const pem of authorities) expect(matches(pem, readFileSync(key, 'utf8')), key).toBe(false);
  });

  it('a second time changes nothing', async () => {
    const before = read('etc/pki/agent.key');
    const again = await cli(top, INIT);
    expect([again.code, again.stdout]).toEqual([2, '']);
    expect(again.stderr).toContain('there is a context test already');
    const elsewhere = await cli(join(top, 'nobody'), [...INIT.slice(0, -1), etc()]);
    expect([elsewhere.code, elsewhere.stdout]).toEqual([4, '']);
    expect(elsewhere.stderr).toContain('exists and is not an empty directory (DIRECTORY_IN_USE)');
    expect(read('etc/pki/agent.key')).toBe(before);
  });

  it('that cannot write its context leaves nothing', async () => {
    const home = join(top, 'unwritable');
    mkdirSync(join(home, 'config.yaml'), { recursive: true });
    const { code } = await cli(home, INIT);
    expect(code).not.toBe(0);
    expect(readdirSync(home)).toEqual(['config.yaml']);
  });

  it.each([
    ['--name', 'Test_1'],
    ['--host', 'a.b'],
    ['--management-address', 'host1'],
  ])('refuses %s %s', async (flag, value) => {
    const args = INIT.map((word, index) => (INIT[index - 1] === flag ? value : word === 'etc' ? 'other' : word));
    const { code, stderr } = await cli(top, args);
    expect([code, stderr.split('\n')[0]]).toEqual([2, `error: ${flag} ${value} is not allowed`]);
    expect(readdirSync(top)).not.toContain('other');
  });
});

describe('client certificates', () => {
  it('are issued, used, renewed, listed and revoked', async () => {
    const issued = await admin('certificate', 'issue', 'anna', '--role', 'viewer', '--days', '30', '--dir', 'anna');
    expect(issued.code, issued.stderr).toBe(0);
    expect(readdirSync(join(top, 'anna')).sort()).toEqual(['anna.crt', 'anna.key', 'ca.crt']);
    expect(statSync(join(top, 'anna/anna.key')).mode & 0o777).toBe(0o600);
    const files = { ca: 'anna/ca.crt', certificate: 'anna/anna.crt', key: 'anna/anna.key' };
    const lines = Object.entries(files).map(([name, path]) => `    ${name}: ${path}\n`);
    writeFileSync(
      join(top, 'anna.yaml'),
      `current: a\ncontexts:\n  a:\n    endpoints: [${plant.grpc}]\n${lines.join('')}`,
    );
    mkdirSync(join(top, 'home'));
    writeFileSync(join(top, 'home/config.yaml'), read('anna.yaml').replaceAll('anna/', '../anna/'));
    const anna = (...args: string[]) => cli(join(top, 'home'), args);

    expect((await anna('host', 'list')).code).toBe(0);
    const refused = await anna('host', 'token', 'create', 'host9', '--address', '10.0.0.9');
    expect([refused.code, refused.stdout]).toEqual([1, '']);
    expect(refused.stderr).toContain('"client/anna" has role viewer, CreateJoinToken needs admin (ROLE_TOO_LOW)');

    const before = new X509Certificate(read('anna/anna.crt'));
    const renewed = await anna('certificate', 'renew');
    expect(renewed.code, renewed.stderr).toBe(0);
    const after = new X509Certificate(read('anna/anna.crt'));
    expect(after.serialNumber).not.toBe(before.serialNumber);
    expect(after.subjectAltName).toBe(before.subjectAltName);
    expect(matches(read('anna/anna.crt'), read('anna/anna.key'))).toBe(true);
    expect((await anna('host', 'list')).code).toBe(0);

    const revoked = await admin('certificate', 'revoke', after.serialNumber, '--reason', 'laptop lost');
    expect(revoked).toMatchObject({ code: 0, stderr: '' });
    const former = before.serialNumber.toLowerCase();
    expect(revoked.stdout).toContain(`certificate/${former} of client/anna (client) revoked with it\n`);
    const gone = await anna('host', 'list');
    expect([gone.code, gone.stdout]).toEqual([1, '']);
    expect(gone.stderr).toContain('was revoked (CERTIFICATE_REVOKED)');
    const listed = await admin('certificate', 'list', '--subject', 'client/anna');
    expect(listed.stdout).toMatch(/^SERIAL +SUBJECT +PURPOSE +ROLE +PARENT +ENDS +REVOKED\n/);
    const short = former.slice(0, 8);
    expect(listed.stdout).toMatch(new RegExp(`client/anna +client +viewer +${short} +\\S+ +laptop lost\n`));
    expect(listed.stdout).toMatch(new RegExp(`${former} +client/anna +client +viewer +- +\\S+ +laptop lost\n`));
  });

  it('are not issued over what is there, or to nobody', async () => {
    const over = await admin('certificate', 'issue', 'bert', '--role', 'viewer', '--dir', 'etc');
    expect([over.code, over.stderr.includes('DIRECTORY_IN_USE')]).toEqual([4, true]);
    const nobody = await admin('certificate', 'issue', 'a/b', '--role', 'viewer', '--dir', 'ab');
    expect([nobody.code, nobody.stderr.split('\n')[0]]).toEqual([2, 'error: "a/b" is no name of a client']);
    const dry = await admin('certificate', 'issue', 'bert', '--role', 'admin', '--dir', 'bert', '--dry-run');
    expect([dry.code, dry.stdout.includes('nothing was changed')]).toEqual([0, true]);
    expect(readdirSync(top)).not.toContain('bert');
  });
});

describe('a host', () => {
  it('joins with a token, once', async () => {
    const text = await token('host2', '10.0.0.2,10.0.1.200');
    const joined = await cli(join(top, 'b'), joinArgs(join(top, 'host2')), `${text}\n`);
    expect(joined.code, joined.stderr).toBe(0);
    expect(joined.stdout).toBe(`host/host2 has its certificates of cluster test in ${join(top, 'host2')}\n`);
    expect(readdirSync(join(top, 'host2')).sort()).toEqual(['agent.yaml', 'pki']);
    expect(readdirSync(join(top, 'host2/pki')).sort()).toEqual([
      'agent.crt',
      'agent.key',
      'ca.crt',
      'nats.crt',
      'nats.key',
    ]);
    const agent = new X509Certificate(read('host2/pki/agent.crt'));
    expect(agent.subjectAltName).toContain('IP Address:10.0.0.2');
    expect(agent.subjectAltName).toContain('URI:spiffe://test/host/host2');
    expect(statSync(join(top, 'host2/pki/agent.key')).mode & 0o777).toBe(0o600);
    const file = parseAgentFile(`${read('host2/agent.yaml')}\nstorage: {driver: dir, path: /srv}\n`, 'agent.yaml');
    expect(file).toMatchObject({ cluster: 'test', host: 'host2', storageAddress: '10.0.1.200' });

    const replayed = await cli(join(top, 'b'), joinArgs(join(top, 'again')), text);
    expect([replayed.code, replayed.stdout]).toEqual([1, '']);
    expect(replayed.stderr).toContain('(JOIN_TOKEN_USED)');
    expect(readdirSync(top)).not.toContain('again');
    const listed = await admin('host', 'token', 'list');
    expect(listed.stdout).toMatch(/[0-9a-f-]{36} +host2 +hypervisor +no +20\S+Z +used/);
  });

  it('gets no token with another host’s address', async () => {
    const taken = await admin('host', 'token', 'create', 'host5', '--address', '10.0.0.1');
    expect([taken.code, taken.stderr.includes('10.0.0.1 is an address of host "host1"')]).toEqual([4, true]);
    const none = await admin('host', 'token', 'create', 'host5');
    expect([none.code, none.stderr.includes('--address')]).toEqual([2, true]);
    const wrong = await admin('host', 'token', 'create', 'host5', '--address', '10.0.0.5,host5');
    expect([wrong.code, wrong.stderr.split('\n')[0]]).toEqual([2, 'error: --address host5 is not allowed']);
  });

  it('joins as a voting witness, with what its controller needs', async () => {
    const text = await token('w1', '10.0.0.3', '--role', 'witness', '--voter', '--ttl', '10min');
    const joined = await cli(join(top, 'b'), joinArgs(join(top, 'w1')), text);
    expect(joined.code, joined.stderr).toBe(0);
    expect(readFileSync(join(top, 'w1/pki/seal.key'))).toEqual(readFileSync(etc('pki/seal.key')));
    const file = parseControllerFile(`${read('w1/controller.yaml')}\nstorage: {driver: dir, path: /srv}\n`, 'c.yaml');
    expect(file).toMatchObject({ host: 'w1', etcd: { endpoints: ['https://10.0.0.3:2379', 'https://10.0.0.1:2379'] } });
    expect(file.controllers).toContainEqual({ host: 'w1', address: '10.0.0.3:7800' });
    expect(file.authoritiesFile).toBeUndefined();
    expect(parseAgentFile(read('w1/agent.yaml'), 'agent.yaml')).toMatchObject({ role: 'witness' });
  });

  it('does not use its token up when it could not keep what it gets', async () => {
    const text = await token('host5', '10.0.0.5');
    const refused = await cli(join(top, 'b'), joinArgs(etc()), text);
    expect([refused.code, refused.stderr.includes('DIRECTORY_IN_USE')]).toEqual([4, true]);
    const other = await cli(join(top, 'b'), joinArgs(join(top, 'host5'), '--management-address', '10.0.0.1'), text);
    expect([other.code, other.stderr.includes('wants to join with 10.0.0.1, but its token is for 10.0.0.5')]).toEqual([
      4,
      true,
    ]);
    expect((await cli(join(top, 'b'), joinArgs(join(top, 'host5')), text)).code).toBe(0);
  });

  it('believes no other cluster', async () => {
    const text = await token('host6', '10.0.0.6');
    const wrong = { ...parseJoinToken(text), pin: Buffer.alloc(32).toString('base64url') };
    const refused = await cli(join(top, 'b'), joinArgs(join(top, 'host6')), encodeJoinToken(wrong));
    expect([refused.code, refused.stdout]).toEqual([1, '']);
    expect(refused.stderr).toContain('shows no certificate of the authority that the token names');
    expect(refused.stderr).toContain('the secret was not sent there');
    expect((await cli(join(top, 'b'), joinArgs(join(top, 'host6')), text)).code).toBe(0);
  });

  it.each([
    ['', 'it is no join token'],
    ['busbar-join-1.AAAA', 'it is no join token'],
  ])('with %j for a token is told so', async (text, why) => {
    const { code, stderr } = await cli(join(top, 'b'), joinArgs(join(top, 'host7')), text);
    expect([code, stderr.includes(why)]).toEqual([2, true]);
  });

  it('is let in by no token that was withdrawn', async () => {
    const text = await token('host8', '10.0.0.8');
    expect((await admin('host', 'token', 'delete', parseJoinToken(text).id)).code).toBe(0);
    const refused = await cli(join(top, 'b'), joinArgs(join(top, 'host8')), text);
    expect([refused.code, refused.stderr.includes('JOIN_TOKEN_INVALID')]).toEqual([1, true]);
  });

  it('renews what no daemon renews', async () => {
    const names = ['nats', 'etcd', 'etcd-client'];
    const serials = () => names.map((name) => new X509Certificate(read(`etc/pki/${name}.crt`)).serialNumber);
    const before = serials();
    const config = read('etc/agent.yaml');
    writeFileSync(etc('agent.yaml'), config.replace('10.0.0.1:7800', plant.grpc));
    expect(await cli(top, ['host', 'renew', '--dir', 'etc'])).toMatchObject({ code: 0, stdout: 'nothing is due\n' });
    expect(serials()).toEqual(before);
    const renewed = await cli(top, ['host', 'renew', '--dir', 'etc', '--now']);
    expect(renewed.code, renewed.stderr).toBe(0);
    expect(renewed.stdout.match(/certificate of \S+ renewed/g)).toHaveLength(3);
    for (const [index, serial] of serials().entries()) expect(serial).not.toBe(before[index]);
    for (const name of names) expect(matches(read(`etc/pki/${name}.crt`), read(`etc/pki/${name}.key`))).toBe(true);
    expect(readdirSync(etc('pki')).filter((name) => name.endsWith('.next'))).toEqual([]);
  });
});
