// SPDX-License-Identifier: Apache-2.0
import { join } from 'node:path';
import { openLab } from '@busbar/deploy/lab/lab';
import { hostRoot, pkiDir } from '@busbar/deploy/lab/paths';
import { AGENT_METRICS_PORT, CONTROLLER_METRICS_PORT, type LabPlan } from '@busbar/deploy/lab/plan';
import { run } from '@busbar/deploy/lab/run';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { busbarOk, eventually, HOSTS, inside, json, LAB } from './lab.ts';
import { parseScrape, type Scrape } from './scrape.ts';

/**
 * Goal: a scraper and a probe see the real daemons as they are, and see it when something breaks. Method: curl, as a person
 * would; then what the daemons need is stopped in its tracks (SIGSTOP) and goes on.
 */
let plan: LabPlan;
beforeAll(async () => {
  plan = await openLab(LAB);
});
afterAll(async () => {
  // Whatever a test that failed has left stopped.
  for (const host of HOSTS) await inside(host, 'pkill', '-CONT', '-x', 'libvirtd|etcd');
  await eventually('every host to be ready', 60_000, async () => {
    const { hosts } = await json<{ hosts: { status: { state: string } }[] }>(['host', 'list']);
    return hosts.every(({ status }) => status.state === 'HOST_STATE_READY') ? true : null;
  });
});

const PORTS = { controller: CONTROLLER_METRICS_PORT, agent: AGENT_METRICS_PORT } as const;
const pair = (directory: string, name: string) => [
  '--cert',
  join(directory, `${name}.crt`),
  '--key',
  join(directory, `${name}.key`),
];
const viewer = () => pair(pkiDir(LAB), 'viewer');

async function curl(daemon: keyof typeof PORTS, host: string, path: string, identity: readonly string[] = []) {
  const address = plan.hosts.find(({ name }) => name === host)?.management;
  const url = `https://${host}:${PORTS[daemon]}${path}`;
  const trust = ['--cacert', join(pkiDir(LAB), 'ca.crt'), '--connect-to', `${host}::${address}:`];
  const { stdout } = await run(['curl', '-sS', '-m', '10', '-w', '\n%{http_code}', ...trust, ...identity, url]);
  const [, body = '', code = ''] = /^([\s\S]*)\n(\d+)$/.exec(stdout) ?? [];
  return { status: Number(code), body };
}

async function scrape(daemon: keyof typeof PORTS, host: string): Promise<Scrape> {
  const { status, body } = await curl(daemon, host, '/metrics', viewer());
  expect(status).toBe(200);
  return parseScrape(body);
}

/** What does not work, as `name: problem`, once /readyz answers with this status. */
async function problems(daemon: keyof typeof PORTS, host: string, status: 200 | 503): Promise<string> {
  return eventually(`/readyz of the ${daemon} on ${host} to answer ${status}`, 30_000, async () => {
    const answer = await curl(daemon, host, '/readyz');
    if (answer.status !== status) return null;
    const { checks } = JSON.parse(answer.body) as { checks: { name: string; problem?: string }[] };
    return checks.map(({ name, problem }) => (problem === undefined ? '' : `${name}: ${problem}\n`)).join('') || 'none';
  });
}

describe('the metrics of real daemons', () => {
  it('are shown to a client of the cluster, and to nobody else', async () => {
    for (const daemon of ['controller', 'agent'] as const) {
      expect((await curl(daemon, 'host1', '/metrics')).status).toBe(401);
      expect(
        (await curl(daemon, 'host1', '/metrics', pair(hostRoot(LAB, 'host1', '/etc/busbar/pki'), 'agent'))).status,
      ).toBe(403);
      expect((await curl(daemon, 'host1', '/metrics', viewer())).status).toBe(200);
      expect((await curl(daemon, 'host1', '/healthz')).body).toContain('"ok":true');
      expect(await problems(daemon, 'host1', 200)).toBe('none');
    }
  });

  it('count what was done: calls to the last one, one leader, leases, native calls', async () => {
    const controllers = () => Promise.all(HOSTS.map((host) => scrape('controller', host)));
    const total = (all: readonly Scrape[], name: string, labels = {}) =>
      all.reduce((sum, one) => sum + one.sum(name, labels), 0);
    const lists = { method: 'busbar.v1.ImageService/ListImages', transport: 'grpc', code: 'OK' };
    const before = total(await controllers(), 'busbar_api_requests_total', lists);
    for (let i = 0; i < 3; i++) await busbarOk(['image', 'list']);
    const after = await controllers();
    expect(total(after, 'busbar_api_requests_total', lists)).toBe(before + 3);
    expect(total(after, 'busbar_leader')).toBe(1);
    for (const one of after) {
      expect(one.sum('busbar_agents_connected')).toBe(3);
      expect(one.sum('busbar_hosts', { state: 'ready' })).toBe(3);
      expect(one.sum('busbar_store_call_seconds_count', { call: 'get', outcome: 'ok' })).toBeGreaterThan(0);
    }
    expect(total(after, 'busbar_native_call_seconds_count', { library: 'librados', outcome: 'ok' })).toBeGreaterThan(0);
    for (const host of HOSTS) {
      // A controller that another file's test restarted grants nothing for its first seconds.
      const acknowledging = async () => (await scrape('agent', host)).sum('busbar_controllers_acknowledging');
      await expect.poll(acknowledging, { timeout: 15_000 }).toBe(3);
      const agent = await scrape('agent', host);
      expect(agent.sum('busbar_lease_remaining_seconds')).toBeGreaterThan(0);
      expect(agent.sum('busbar_native_call_seconds_count', { library: 'libvirt', method: 'list' })).toBeGreaterThan(0);
      expect(agent.sum('busbar_native_child_starts_total', { library: 'libvirt' })).toBeGreaterThan(0);
    }
  });
});

describe('readiness', () => {
  it('of an agent ends with its libvirtd and comes back with it', async () => {
    await inside('host3', 'pkill', '-STOP', '-x', 'libvirtd');
    expect(await problems('agent', 'host3', 503)).toMatch(/^hypervisor: ./);
    expect((await curl('agent', 'host3', '/healthz')).status).toBe(200);
    await inside('host3', 'pkill', '-CONT', '-x', 'libvirtd');
    expect(await problems('agent', 'host3', 200)).toBe('none');
  });

  it("of a controller ends with etcd's quorum and comes back with it; agents keep their leases", async () => {
    for (const host of ['host2', 'host3']) await inside(host, 'pkill', '-STOP', '-x', 'etcd');
    expect(await problems('controller', 'host1', 503)).toMatch(/^cluster store and view: ./);
    expect((await curl('controller', 'host1', '/healthz')).status).toBe(200);
    expect(await problems('agent', 'host1', 200)).toBe('none');
    for (const host of ['host2', 'host3']) await inside(host, 'pkill', '-CONT', '-x', 'etcd');
    expect(await problems('controller', 'host1', 200)).toBe('none');
  });
});
