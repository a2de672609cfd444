// SPDX-License-Identifier: Apache-2.0
import type { Role } from '@busbar/pki/role';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { testCaller } from '../testing/callers.ts';
import { Rig } from '../testing/rig.ts';
import type { Caller } from './call.ts';
import { API_PLACES } from './places.ts';

/** A watch from the beginning. */
const ALL = { revision: 0n };

let rig: Rig;
const hangUps: AbortController[] = [];
beforeEach(async () => {
  rig = new Rig();
  await rig.start();
});
afterEach(() => {
  for (const hangUp of hangUps.splice(0)) hangUp.abort();
  rig.stop();
});

function rpcOf(service: string, key: string) {
  const bound = rig.services.find((each) => each.definition.name === service);
  const rpc = bound?.definition.methods[key];
  const method = bound?.methods[key];
  if (bound === undefined || rpc === undefined || method === undefined) throw new Error(`no ${service}/${key}`);
  return { definition: bound.definition, rpc, method };
}

/** Opens a stream and reads its first message, or waits for ever where the stream says nothing by itself. */
function open(service: string, key: string, caller: Caller, request: unknown = {}) {
  const { definition, rpc, method } = rpcOf(service, key);
  const hangUp = new AbortController();
  hangUps.push(hangUp);
  async function* silent() {
    await new Promise((resolve) => hangUp.signal.addEventListener('abort', resolve, { once: true }));
    yield* [];
  }
  const stream = rig.gate().stream(definition.fullName, rpc, method);
  const iterator = stream(rpc.requestStream ? silent() : request, caller, hangUp.signal)[Symbol.asyncIterator]();
  const first = iterator.next();
  first.catch(() => {});
  return { first, end: () => hangUp.abort(), iterator };
}

describe('places of the API', () => {
  it('are needed by every stream and by what waits, and by nothing else', () => {
    for (const { definition, methods } of rig.services) {
      for (const [key, rpc] of Object.entries(definition.methods)) {
        const lasts = rpc.requestStream || rpc.responseStream || key === 'waitOperation';
        using place = methods[key]?.enter(testCaller());
        expect(place !== null, `${definition.name}/${key}`).toBe(lasts);
      }
    }
  });

  it('of imports: a caller has two, and those that say nothing keep nobody else out; the place of one that ended is free', async () => {
    const as = (name: string, role: Role = 'operator') => open('ImageService', 'importImage', testCaller(role, name));
    const first = as('client/a');
    as('client/a');
    await expect(as('client/a').first).rejects.toMatchObject({
      kind: 'exhausted',
      reason: 'PLACES_TAKEN',
      message: '"client/a" has 2 image imports at the controller of host1, the most that one caller may have',
    });
    as('client/b');
    await expect(as('client/c').first).rejects.toMatchObject({
      message: expect.stringContaining('(client/a 2, client/b 1); a caller with role operator gets no more'),
    });
    as('client/d', 'admin');
    expect(rig.api.places.count('import')).toBe(4);
    first.end();
    await rig.run(first.first.catch(() => {}));
    expect(rig.api.places.count('import')).toBe(3);
  });

  it('of watches: one caller that opens them without end keeps nobody else out', async () => {
    const viewer = testCaller('viewer', 'client/greedy');
    const { perCaller } = API_PLACES.watch;
    const opened = Array.from({ length: perCaller }, () => open('NetworkService', 'watchNetworks', viewer, ALL));
    await rig.run(Promise.all(opened.map(({ first }) => first)));
    await expect(open('VmService', 'watchVms', viewer, ALL).first).rejects.toMatchObject({ reason: 'PLACES_TAKEN' });
    const other = open('VmService', 'watchVms', testCaller('viewer', 'client/other'), ALL);
    await expect(rig.run(other.first)).resolves.toMatchObject({ done: false });
    for (const { end, iterator } of opened) {
      end();
      void iterator.return?.();
    }
    await rig.clock.advance(11_000);
    expect(rig.api.places.count('watch')).toBe(1);
  });

  it('of a call that is refused later on are given back', async () => {
    for (let n = 0; n < 20; n++) {
      const log = open('VmService', 'getVmLog', testCaller('viewer'), { vm: 'none', tailBytes: 0n, follow: true });
      await expect(rig.run(log.first)).rejects.toMatchObject({ reason: 'VM_NOT_FOUND' });
    }
    expect(rig.api.places.count('log')).toBe(0);
  });
});
