// SPDX-License-Identifier: Apache-2.0

import { BusbarError } from '@busbar/core/errors';
import { numRuns } from '@busbar/core/testing/runs.fixture';
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import { CreateNetworkRequest, type ListNetworksResponse, type Network } from '@busbar/proto/gen/busbar/v1/network';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { Rig } from '../testing/rig.ts';

/**
 * Goal: what callers may rely on, whoever else calls meanwhile: ids are never used twice, revisions only grow, no update is
 * lost, and a list that changes while it is paged through shows what was there all the time exactly once. Method: many
 * callers at once on the whole API in virtual time, in random order, against a model that is a map.
 */
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const flags = { validateOnly: false, requestId: '' };

class Client {
  readonly #rig: Rig;
  constructor(rig: Rig) {
    this.#rig = rig;
  }
  async create(name: string): Promise<Network> {
    const request = CreateNetworkRequest.fromPartial({ name, spec: { kind: BridgeKind.LINUX, bridge: 'br-vm' } });
    return (await this.#rig.call<{ network: Network }>('NetworkService', 'createNetwork', request)).network;
  }
  async update(network: string, labels: Record<string, string>, revision = 0n): Promise<Network> {
    const request = { network, labels, revision, ...flags };
    return (await this.#rig.call<{ network: Network }>('NetworkService', 'updateNetwork', request)).network;
  }
  async get(network: string): Promise<Network> {
    return (await this.#rig.call<{ network: Network }>('NetworkService', 'getNetwork', { network })).network;
  }
  async remove(network: string): Promise<void> {
    await this.#rig.call('NetworkService', 'deleteNetwork', { network, revision: 0n, ...flags });
  }
  list(pageSize: number, pageToken: string): Promise<ListNetworksResponse> {
    return this.#rig.call('NetworkService', 'listNetworks', { pageSize, pageToken });
  }
  pause(ms: number): Promise<void> {
    return new Promise((resolve) => void this.#rig.clock.timer(ms, resolve));
  }
}

async function withRig(use: (rig: Rig, client: Client) => Promise<void>): Promise<void> {
  const rig = new Rig();
  await rig.start();
  try {
    await use(rig, new Client(rig));
  } finally {
    rig.stop();
  }
}

/** Expected refusals of a crowd; anything else is a failure of the test. */
async function unlessRefused<T>(work: Promise<T>, ...reasons: string[]): Promise<T | null> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof BusbarError && reasons.includes(error.reason)) return null;
    throw error;
  }
}

const nameOf = (network: Network) => network.meta?.name ?? '';
const churn = fc.array(
  fc.record({ verb: fc.constantFrom('create' as const, 'remove' as const, 'update' as const), which: fc.nat(9) }),
  { maxLength: 8 },
);

it('pages show what is there all the time exactly once, in order, however many come and go meanwhile', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(fc.nat(60), { maxLength: 14 }),
      fc.integer({ min: 1, max: 5 }),
      fc.array(churn, { minLength: 3, maxLength: 30 }),
      (keep, pageSize, storms) =>
        withRig(async (_rig, client) => {
          const always = keep.map((n) => `k${String(n).padStart(2, '0')}`);
          for (const name of always) await client.create(name);
          const got: string[] = [];
          let pageToken = '';
          for (let page = 0; page === 0 || pageToken !== ''; page++) {
            const storm = (storms[page % storms.length] ?? []).map(({ verb, which }) => {
              // Between and around those that stay.
              const name = `k${which}${which % 2 === 0 ? '5x' : ''}z`;
              const work: Promise<unknown> =
                verb === 'update' ? client.update(name, { page: `${page}` }) : client[verb](name);
              return unlessRefused(work, 'NETWORK_NAME_TAKEN', 'NETWORK_NOT_FOUND', 'TOO_MANY_RACES');
            });
            const [answer] = await Promise.all([client.list(pageSize, pageToken), ...storm]);
            expect(answer.networks.length).toBeLessThanOrEqual(pageSize);
            got.push(...answer.networks.map(nameOf));
            pageToken = answer.nextPageToken;
            expect(page).toBeLessThan(200);
          }
          expect(new Set(got).size).toBe(got.length);
          expect(got).toEqual(got.toSorted());
          for (const name of always) expect(got).toContain(name);
        }),
    ),
    { numRuns: numRuns(25) },
  );
});

it('a token that was changed is refused, or is one that could have been given out', async () => {
  await withRig(async (_rig, client) => {
    for (const name of ['a', 'b', 'c', 'd']) await client.create(name);
    const { nextPageToken } = await client.list(2, '');
    expect((await client.list(2, nextPageToken)).networks.map(nameOf)).toEqual(['c', 'd']);
    const changed = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 20 }),
      fc
        .tuple(fc.nat(nextPageToken.length), fc.string({ maxLength: 3 }))
        .map(([at, put]) => nextPageToken.slice(0, at) + put + nextPageToken.slice(at + 1)),
    );
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(changed, async (token) => {
        if (token === '') return;
        const answer = await unlessRefused(client.list(2, token), 'INVALID_REQUEST');
        if (answer === null) refused++;
        // Taken: then it is the very token that an entry of some name would have had.
        else expect(Buffer.from(Buffer.from(token, 'base64url').toString()).toString('base64url')).toBe(token);
      }),
      { numRuns: 200 },
    );
    expect(refused).toBeGreaterThan(150);
  });
});

it('no update is lost: whoever writes with the revision that it read counts, every other one is told', async () => {
  const client = fc.array(fc.record({ thinkMs: fc.nat(20), restMs: fc.nat(20) }), { minLength: 1, maxLength: 5 });
  await fc.assert(
    fc.asyncProperty(fc.array(client, { minLength: 2, maxLength: 5 }), (clients) =>
      withRig(async (rig, api) => {
        await api.create('plant');
        let written = 0;
        const revisions: bigint[] = [];
        const lives = clients.map(async (steps) => {
          for (const { thinkMs, restMs } of steps) {
            for (;;) {
              const { meta } = await api.get('plant');
              await api.pause(thinkMs);
              const count = Number(meta?.labels['count'] ?? '0') + 1;
              const update = api.update('plant', { count: `${count}` }, meta?.revision);
              const done = await unlessRefused(update, 'NETWORK_REVISION_STALE', 'TOO_MANY_RACES');
              if (done === null) continue;
              written++;
              revisions.push(done.meta?.revision ?? 0n);
              break;
            }
            await api.pause(restMs);
          }
        });
        let over = false;
        const all = Promise.all(lives).finally(() => {
          over = true;
        });
        for (let ms = 0; !over && ms < 600_000; ms++) await rig.clock.advance(1);
        await all;
        expect(written).toBe(clients.flat().length);
        expect((await api.get('plant')).meta?.labels).toEqual({ count: `${written}` });
        // In the order of their answers: one's own change or a later one, never an earlier one.
        expect(revisions).toEqual(revisions.toSorted((a, b) => Number(a - b)));
      }),
    ),
    { numRuns: numRuns(25) },
  );
});

it('ids are used once, and the revision of a thing grows with each of its changes', async () => {
  const step = fc.record({
    verb: fc.constantFrom('create' as const, 'remove' as const, 'update' as const),
    which: fc.nat(3),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(fc.array(step, { minLength: 1, maxLength: 5 }), { maxLength: 8 }), (rounds) =>
      withRig(async (rig, client) => {
        const ids = new Set<string>();
        const last = new Map<string, bigint>();
        let made = 0;
        for (const round of rounds) {
          await Promise.all(
            round.map(async ({ verb, which }, n) => {
              const name = `n${which}`;
              if (verb === 'remove') await unlessRefused(client.remove(name), 'NETWORK_NOT_FOUND', 'TOO_MANY_RACES');
              if (verb === 'update')
                await unlessRefused(client.update(name, { n: `${n}` }), 'NETWORK_NOT_FOUND', 'TOO_MANY_RACES');
              if (verb !== 'create') return;
              const created = await unlessRefused(
                client.create(name),
                'NETWORK_NAME_TAKEN',
                'TOO_MANY_RACES',
                'NETWORK_NOT_FOUND',
              );
              if (created === null) return;
              made++;
              expect(created.meta?.id).toMatch(UUID);
              ids.add(created.meta?.id ?? '');
            }),
          );
          for (const { id, record, modRevision } of rig.view.tables.network.sorted()) {
            expect(ids.has(id) || record.meta?.id === id).toBe(true);
            expect(modRevision).toBeGreaterThanOrEqual(last.get(id) ?? 0n);
            last.set(id, modRevision);
          }
          // A name belongs to one thing at a time.
          const names = rig.view.tables.network.sorted().map(({ record }) => record.meta?.name);
          expect(new Set(names).size).toBe(names.length);
        }
        expect(ids.size).toBe(made);
      }),
    ),
    { numRuns: numRuns(40) },
  );
});
