// SPDX-License-Identifier: Apache-2.0
import { X509Certificate } from 'node:crypto';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { get } from 'node:https';
import { BIN } from '@busbar/deploy/demo/busbar';
import { hostExec, openLab } from '@busbar/deploy/lab/lab';
import { hostRoot } from '@busbar/deploy/lab/paths';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { busbarOk, eventually, inside, json, LAB } from './lab.ts';

/**
 * Goal: a host whose keys are gone joins the running cluster with nothing but a token, and is shut out
 * again as soon as its certificate is revoked.
 * Method: `busbar host join` in the host itself, at the controllers' real edge and store; then its daemons run on the
 * files that the command wrote, completed as docs/operations.md says. At the end the host has its own files again.
 */
const HOST = 'host3';
const DIR = '/etc/busbar/joined';
const DAEMONS = ['agent', 'controller'] as const;
const root = (path: string) => hostRoot(LAB, HOST, path);
const configOf = (daemon: string, dir = '/etc/busbar') => root(`${dir}/${daemon}.yaml`);
const serialOf = (path: string) => new X509Certificate(readFileSync(root(path))).serialNumber.toLowerCase();
const restart = () => hostExec(LAB, HOST, ['sv', 'restart', ...DAEMONS]);

interface HostJson {
  readonly status: { readonly state: string; readonly message?: string };
}
const stateBecomes = (state: string, timeoutMs: number) =>
  eventually(`${HOST} ${state}`, timeoutMs, async () => {
    const { status } = await json<HostJson>(['host', 'get', HOST]);
    return status.state === state ? status : null;
  });

/** Whether a member of etcd lets in whoever has the keys of this host: its status, or how the connection ended. */
function etcdAnswers(address: string, name: string): Promise<number | string> {
  const file = (path: string) => readFileSync(root(`${DIR}/pki/${path}`));
  const tls = {
    ca: file('etcd-ca.crt'),
    cert: file('etcd-client.crt'),
    key: file('etcd-client.key'),
    servername: name,
  };
  return new Promise((resolve) => {
    const request = get(`https://${address}:2379/health`, { ...tls, agent: false, timeout: 5_000 }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    request.on('timeout', () => request.destroy(new Error('no answer')));
    request.on('error', (error) => resolve(error.message));
  });
}

async function joinWith(token: string, dir: string) {
  const argv = [process.execPath, BIN, 'host', 'join', '--token-file', '-', '--dir', dir];
  return hostExec(LAB, HOST, argv, { input: token, mayFail: true });
}

/** Not the holder, as it would be by default: the host gets its own files again. */
const revokeAlone = (name: string) =>
  busbarOk([
    ...['certificate', 'revoke', serialOf(`${DIR}/pki/${name}.crt`)],
    ...['--scope', 'certificate', '--reason', 'the host was stolen'],
  ]);

describe('a host whose keys are gone', () => {
  let token: string;
  const former = new Map<string, string>();

  beforeAll(async () => {
    for (const daemon of DAEMONS) former.set(daemon, readFileSync(configOf(daemon), 'utf8'));
    const { management, storage } = (await openLab(LAB)).hosts.find(({ name }) => name === HOST) ?? {};
    token = await busbarOk(['host', 'token', 'create', HOST, '--voter', '--address', `${management},${storage}`]);
  });

  afterAll(async () => {
    for (const [daemon, text] of former) writeFileSync(configOf(daemon), text);
    rmSync(root(DIR), { recursive: true, force: true });
    await restart();
    await stateBecomes('HOST_STATE_READY', 60_000);
  });

  it('joins with a token, and its daemons run on what that wrote', async () => {
    const joined = await joinWith(token, DIR);
    expect(joined.stderr).toContain('Next: complete agent.yaml and controller.yaml');
    expect(joined).toMatchObject({
      code: 0,
      stdout: `host/${HOST} has its certificates of cluster ${LAB} in ${DIR}\n`,
    });
    for (const daemon of DAEMONS) {
      // What the command cannot know: where disks are, and whether there is a NATS.
      const known = former.get(daemon)?.match(/^(storage|nats):\n(?: .*\n)+/gm) ?? [];
      writeFileSync(configOf(daemon), readFileSync(configOf(daemon, DIR), 'utf8') + known.join(''));
    }
    await restart();
    await stateBecomes('HOST_STATE_READY', 60_000);
    const uses = await inside(
      HOST,
      'sh',
      '-c',
      `grep -c ${DIR}/pki /etc/busbar/agent.yaml /etc/busbar/controller.yaml`,
    );
    expect(uses).toBe('/etc/busbar/agent.yaml:3\n/etc/busbar/controller.yaml:11');
  });

  it('cannot join twice with one token, and then nothing is written', async () => {
    const again = await joinWith(token, `${DIR}-again`);
    expect(again).toMatchObject({ code: 1, stdout: '' });
    expect(again.stderr).toContain('(JOIN_TOKEN_USED)');
    expect(await inside(HOST, 'ls', '/etc/busbar')).not.toContain('again');
  });

  it('is shut out once its certificate is revoked, and the other hosts are not', async () => {
    await revokeAlone('agent');
    await stateBecomes('HOST_STATE_UNREACHABLE', 30_000);
    const log = await inside(HOST, 'sh', '-c', 'grep -c CERTIFICATE_REVOKED /var/log/busbar/agent/current');
    expect(Number(log)).toBeGreaterThan(0);
    const { hosts } = await json<{ hosts: HostJson[] }>(['host', 'list']);
    expect(hosts.filter(({ status }) => status.state === 'HOST_STATE_READY')).toHaveLength(2);
  });

  it('finds the others’ etcd members closed once its key for that is revoked', async () => {
    // Of the other hosts: this one's member still reads the list that belongs to its former keys.
    const others = (await openLab(LAB)).voters.filter(({ name }) => name !== HOST);
    const answers = () => Promise.all(others.map(({ management, name }) => etcdAnswers(management, name)));
    expect(await answers()).toEqual([200, 200]);
    await revokeAlone('etcd-client');
    await eventually('both refuse it', 30_000, async () =>
      (await answers()).every((answer) => typeof answer === 'string') ? true : null,
    );
    // Its own controller is shut out as well; the others write and read.
    await busbarOk(['host', 'label', 'host1', 'after=revocation']);
    await busbarOk(['host', 'label', 'host1', 'after-']);
  });
});
