// SPDX-License-Identifier: Apache-2.0
import type { IncomingMessage } from 'node:http';
import type { RequestOptions } from 'node:https';
import type { Authority, KeyPairPem } from '@busbar/pki/authority';
import { NetworkRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { deleteRecord, putRecord } from '../records/kinds.ts';
import type { Write } from '../store/cluster-store.ts';
import { newAuthority, openPost, startWire, type Wire } from '../testing/wire.ts';
import { eventOf } from './events.ts';

/** For a machine that is busy with other things. */
const PATIENCE = { timeout: 15_000 };
vi.setConfig({ testTimeout: 30_000 });
const WATCH = '/busbar.v1.NetworkService/WatchNetworks';
const put = (name: string, label = ''): Write =>
  putRecord('network', name, NetworkRecord.fromPartial({ meta: { id: name, name, labels: { v: label } } }));

let authority: Authority;
let viewer: KeyPairPem;
let wire: Wire;
const open: IncomingMessage[] = [];
beforeAll(async () => {
  authority = await newAuthority('ours');
});
beforeEach(async () => {
  wire = await startWire(authority);
  viewer = await wire.client('viewer');
});
afterEach(async () => {
  for (const response of open.splice(0)) response.destroy();
  await wire.stop();
});
afterAll(() => open.splice(0));

const write = (...writes: Write[]) => wire.rig.truth.txn({ compare: [], writes }).revision;

interface Event {
  readonly event: string;
  readonly id: string;
  readonly data: { readonly network?: { readonly meta: { readonly name: string } }; readonly reason?: string };
}

/** A reader of server-sent events, as the standard says. */
async function events(
  path: string,
  options: RequestOptions = {},
  body: unknown = options.method === 'GET' ? undefined : {},
) {
  const made = openPost(wire.edgePort, wire.ca, path, body, viewer, options);
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    made.once('response', resolve).once('error', reject);
  });
  open.push(response);
  const seen: Event[] = [];
  let comments = 0;
  let rest = '';
  let ended = false;
  response.setEncoding('utf8');
  response.on('data', (text: string) => {
    const blocks = (rest + text).split('\n\n');
    rest = blocks.pop() ?? '';
    for (const block of blocks) {
      const field = (name: string) =>
        block
          .split('\n')
          .find((line) => line.startsWith(`${name}: `))
          ?.slice(name.length + 2) ?? '';
      if (block.startsWith(':')) comments++;
      else if (field('data') !== '')
        seen.push({ event: field('event'), id: field('id'), data: JSON.parse(field('data')) as Event['data'] });
    }
  });
  response.on('end', () => {
    ended = true;
  });
  response.on('error', () => {});
  return {
    response,
    hangUp: () => response.destroy(),
    comments: () => comments,
    ended: () => ended,
    told: () => seen.map(({ event, data }) => `${event} ${data.network?.meta.name ?? ''}`.trim()),
    async last(count: number): Promise<Event> {
      await expect.poll(() => seen.length, PATIENCE).toBeGreaterThanOrEqual(count);
      return seen[count - 1] as Event;
    },
  };
}

describe('a watch as server-sent events', () => {
  it.each([
    ['POST', {}, {}],
    ['GET', { method: 'GET' }, undefined],
  ])('by %s sends what exists, a mark, and each change', async (_method, options, body) => {
    write(put('a'), put('b'));
    const stream = await events(WATCH, options, body);
    expect(stream.response).toMatchObject({
      statusCode: 200,
      headers: { 'content-type': 'text/event-stream', 'cache-control': 'no-store' },
    });
    expect(await stream.last(1)).toMatchObject({ id: '0' });
    expect((await stream.last(3)).id).toBe(String(wire.rig.truth.revision));
    write(put('c'));
    write(deleteRecord('network', 'a'));
    await stream.last(5);
    expect(stream.told()).toEqual(['put a', 'put b', 'progress', 'put c', 'delete a']);
    expect((await stream.last(5)).id).toBe(String(wire.rig.truth.revision));
  });

  it.each([
    ['Last-Event-ID', (id: string) => [WATCH, { method: 'GET', headers: { 'last-event-id': id } }, undefined]],
    ['the query', (id: string) => [`${WATCH}?revision=${id}`, { method: 'GET' }, undefined]],
    ['the body', (id: string) => [WATCH, {}, { revision: id }]],
    [
      'Last-Event-ID rather than the query',
      (id: string) => [`${WATCH}?revision=0`, { method: 'GET', headers: { 'last-event-id': id } }, undefined],
    ],
  ] as [string, (id: string) => [string, RequestOptions, unknown]][])('resumes by %s', async (_how, ask) => {
    write(put('a'));
    const first = await events(WATCH);
    const { id } = await first.last(2);
    first.hangUp();
    write(put('b'));
    const second = await events(...ask(id));
    await second.last(1);
    expect(second.told()).toEqual(['put b']);
  });

  it('has its header soon, also when nothing happens', async () => {
    const { id } = await (await events(WATCH)).last(1);
    const beganMs = performance.now();
    const stream = await events(WATCH, {}, { revision: id });
    expect(performance.now() - beganMs).toBeLessThan(4_000);
    expect(stream.response.statusCode).toBe(200);
    await expect.poll(() => stream.comments(), PATIENCE).toBeGreaterThan(0);
  });

  it('that is too far behind is told to begin anew, and does when it comes back', async () => {
    const stream = await events(WATCH, {}, { revision: '999999' });
    const resync = await stream.last(1);
    expect(resync).toMatchObject({ event: 'resync', id: '0' });
    await expect.poll(() => stream.ended(), PATIENCE).toBe(true);
    write(put('a'));
    const again = await events(WATCH, { method: 'GET', headers: { 'last-event-id': resync.id } }, undefined);
    await again.last(1);
    expect(again.told()[0]).toBe('put a');
  });

  it('ends with its deadline, which it tells', async () => {
    const stream = await events(WATCH, { headers: { 'busbar-timeout-ms': '1500' } });
    expect((await stream.last(2)).data).toMatchObject({ code: 'DEADLINE_EXCEEDED' });
    expect(stream.told()).toEqual(['progress', 'failure']);
    await expect.poll(() => stream.ended(), PATIENCE).toBe(true);
  });

  it('is refused with a status, not in the stream', async () => {
    const get = (path: string, headers = {}) => wire.post(path, undefined, viewer, { method: 'GET', headers });
    expect(await wire.post('/busbar.v1.VmService/GetVmLog', { vm: 'nope' }, viewer)).toMatchObject({
      status: 404,
      json: { reason: 'VM_NOT_FOUND' },
    });
    expect(await get(`${WATCH}?revision=x`)).toMatchObject({ status: 400, json: { fields: [{ field: 'revision' }] } });
    expect(await get(`${WATCH}?name=x`)).toMatchObject({ status: 400, json: { fields: [{ field: 'name' }] } });
    expect(await get(WATCH, { 'last-event-id': 'x' })).toMatchObject({
      status: 400,
      json: { fields: [{ field: 'Last-Event-ID' }] },
    });
  });

  it('is an event in one line each, whatever is in it', () => {
    const text = eventOf({ change: 'CHANGE_KIND_PUT', vm: { message: 'a\n\nevent: x\r\ndata: y' }, progress: {} });
    expect(text.split('\n')).toHaveLength(5);
    expect(text).toMatch(/^event: put\nid: 0\ndata: \{.*\}\n\n$/);
    expect(eventOf({ output: 'QQ==' })).toBe('data: {"output":"QQ=="}\n\n');
  });
});
