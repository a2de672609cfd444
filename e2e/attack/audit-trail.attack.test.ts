// SPDX-License-Identifier: Apache-2.0
import { X509Certificate } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { Agent } from 'node:https';
import { join } from 'node:path';
import { hostRoot } from '@busbar/deploy/lab/paths';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addressOf, clientOf, eventually, type KeyPair, LAB, post } from './lab.ts';

/**
 * Goal: whoever makes calls by the hundred erases nobody's trace and fills no log, and leaves his own: by which certificate,
 * from where.
 */
const CONTROLLER = 'witness1';
const NETWORKS = '/busbar.v1.NetworkService';
const [admin, operator, viewer] = [clientOf('admin'), clientOf('operator'), clientOf('viewer')];
/** Many enough to tell a bound from none, few enough for a machine that is busy. */
const FLOOD = 300;
let address: string;
let agent: Agent;

beforeAll(async () => {
  address = await addressOf(CONTROLLER);
  agent = new Agent({ keepAlive: true, maxSockets: 8 });
  await call('CreateNetwork', { name: 'trail', spec: { kind: 'BRIDGE_KIND_LINUX', bridge: 'br-vm' } }, admin);
});
afterAll(async () => {
  await call('DeleteNetwork', { network: 'trail' }, admin);
  agent.destroy();
});

const call = (method: string, body: object, as?: KeyPair) =>
  post(address, `${NETWORKS}/${method}`, JSON.stringify(body), { ...(as === undefined ? {} : { as }), agent });

interface Listed {
  readonly method: string;
  readonly caller: string;
  readonly certificateSerial?: string;
  readonly address?: string;
  readonly transport?: string;
  readonly reason?: string;
}
async function audit(filter: object): Promise<readonly Listed[]> {
  const answer = await post(
    address,
    '/busbar.v1.AuditService/ListAuditRecords',
    JSON.stringify({ pageSize: 1_000, filter }),
    { as: viewer, agent },
  );
  expect(answer?.status).toBe(200);
  return (JSON.parse(answer?.body ?? '{}') as { auditRecords: Listed[] }).auditRecords;
}
const serialOf = ({ cert }: KeyPair) => new X509Certificate(cert).serialNumber.toLowerCase().replace(/^0+/, '');

/** Lines of the controller that tell of calls, in all files that its log has been rotated into. */
function told(): number {
  const folder = hostRoot(LAB, CONTROLLER, '/var/log/busbar/controller');
  const files = readdirSync(folder).filter((name) => name === 'current' || name.startsWith('@'));
  const lines = files.flatMap((name) => readFileSync(join(folder, name), 'utf8').split('\n'));
  return lines.filter((line) => line.includes('"audit":true')).length;
}

async function flood(one: (i: number) => Promise<unknown>): Promise<void> {
  let next = 0;
  const worker = async () => {
    while (next < FLOOD) await one(next++);
  };
  await Promise.all(Array.from({ length: 8 }, worker));
}

describe('the audit trail', () => {
  it('still has the record of another, and each of these, after hundreds of changes by an operator', async () => {
    const since = new Date().toISOString();
    await call('UpdateNetwork', { network: 'trail', labels: { by: 'admin' } }, admin);
    const statuses: (number | undefined)[] = [];
    await flood(async (i) => {
      statuses.push((await call('UpdateNetwork', { network: 'trail', labels: { n: String(i) } }, operator))?.status);
    });
    const changed = statuses.filter((status) => status === 200).length;
    expect(changed).toBeGreaterThan(FLOOD / 2);
    const of = (caller: KeyPair) =>
      audit({ target: 'trail', methodPrefix: 'UpdateNetwork', since, certificateSerial: serialOf(caller) });
    expect(await of(admin)).toHaveLength(1);
    const records = (await of(operator)).filter(({ reason }) => (reason ?? '') === '');
    // One whose answer did not come in time may have been made all the same.
    expect(records.length).toBeGreaterThanOrEqual(changed);
    expect(records.length).toBeLessThanOrEqual(FLOOD);
    for (const record of records)
      expect(record).toMatchObject({ transport: 'https', address: expect.stringMatching(/^10\.77\.\d+\.\d+$/) });
  });

  it('and the log are bounded when strangers call, who are told of by their address', async () => {
    const before = told();
    const since = new Date().toISOString();
    await flood(async () => {
      expect((await call('DeleteNetwork', { network: 'trail' }))?.status).toBe(401);
    });
    // Twenty, and one for each minute and count that passes meanwhile; other tests' calls may be among them.
    const more = told() - before;
    expect(more).toBeGreaterThan(0);
    expect(more).toBeLessThan(60);
    const records = await eventually('a stranger on record', 10_000, async () => {
      const found = await audit({ caller: 'nobody', since });
      return found.length > 0 ? found : null;
    });
    expect(records.length).toBeLessThan(60);
    expect(records.some((record) => /^10\.77\./.test(record.address ?? ''))).toBe(true);
  });
});

it('an operator gets no device of a host into a guest', async () => {
  const body = {
    host: 'host1',
    spec: { deviceClasses: [{ name: 'disk', devices: ['0000:00:1f.2'] }] },
    updateMask: ['spec.deviceClasses'],
  };
  const answer = await post(address, '/busbar.v1.HostService/UpdateHost', JSON.stringify(body), {
    as: operator,
    agent,
  });
  expect([answer?.status, answer?.body]).toEqual([403, expect.stringContaining('needs admin for spec.deviceClasses')]);
});
