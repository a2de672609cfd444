// SPDX-License-Identifier: Apache-2.0
/** Mutual TLS: whom the command believes, and how it says whom it does not. Certificates by openssl, as a plant would. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ServerCredentials } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { startLab, type TestLab } from '../testing/cli.ts';
import { FakeController } from '../testing/fake-server.ts';

vi.setConfig({ testTimeout: 30_000, hookTimeout: 60_000 });

const directory = mkdtempSync(join(tmpdir(), 'busbar-tls-'));
const at = (name: string) => join(directory, name);

function openssl(...args: readonly string[]): void {
  execFileSync('openssl', args, { cwd: directory, stdio: ['ignore', 'ignore', 'pipe'] });
}

function authority(name: string): void {
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', `${name}.key`];
  openssl('req', '-x509', ...key, '-out', `${name}.crt`, '-subj', `/CN=${name}`, '-days', '2');
}

function issue(ca: string, name: string, uri: string, days = '2'): void {
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', `${name}.key`];
  openssl('req', ...key, '-out', `${name}.csr`, '-subj', `/CN=${name}`);
  writeFileSync(at(`${name}.ext`), `subjectAltName=IP:127.0.0.1,DNS:localhost,URI:${uri}\n`);
  const signer = ['-CA', `${ca}.crt`, '-CAkey', `${ca}.key`, '-CAcreateserial', '-days', days];
  openssl('x509', '-req', '-in', `${name}.csr`, ...signer, '-extfile', `${name}.ext`, '-out', `${name}.crt`);
}

let lab: TestLab;
const servers: FakeController[] = [];

async function server(certificate: string): Promise<FakeController> {
  const pair = {
    cert_chain: readFileSync(at(`${certificate}.crt`)),
    private_key: readFileSync(at(`${certificate}.key`)),
  };
  const controller = new FakeController(
    'host1',
    lab.cluster,
    ServerCredentials.createSsl(readFileSync(at('ca.crt')), [pair], true),
  );
  await controller.start();
  servers.push(controller);
  return controller;
}

async function ask(controller: FakeController, ca = 'ca', client = 'admin') {
  const context = {
    endpoints: [controller.address],
    ca: at(`${ca}.crt`),
    certificate: at(`${client}.crt`),
    key: at(`${client}.key`),
  };
  lab.file('config.yaml', JSON.stringify({ current: 'lab', contexts: { lab: context } }));
  return await lab.cli('host', 'list');
}

beforeAll(() => {
  authority('ca');
  authority('other');
  issue('ca', 'controller', 'spiffe://lab/controller/host1');
  issue('ca', 'agent', 'spiffe://lab/host/host1');
  issue('ca', 'admin', 'spiffe://lab/client/admin');
  issue('other', 'stranger', 'spiffe://lab/client/admin');
});
beforeEach(async () => {
  lab = await startLab();
});
afterEach(() => {
  for (const controller of servers.splice(0)) controller.kill();
  lab.end();
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

test('a controller of the cluster, asked by a client of the cluster', async () => {
  expect(await ask(await server('controller'))).toMatchObject({ code: 0, stdout: 'no hosts\n' });
});

test.each([
  ['another CA', 'controller', 'other', 'admin', 'TLS: the controller is not certified by the CA of this context'],
  [
    'an agent that plays controller',
    'agent',
    'ca',
    'admin',
    'TLS: what answers there is certified, but not as a controller',
  ],
  [
    'a stranger’s client certificate',
    'controller',
    'ca',
    'stranger',
    'TLS: the controller refuses the client certificate of this context',
  ],
])('%s', async (_, certificate, ca, client, why) => {
  const controller = await server(certificate);
  expect(await ask(controller, ca, client)).toEqual({
    code: 5,
    stdout: '',
    stderr: `error: cannot list hosts
why: no controller answers at ${controller.address} (${why})
do: check ca, certificate and key of the context: \`busbar context list\`
`,
  });
});

test('a missing or broken key file', async () => {
  const controller = await server('controller');
  expect(await ask(controller, 'ca', 'nobody')).toMatchObject({ code: 2 });
  writeFileSync(at('broken.crt'), 'nonsense');
  writeFileSync(at('broken.key'), 'nonsense');
  const { code, stderr } = await ask(controller, 'ca', 'broken');
  expect(code).toBe(2);
  expect(stderr).toMatch(/^error: context lab cannot be used\nwhy: .+\ndo: /);
});
