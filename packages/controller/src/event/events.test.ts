// SPDX-License-Identifier: Apache-2.0
import { createServer } from 'node:net';
import type { Duplex } from 'node:stream';
import { TLSSocket } from 'node:tls';
import { systemClock } from '@busbar/core/clock/clock';
import { silentLogger } from '@busbar/core/log';
import { systemRandom } from '@busbar/core/random';
import { NetworkRecord, VmStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { ChangeKind } from '@busbar/proto/gen/busbar/v1/common';
import { Event, EventSeverity, type WatchEventsResponse } from '@busbar/proto/gen/busbar/v1/event';
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import { CreateNetworkRequest } from '@busbar/proto/gen/busbar/v1/network';
import { CreateVmRequest, RunPolicy, VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { putRecord } from '../records/kinds.ts';
import type { Write } from '../store/cluster-store.ts';
import { testCaller } from '../testing/callers.ts';
import { Rig } from '../testing/rig.ts';
import { memoryBus, NO_BUS, subjectOf } from './bus.ts';
import { natsBus } from './nats.ts';
import { withEvents } from './outbox.ts';
import { publishEvents } from './publish.ts';
import { makeTestPki } from './test-server.ts';

let rig: Rig;
beforeEach(async () => {
  rig = new Rig();
  await rig.start();
});
afterEach(() => rig.stop());

const flags = { validateOnly: false, requestId: '' };
const vm = (name: string) =>
  CreateVmRequest.fromPartial({
    name,
    spec: { runPolicy: RunPolicy.RUNNING, cpu: { vcpus: 1 }, memoryBytes: 64n * 1024n ** 2n },
  });
const createNetwork = (name: string) =>
  rig.call(
    'NetworkService',
    'createNetwork',
    CreateNetworkRequest.fromPartial({ name, spec: { kind: BridgeKind.LINUX, bridge: 'br-vm' } }),
  );
const stored = () => rig.view.tables.event.oldestFirst().map(({ record }) => record);
const reasons = () => stored().map(({ reason }) => reason);

describe('the outbox', () => {
  it('tells the life of a VM, each thing once, in order', async () => {
    await rig.call('VmService', 'createVm', vm('relay'));
    await rig.finish();
    await rig.call('VmService', 'stopVm', { vm: 'relay', force: false, timeoutMs: 0, ...flags });
    await rig.finish();
    await rig.call('VmService', 'deleteVm', { vm: 'relay', force: false, revision: 0n, ...flags });
    await rig.finish();
    const life = ['VM_CREATED', 'VM_STARTING', 'VM_STARTED', 'VM_STOPPING', 'VM_STOPPED', 'VM_DELETING', 'VM_DELETED'];
    expect(reasons().filter((reason) => reason.startsWith('VM_'))).toEqual(life);
    expect(reasons().filter((reason) => reason === 'OPERATION_SUCCEEDED')).toHaveLength(3);
    for (const event of stored()) expect(event.subject).toMatchObject({ kind: 'vm', name: 'relay' });
  });

  it('tells a failed start, with its operation', async () => {
    rig.startFailure = 'no disk';
    await rig.call('VmService', 'createVm', vm('relay'));
    await rig.finish();
    expect(stored().filter(({ severity }) => severity === EventSeverity.ERROR)).toMatchObject([
      { reason: 'VM_START_FAILED', message: expect.stringContaining('no disk') },
      { reason: 'OPERATION_FAILED', attributes: { method: 'CreateVm', error: 'VM_START_FAILED' } },
    ]);
  });

  it('compares what it tells of, so that a view that lags costs a transaction and tells nothing wrong', async () => {
    const status = (phase: VmPhase) => putRecord('vm-status', 'v', VmStatusRecord.fromPartial({ phase }));
    const { revision } = rig.truth.txn({ compare: [], writes: [status(VmPhase.STARTING)] });
    await rig.run(rig.view.waitFor(revision));
    const told = withEvents(rig.api, { compare: [], writes: [status(VmPhase.RUNNING)] });
    expect(told.writes).toHaveLength(2);
    rig.truth.txn({ compare: [], writes: [status(VmPhase.STOPPED)] });
    expect(rig.truth.txn(told).succeeded).toBe(false);
  });

  it('stays within the limits of a transaction', () => {
    const networks = (count: number): Write[] =>
      Array.from({ length: count }, (_, i) =>
        putRecord('network', `n${i}`, NetworkRecord.fromPartial({ meta: { name: `n${i}` } })),
      );
    for (const [records, events] of [
      [3, 3],
      [40, 16],
      [120, 6],
      [126, 0],
    ] as const) {
      const told = withEvents(rig.api, { compare: [], writes: networks(records) });
      const added = told.writes
        .slice(records)
        .map((write) => JSON.parse(write.kind === 'put' ? write.value : '') as object);
      expect(added).toHaveLength(events);
      if (events > 0 && events < records)
        expect(added.at(-1)).toMatchObject({ attributes: { omitted: String(records - events) } });
      expect(told.writes.length).toBeLessThanOrEqual(126);
    }
  });
});

describe('EventService', () => {
  const all = { subjectKind: '', subject: '', minSeverity: EventSeverity.UNSPECIFIED, since: undefined, reason: '' };
  const list = async (filter: object = {}) =>
    (
      await rig.call<{ events: Event[] }>('EventService', 'listEvents', {
        pageSize: 0,
        pageToken: '',
        filter: { ...all, ...filter },
      })
    ).events.map(({ reason, subject }) => `${reason} ${subject?.name}`);

  it('lists newest first, filtered', async () => {
    await createNetwork('a');
    await rig.clock.advance(60_000);
    const since = rig.clock.wallTime();
    await createNetwork('b');
    rig.startFailure = 'no disk';
    await rig.call('VmService', 'createVm', vm('relay'));
    await rig.finish();
    expect((await list()).slice(-2)).toEqual(['NETWORK_CREATED b', 'NETWORK_CREATED a']);
    expect(await list({ subjectKind: 'network' })).toHaveLength(2);
    expect(await list({ subject: 'b' })).toEqual(['NETWORK_CREATED b']);
    expect(await list({ subject: rig.view.tables.network.find('a')?.id })).toEqual(['NETWORK_CREATED a']);
    expect(await list({ minSeverity: EventSeverity.ERROR })).toEqual([
      'OPERATION_FAILED relay',
      'VM_START_FAILED relay',
    ]);
    expect(await list({ minSeverity: EventSeverity.ERROR, reason: 'VM_START_FAILED' })).toHaveLength(1);
    expect(await list({ subjectKind: 'network', since })).toEqual(['NETWORK_CREATED b']);
  });

  it('a watch sends what is kept, then what comes, filtered, and resumes without gap or repeat', async () => {
    await createNetwork('a');
    const bound = rig.services.find((each) => each.definition.name === 'EventService');
    const [rpc, method] = [bound?.definition.methods.watchEvents, bound?.methods.watchEvents];
    if (bound === undefined || rpc === undefined || method === undefined) throw new Error('no WatchEvents');
    const watch = (revision: bigint, filter: object) => {
      const run = rig.gate().stream(bound.definition.fullName, rpc, method);
      const request = { revision, filter: { ...all, ...filter } };
      const stream = run(request, testCaller('viewer', 'client/v'), new AbortController().signal);
      const iterator = stream[Symbol.asyncIterator]();
      return async () => (await rig.run(iterator.next())).value as WatchEventsResponse;
    };
    const next = watch(0n, { subjectKind: 'network' });
    expect(await next()).toMatchObject({ change: ChangeKind.PUT, event: { reason: 'NETWORK_CREATED' } });
    const mark = await next();
    expect(mark.change).toBe(ChangeKind.PROGRESS);
    await rig.call('VmService', 'createVm', vm('relay'));
    await rig.finish();
    await createNetwork('b');
    expect(await next()).toMatchObject({ change: ChangeKind.PUT, event: { subject: { name: 'b' } } });
    const resumed = watch(mark.progress?.revision ?? 0n, { reason: 'VM_STARTED' });
    const started = await resumed();
    expect(started).toMatchObject({ event: { reason: 'VM_STARTED', revision: expect.any(BigInt) } });
    // What is no longer kept is not told of; what does not match moves the stream on all the same.
    const write = rig.view.tables.event
      .oldestFirst()
      .map(({ id }) => ({ kind: 'delete', key: `busbar/event/${id}` }) as const);
    rig.truth.txn({ compare: [], writes: write });
    expect(await resumed()).toMatchObject({ change: ChangeKind.PROGRESS });
  });
});

describe('publishing', () => {
  it('sends what the view learns of, and a new leader the last half minute again', async () => {
    const first = memoryBus();
    {
      using _ = publishEvents({ view: rig.view, clock: rig.clock, bus: first });
      await createNetwork('a');
      await rig.clock.advance(60_000);
      await createNetwork('b');
    }
    await createNetwork('c');
    expect(first.events.map(({ subject }) => subject?.name)).toEqual(['a', 'b']);
    const second = memoryBus();
    using _ = publishEvents({ view: rig.view, clock: rig.clock, bus: second });
    await createNetwork('d');
    expect(second.events.map(({ subject }) => subject?.name)).toEqual(['b', 'c', 'd']);
    expect(second.events.map(({ id }) => id)).toEqual(expect.arrayContaining([first.events[1]?.id]));
    expect(second.events[2]?.revision).toBeGreaterThan(0n);
  });

  it('nowhere is fine', async () => {
    using _ = publishEvents({ view: rig.view, clock: rig.clock, bus: NO_BUS });
    await createNetwork('a');
    expect(reasons()).toEqual(['NETWORK_CREATED']);
    await NO_BUS.close();
  });

  it('two subjects are never one, and none is a pattern', () => {
    const text = fc.oneof(
      fc.array(fc.integer({ min: 0, max: 0xd7ff })).map((units) => String.fromCharCode(...units)),
      fc.constantFrom('', '%', '.', '*', '>', 'a.b', 'a%2Eb', 'vm'),
    );
    const part = fc.record({ kind: text, id: text, reason: text, cluster: text });
    type Part = { readonly kind: string; readonly id: string; readonly reason: string; readonly cluster: string };
    const subject = ({ kind, id, reason, cluster }: Part) =>
      subjectOf(cluster, Event.fromPartial({ reason, subject: { kind, id } }));
    fc.assert(
      fc.property(part, part, (a, b) => {
        expect(subject(a)).toMatch(/^busbar(\.[A-Za-z0-9_%-]+){5}$/);
        const bytes = ({ kind, id, reason, cluster }: Part) =>
          [kind, id, reason, cluster].map((each) => Buffer.from(each).toString('hex'));
        if (subject(a) === subject(b)) expect(bytes(a)).toEqual(bytes(b));
      }),
    );
  });

  it.each(['server', 'misnamed', 'stranger', null] as const)(
    'speaks to a server with the right certificate alone: %s',
    async (who) => {
      const pki = await makeTestPki();
      let heard = '';
      const listen = (socket: Duplex) =>
        void socket.on('data', (bytes) => (heard += String(bytes))).on('error', () => {});
      const server = createServer((socket) => {
        socket.on('error', () => {});
        const tls = who === null ? '' : ',"tls_required":true';
        socket.write(`INFO {"server_id":"x","version":"2.9.10","max_payload":1048576${tls}}\r\n`);
        listen(who === null ? socket : new TLSSocket(socket, { isServer: true, ...pki[who] }));
      });
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      const { port } = server.address() as { port: number };
      let tries = 0;
      const bus = natsBus({
        cluster: 'test',
        servers: [`127.0.0.1:${port}`],
        tls: () => {
          tries++;
          return pki.controller;
        },
        name: 'test',
        clock: systemClock,
        random: systemRandom,
        logger: silentLogger,
      });
      bus.publish(Event.fromPartial({ id: 'secret', reason: 'VM_STARTED' }));
      // The second try shows that the first one has failed.
      while (tries < 2 && !heard.includes('CONNECT')) await new Promise((resolve) => setTimeout(resolve, 5));
      await bus.close();
      server.close();
      expect(heard.includes('CONNECT')).toBe(who === 'server');
      if (who !== 'server') expect(heard).not.toMatch(/PUB|secret/);
    },
  );
});
