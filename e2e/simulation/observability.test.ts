// SPDX-License-Identifier: Apache-2.0
import { measuredPipeline } from '@busbar/controller/api/measured';
import { pipeline } from '@busbar/controller/api/pipeline';
import { ADMIT_ALL, testCaller } from '@busbar/controller/testing/callers';
import { silentLogger } from '@busbar/core/log';
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import { CreateNetworkRequest } from '@busbar/proto/gen/busbar/v1/network';
import {
  CreateVmRequest,
  type CreateVmResponse,
  DeleteVmRequest,
  ListVmsRequest,
  VmPhase,
} from '@busbar/proto/gen/busbar/v1/vm';
import { type MetricsRegistry, metricsRegistry } from '@busbar/telemetry/registry';
import { describe, expect, it } from 'vitest';
import { parseScrape, type Scrape } from '../scrape.ts';
import { World } from './world.ts';

/**
 * Goal: what the daemons say of themselves is true. Method: a simulated cluster does known things on virtual time, and its
 * metrics, health and logs are compared with what was done.
 */
const GIB = 1024n ** 3n;
const ADMIN = testCaller();

async function newWorld() {
  const registries = new Map<string, MetricsRegistry>();
  const metricsOf = (who: string) => {
    const registry = metricsRegistry();
    registries.set(who, registry);
    return registry;
  };
  const world = new World({ seed: 11, metricsOf });
  await world.until(() => world.leaderName() !== null, 20_000, 'a leader');
  const leader = world.leaderName() ?? '';
  const { view } = world.controller(leader);
  const ready = () => view.tables['host-status'].sorted().filter(({ record }) => record.state === 'HOST_STATE_READY');
  await world.until(() => ready().length === 3, 20_000, 'three hosts ready');
  const registryOf = (who: string) => registries.get(who) as MetricsRegistry;
  const scrape = async (who: string): Promise<Scrape> => parseScrape(await registryOf(who).text());
  const deps = { metrics: registryOf(`controller ${leader}`), clock: world.clock };
  const gate = measuredPipeline(
    pipeline({
      logger: silentLogger,
      trail: { note: () => null, admit() {} },
      admission: ADMIT_ALL,
      clock: world.clock,
    }),
    'grpc',
    deps,
  );
  const call = <T>(service: string, method: string, request: unknown): Promise<T> => {
    const bound = world.controller(leader).services.find(({ definition }) => definition.name === service);
    const rpc = bound?.definition.methods[method];
    const handler = bound?.methods[method];
    if (bound === undefined || rpc === undefined || handler === undefined) throw new Error(`no ${service}/${method}`);
    const answer = gate.unary(bound.definition.fullName, rpc, handler)(request, ADMIN, new AbortController().signal);
    return world.settled(answer as Promise<T>, 10_000, method);
  };
  const network = { name: 'plant', spec: { kind: BridgeKind.LINUX, bridge: 'br-vm' } };
  await call('NetworkService', 'createNetwork', CreateNetworkRequest.fromPartial(network));
  const createVm = (name: string) =>
    call<CreateVmResponse>(
      'VmService',
      'createVm',
      CreateVmRequest.fromPartial({
        name,
        requestId: `make-${name}`,
        spec: { cpu: { vcpus: 1 }, memoryBytes: GIB, disks: [{ name: 'boot', sizeBytes: GIB }] },
      }),
    );
  const phase = (id: string) => view.tables['vm-status'].get(id)?.record.phase;
  return { world, leader, view, scrape, call, createVm, phase };
}

/** The fields and the message of each log line in the trace that `holds` a word. */
function lines(world: World, word: string) {
  return world.trace.flatMap((line) => {
    const [, who = '', level = '', message = '', json = ''] =
      /^\S+ ((?:controller|agent) \S+) (info|warn|error) (.*?) (\{.*\})$/.exec(line) ?? [];
    return who !== '' && json.includes(word)
      ? [{ who, level, message, fields: JSON.parse(json) as Record<string, string | undefined> }]
      : [];
  });
}

describe('a controller', () => {
  it('counts its API calls, by method and outcome, to the last one', async () => {
    const { call, scrape, leader, createVm, world, phase } = await newWorld();
    for (let i = 0; i < 5; i++) await call('VmService', 'listVms', ListVmsRequest.fromPartial({ pageSize: 10 }));
    for (let i = 0; i < 3; i++) await expect(call('VmService', 'getVm', { vm: 'nobody' })).rejects.toThrow();
    await expect(call('VmService', 'getVm', { vm: '' })).rejects.toThrow();
    const { vm } = await createVm('scada-1');
    await world.until(() => phase(vm?.meta?.id ?? '') === VmPhase.RUNNING, 60_000, 'it to run');
    const { values, sum } = await scrape(`controller ${leader}`);
    const requests = [...values].filter(([series]) => series.startsWith('busbar_api_requests_total'));
    expect(Object.fromEntries(requests)).toEqual({
      'busbar_api_requests_total{method="busbar.v1.NetworkService/CreateNetwork",transport="grpc",code="OK"}': 1,
      'busbar_api_requests_total{method="busbar.v1.VmService/ListVms",transport="grpc",code="OK"}': 5,
      'busbar_api_requests_total{method="busbar.v1.VmService/GetVm",transport="grpc",code="NOT_FOUND"}': 3,
      'busbar_api_requests_total{method="busbar.v1.VmService/GetVm",transport="grpc",code="INVALID_ARGUMENT"}': 1,
      'busbar_api_requests_total{method="busbar.v1.VmService/CreateVm",transport="grpc",code="OK"}': 1,
    });
    expect(sum('busbar_api_request_seconds_count')).toBe(11);
    expect(sum('busbar_api_requests_in_flight')).toBe(0);
    // Virtual time: a read of the memory store takes between 0.6 and 6 ms, so a list does.
    const listSeconds = sum('busbar_api_request_seconds_sum', { method: 'busbar.v1.VmService/ListVms' });
    expect(listSeconds).toBeGreaterThan(5 * 0.0006);
    expect(listSeconds).toBeLessThan(5 * 0.02);

    expect(sum('busbar_vms', { phase: 'running' })).toBe(1);
    expect(sum('busbar_hosts', { state: 'ready' })).toBe(3);
    expect(sum('busbar_agents_connected')).toBe(3);
    expect([...values.keys()].filter((series) => series.startsWith('busbar_agent_silence_seconds'))).toHaveLength(3);
    expect(sum('busbar_view_records', { kind: 'volume' })).toBe(1);
    expect(sum('busbar_view_relists_total')).toBe(1);
    expect(sum('busbar_operations', { saga: 'create-vm' })).toBe(1);
    expect(sum('busbar_storage_call_seconds_count', { call: 'createVolume', outcome: 'ok' })).toBe(1);
    expect(sum('busbar_leader')).toBe(1);
    expect(sum('busbar_leader_changes_total', { change: 'began' })).toBe(1);
    expect(sum('busbar_leader_remaining_seconds')).toBeGreaterThan(1);
    expect(sum('busbar_store_call_seconds_count', { call: 'renew-lease', outcome: 'ok' })).toBeGreaterThan(0);
    expect(sum('busbar_round_seconds_count', { part: 'all' })).toBeGreaterThan(3);
    expect(sum('busbar_round_failures_total')).toBe(0);
  });

  it('knows how old its queue is, and forgets what is gone', async () => {
    const { world, leader, view, scrape, createVm, call, phase } = await newWorld();
    for (const host of world.hosts) host.machine.faults.hangStarts = true;
    const { vm } = await createVm('slow-1');
    await world.clock.advance(20_000);
    const waiting = await scrape(`controller ${leader}`);
    expect(waiting.sum('busbar_operation_oldest_seconds', { saga: 'create-vm' })).toBeCloseTo(20, 0);
    expect(waiting.sum('busbar_operation_waiting_seconds')).toBe(0);
    expect(waiting.sum('busbar_operations', { state: 'running' })).toBe(1);
    const ended = () => view.tables.operation.sorted().every(({ record }) => record.operation?.endTime !== undefined);
    await world.until(ended, 200_000, 'the operation to end');
    const after = await scrape(`controller ${leader}`);
    expect(after.sum('busbar_operation_oldest_seconds')).toBe(0);
    expect(after.sum('busbar_operations', { state: 'failed' })).toBe(1);
    expect(after.sum('busbar_vms')).toBe(1);
    await call('VmService', 'deleteVm', DeleteVmRequest.fromPartial({ vm: 'slow-1', force: true }));
    await world.until(() => phase(vm?.meta?.id ?? '') === undefined, 60_000, 'it to be gone');
    const { values } = await scrape(`controller ${leader}`);
    expect([...values.keys()].filter((series) => series.startsWith('busbar_vms'))).toEqual([]);
  });

  it('is ready while the store answers and not when it does not; alive it is in both', async () => {
    const { world, leader, scrape } = await newWorld();
    const { health } = world.controller(leader);
    const problems = async () => {
      const checks = await world.settled(health.ready(), 10_000, 'readiness');
      return checks.map(({ problem }) => problem).filter((problem) => problem !== '');
    };
    expect(await problems()).toEqual([]);
    expect(health.live().map(({ name, problem }) => [name, problem])).toEqual([
      ['leadership loop', ''],
      ['leader rounds', ''],
    ]);
    world.freezeStore(leader, true);
    await world.clock.advance(30_000);
    expect((await problems()).join()).toMatch(/store/);
    expect(health.live().every(({ problem }) => problem === '')).toBe(true);
    const down = await scrape(`controller ${leader}`);
    expect(down.sum('busbar_leader')).toBe(0);
    expect(down.sum('busbar_leader_changes_total', { change: 'ended' })).toBe(1);
    world.freezeStore(leader, false);
    await world.clock.advance(10_000);
    expect(await problems()).toEqual([]);
  });
});

describe('an agent', () => {
  it('tells of its lease, its domains and its calls', async () => {
    const { world, scrape, createVm, phase } = await newWorld();
    const { vm } = await createVm('scada-1');
    await world.until(() => phase(vm?.meta?.id ?? '') === VmPhase.RUNNING, 60_000, 'it to run');
    const [runner = ''] = world.runningOn(vm?.meta?.id ?? '');
    const { sum, values } = await scrape(`agent ${runner}`);
    expect(sum('busbar_lease_remaining_seconds')).toBeGreaterThan(1.5);
    expect(sum('busbar_lease_remaining_seconds')).toBeLessThanOrEqual(2.25);
    expect([sum('busbar_controllers'), sum('busbar_controllers_acknowledging')]).toEqual([3, 3]);
    expect(sum('busbar_domains', { state: 'running' })).toBe(1);
    expect(sum('busbar_host_driver_call_seconds_count', { call: 'startDomain', outcome: 'ok' })).toBe(1);
    expect(sum('busbar_memory_write_seconds_count', { outcome: 'ok' })).toBeGreaterThan(0);
    // The link of the simulation takes 0.2 to 3.2 ms each way.
    const count = sum('busbar_heartbeat_round_trip_seconds_count', { controller: 'host1' });
    const mean = sum('busbar_heartbeat_round_trip_seconds_sum', { controller: 'host1' }) / count;
    expect(mean).toBeGreaterThan(0.0004);
    expect(mean).toBeLessThan(0.0064);
    expect(sum('busbar_domain_changes_total')).toBeGreaterThan(0);
    expect([...values.keys()].some((series) => series.includes(vm?.meta?.id ?? 'none'))).toBe(false);
  });

  it('is ready with a lease and a hypervisor, and says which one is missing', async () => {
    const { world, scrape } = await newWorld();
    const [host] = world.hosts;
    if (host === undefined || host.agent === null) throw new Error('no agent');
    const { agent } = host;
    const { health } = agent;
    // Controllers that were just started wait before they grant.
    await world.until(() => agent.leaseRemainingMs() > 0, 5_000, 'a lease');
    const problems = async () =>
      (await health.ready()).flatMap(({ name, problem }) => (problem === '' ? [] : [`${name}: ${problem}`]));
    expect(await problems()).toEqual([]);
    host.machine.setHypervisor('down');
    await world.clock.advance(3_000);
    expect((await problems()).join()).toMatch(/^hypervisor: ./);
    host.machine.setHypervisor('up');
    await world.clock.advance(10_000);
    expect(await problems()).toEqual([]);
    for (const name of world.liveControllers().slice(0, 2)) world.killController(name);
    await world.clock.advance(10_000);
    expect(await problems()).toEqual(['lease: 1 of 3 controllers acknowledge: no majority, no lease']);
    const { sum } = await scrape(`agent ${host.name}`);
    expect([sum('busbar_lease_remaining_seconds'), sum('busbar_lease_losses_total')]).toEqual([0, 1]);
    expect(sum('busbar_controllers_acknowledging')).toBe(1);
    expect(health.live().every(({ problem }) => problem === '')).toBe(true);
  });
});

describe('the simulation', () => {
  it('takes the same course whether it is measured or not', async () => {
    const course = async (options: object) => {
      const world = new World({ seed: 5, ...options });
      await world.clock.advance(20_000);
      return world.trace;
    };
    expect(await course({ metricsOf: () => metricsRegistry() })).toEqual(await course({}));
  });
});

describe('the log lines of one operation', () => {
  it('are found by its id on the controller, and by VM id and epoch on the agent', async () => {
    const { world, createVm } = await newWorld();
    for (const host of world.hosts) host.machine.faults.failNextStarts = ['QEMU: no such CPU model'];
    const { operation, vm } = await createVm('doomed-1');
    const [operationId, vmId] = [operation?.id ?? '', vm?.meta?.id ?? ''];
    await world.until(
      () => lines(world, operationId).some(({ fields }) => fields.to === 'OPERATION_STATE_FAILED'),
      60_000,
      'the operation to fail',
    );
    const own = lines(world, operationId);
    expect(own.every(({ who, fields }) => who.startsWith('controller') && fields.operationId === operationId)).toBe(
      true,
    );
    expect(own.every(({ fields }) => fields.vmId === vmId)).toBe(true);
    expect(own.map(({ message, fields }) => `${message} ${fields.to ?? ''}`.trim())).toEqual([
      'operation changes state OPERATION_STATE_RUNNING',
      'VM changes phase VM_PHASE_STARTING',
      'VM changes phase VM_PHASE_STOPPED',
      'operation fails',
      'operation changes state OPERATION_STATE_FAILED',
    ]);
    const [start] = own.filter(({ fields }) => fields.to === 'VM_PHASE_STARTING');
    const { epoch, host } = start?.fields ?? {};
    // The protocol to the agents knows no operations: there, the VM's id and the epoch are what joins the two.
    const agent = lines(world, vmId).filter(({ who }) => who.startsWith('agent'));
    expect(agent.every(({ who, fields }) => who === `agent ${host}` && fields.vmId === vmId)).toBe(true);
    expect(
      agent.filter(({ fields }) => fields.epoch === epoch).map(({ level, message }) => `${level} ${message}`),
    ).toEqual(['info action begins', 'warn start failed', 'info action ends']);
    const failed = agent.find(({ message }) => message === 'start failed');
    expect(failed?.fields.err).toContain('no such CPU model');
  });
});
