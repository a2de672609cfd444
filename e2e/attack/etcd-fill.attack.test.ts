// SPDX-License-Identifier: Apache-2.0
import { randomBytes } from 'node:crypto';
import { Agent } from 'node:https';
import { busbarOk } from '@busbar/deploy/demo/busbar';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addressOf, busbar, clientOf, inside, LAB, post, untilReady, VOTERS } from './lab.ts';

/** Goal: an operator who writes over a VM's user data as fast as he can gets a bounded part of etcd, and nobody notices. */
const QUOTA = 256 * 1024 ** 2;
/** A machine that is busy with other things takes a while for the hundred and thirty calls that the budget allows. */
const FLOOD_MS = 60_000;
const CALLS_MAX = 400;
/** A VM for each worker, so that they do not race. */
const NAMES = Array.from({ length: 4 }, (_, n) => `fill-${n}`);
const UPDATE = '/busbar.v1.VmService/UpdateVm';

beforeAll(async () => {
  const address = await addressOf(VOTERS[0]);
  for (const name of NAMES) {
    const spec = { runPolicy: 'RUN_POLICY_STOPPED', cpu: { vcpus: 1 }, memoryBytes: String(128 * 1024 ** 2) };
    const made = await post(address, '/busbar.v1.VmService/CreateVm', JSON.stringify({ name, spec }), {
      as: clientOf('operator'),
    });
    expect(made?.status, made?.body).toBe(200);
  }
  for (const name of NAMES) await busbarOk(LAB, ['wait', `vm/${name}`, '--for', 'operation']);
});
afterAll(async () => {
  for (const name of NAMES) await busbar(['vm', 'delete', name, '--no-wait']);
});

/** Of the member on this host, by etcd's own command. */
async function inUse(host: string): Promise<number> {
  const pki = '/etc/busbar/pki';
  const { stdout } = await inside(
    host,
    ...['env', 'ETCDCTL_API=3', 'etcdctl', '--endpoints', 'https://127.0.0.1:2379', '--cacert', `${pki}/etcd-ca.crt`],
    ...['--cert', `${pki}/etcd-client.crt`, '--key', `${pki}/etcd-client.key`, 'endpoint', 'status', '-w', 'json'],
  );
  const [status] = JSON.parse(stdout) as { Status: { dbSize: number; dbSizeInUse?: number } }[];
  return status?.Status.dbSizeInUse ?? status?.Status.dbSize ?? Number.NaN;
}

describe('an operator who sends 60 KB of user data again and again', () => {
  it('is stopped by the budget, fills at most its share, and others work on', async () => {
    const address = await addressOf(VOTERS[0]);
    const operator = clientOf('operator');
    const before = await inUse(VOTERS[0]);
    const endMs = performance.now() + FLOOD_MS;
    const results = new Map<string, number>();
    let stopped = false;
    let calls = 0;
    await Promise.all(
      NAMES.map(async (vm) => {
        const agent = new Agent({ keepAlive: true });
        while (performance.now() < endMs && calls++ < CALLS_MAX && !stopped) {
          const userData = `#${randomBytes(45_000).toString('base64')}`;
          const body = JSON.stringify({ vm, updateMask: ['spec.cloudInit'], spec: { cloudInit: { userData } } });
          const answer = await post(address, UPDATE, body, { as: operator, agent });
          const reason = answer === null ? 'no answer' : answer.status === 200 ? 'ok' : JSON.parse(answer.body).reason;
          results.set(reason, (results.get(reason) ?? 0) + 1);
          stopped ||= reason === 'WRITE_BUDGET_SPENT';
        }
        agent.destroy();
      }),
    );
    expect(results.get('ok') ?? 0).toBeGreaterThan(0);
    expect(stopped, JSON.stringify([...results])).toBe(true);
    // A sixth of the quota for all controllers, what was earned meanwhile, and what a database adds.
    const grown = (await inUse(VOTERS[0])) - before;
    expect(grown).toBeLessThan((QUOTA / 6 / VOTERS.length) * 1.25);

    // Somebody else, through the very same controller.
    for (const name of NAMES) {
      const body = JSON.stringify({ vm: name, updateMask: ['labels'], labels: { still: 'works' } });
      expect((await post(address, UPDATE, body, { as: clientOf('admin') }))?.status).toBe(200);
    }
    await untilReady();
  });
});
