// SPDX-License-Identifier: Apache-2.0
import { get } from 'node:https';
import { AGENT_METRICS_PORT } from '@busbar/deploy/lab/plan';
import { expect, it } from 'vitest';
import { parseScrape, type Scrape } from '../scrape.ts';
import { addressOf, authority, clientOf, EVERY_HOST, post, untilReady, VOTERS } from './lab.ts';

/**
 * Goal: no request of anybody costs a host its lease. Method: the worst requests that are known, without a certificate and
 * with an operator's, to all controllers at once; before and after every agent is asked how often its lease ended.
 */
const MIB = 1_024 ** 2;
/** Many small elements: the most work for each byte. Just below the limit of a body. */
const filled = (head: string, element: string, tail: string) =>
  head + `${element},`.repeat(Math.floor((4 * MIB - 200) / (element.length + 1))) + element + tail;
const JOIN = filled('{"csrs":[', '{}', ']}');
const CREATE = filled('{"name":"v","spec":{"disks":[', '{}', ']}}');
/** Thirteen ended every lease before; each costs a body of 4 MiB. */
const ROUNDS = 4;

it('every lease lives on while all controllers get the worst requests at once', async () => {
  await untilReady();
  const losses = () =>
    Promise.all(EVERY_HOST.map(async (host) => (await scrape(host)).sum('busbar_lease_losses_total')));
  const before = await losses();
  const operator = clientOf('operator');
  const attack = async (host: string) => {
    const address = await addressOf(host);
    const statuses: (number | undefined)[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const answers = await Promise.all([
        post(address, '/busbar.v1.JoinService/Join', JOIN, { timeoutMs: 60_000 }),
        post(address, '/busbar.v1.VmService/CreateVm', CREATE, { as: operator, timeoutMs: 60_000 }),
      ]);
      statuses.push(...answers.map((answer) => answer?.status));
    }
    return statuses;
  };
  const statuses = (await Promise.all(VOTERS.map(attack))).flat();
  expect(statuses).toHaveLength(VOTERS.length * ROUNDS * 2);
  expect(statuses.every((status) => status === undefined || (status >= 400 && status < 500))).toBe(true);
  expect(await losses()).toEqual(before);
  for (const host of EVERY_HOST) expect((await scrape(host)).sum('busbar_lease_remaining_seconds')).toBeGreaterThan(0);
  await untilReady();
});

async function scrape(host: string): Promise<Scrape> {
  const address = await addressOf(host);
  const text = await new Promise<string>((resolve, reject) => {
    const call = get(
      {
        ...clientOf('viewer'),
        host: address,
        port: AGENT_METRICS_PORT,
        path: '/metrics',
        ca: authority(),
        checkServerIdentity: () => undefined,
        timeout: 20_000,
      },
      (incoming) => {
        const chunks: Buffer[] = [];
        incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
        incoming.on('end', () => resolve(Buffer.concat(chunks).toString()));
        incoming.on('error', reject);
      },
    );
    call.on('timeout', () => call.destroy(new Error(`the agent of ${host} does not answer`)));
    call.on('error', reject);
  });
  return parseScrape(text);
}
