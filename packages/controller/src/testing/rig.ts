// SPDX-License-Identifier: Apache-2.0
import { VirtualClock } from '@busbar/core/clock/virtual';
import { silentLogger } from '@busbar/core/log';
import { seededRandom } from '@busbar/core/random';
import { ok } from '@busbar/core/result';
import { openSeal, SEAL_KEY_BYTES } from '@busbar/pki/seal';
import { DomainState, EndReason } from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { VmRecord, VmStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { BridgeKind, HostRole, HostState } from '@busbar/proto/gen/busbar/v1/host';
import { Placement, VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import { DEFAULT_POLICY } from '@busbar/scheduler/model';
import { newSimPool, type SimPool, simDriver } from '@busbar/storage/sim/driver';
import { createAlarms } from '../alarm/alarm.ts';
import { ALARM_SOURCES } from '../alarm/table.ts';
import type { Api, Caller } from '../api/call.ts';
import { type Pipeline, pipeline } from '../api/pipeline.ts';
import { apiPlaces } from '../api/places.ts';
import { RequestLeases } from '../api/request-leases.ts';
import { type BoundService, publicServices } from '../api/services.ts';
import { AUDIT_POLICY } from '../audit/policy.ts';
import { AuditRoom } from '../audit/room.ts';
import { AuditTrail } from '../audit/trail.ts';
import { budgetedCommit } from '../budget/commit.ts';
import { ETCD_QUOTA_BYTES, type Fill, UNKNOWN_FILL } from '../budget/fill.ts';
import { WriteBudget } from '../budget/write-budget.ts';
import { type Admission, admission } from '../certificate/admission.ts';
import { FirstUses } from '../certificate/first-use.ts';
import { withEvents } from '../event/outbox.ts';
import { NEW_HOST_SPEC } from '../host/spec.ts';
import type { Leader } from '../leader/leader.ts';
import { SAGAS } from '../leader/term.ts';
import { DEFAULT_LEASE } from '../lease/granter.ts';
import { localGranting } from '../lease/granting.ts';
import { operationOf } from '../operation/progress.ts';
import { SagaRunner } from '../operation/runner.ts';
import type { Saga } from '../operation/saga.ts';
import { ENDED } from '../operation/state.ts';
import { putRecord, ROOT } from '../records/kinds.ts';
import { SessionRegistry } from '../session/registry.ts';
import { groupCommit } from '../store/group-commit.ts';
import { MemoryStoreServer } from '../store/memory.ts';
import { ClusterView } from '../view/view.ts';
import { hardwareDigest } from '../vm/domain.ts';
import { planVm } from '../vm/plan.ts';
import { testCaller } from './callers.ts';

const SIGNAL = new AbortController().signal;

/**
 * The API and the sagas on a memory store and a simulated pool, with one host that does at once what it is told.
 * No sessions, no leadership: those are tried in the whole-cluster simulation.
 */
export class Rig {
  readonly clock: VirtualClock;
  readonly truth: MemoryStoreServer;
  readonly pool: SimPool = newSimPool();
  readonly view: ClusterView;
  readonly api: Api;
  readonly services: readonly BoundService[];
  readonly trail: AuditTrail;
  readonly room: AuditRoom;
  readonly admission: Admission;
  readonly #firstUses: FirstUses;
  readonly #stop = new AbortController();
  readonly #leader: Leader;
  #runner: SagaRunner;
  /** How full the store and the spool are, for the API and the alarms. */
  fill: Fill = { ...UNKNOWN_FILL, quotaBytes: ETCD_QUOTA_BYTES };
  budget: WriteBudget;
  /** What the host says when a VM starts: null lets it run. */
  startFailure: string | null = null;
  /** WebCrypto works in threads of its own: virtual time must not run ahead of it. */
  usesCrypto = false;
  /** The guests do not react to being shut down. */
  shutdownHangs = false;
  /** Its QEMUs stand still: nothing that needs their answer has one. */
  qemuHangs = false;

  /** `startWall`: for tests with certificates, which TLS judges by the machine's clock. */
  constructor(seed = 1, startWall?: Date, sealKey: Uint8Array = Buffer.alloc(SEAL_KEY_BYTES), audit = AUDIT_POLICY) {
    const random = seededRandom(seed);
    const clock = new VirtualClock(startWall);
    this.clock = clock;
    this.budget = new WriteBudget(clock, ETCD_QUOTA_BYTES, 1);
    this.truth = new MemoryStoreServer({ clock });
    const store = this.truth.client({ clock, random });
    const logger = silentLogger;
    this.view = new ClusterView({ store, clock, logger });
    this.room = new AuditRoom({ view: this.view, policy: audit, clock });
    // Started long ago: heartbeats are answered at once.
    const granting = localGranting({
      clock,
      leaseTtlMs: DEFAULT_LEASE.leaseTtlMs,
      startedAtMs: Number.NEGATIVE_INFINITY,
    });
    const sessions = new SessionRegistry({
      controller: 'host1',
      controllers: ['host1'],
      granting,
      clock,
      random,
      logger,
    });
    const storage = simDriver(this.pool, { clock, random });
    this.api = {
      clusterName: 'test',
      host: 'host1',
      controllers: [{ host: 'host1', address: 'host1:7800' }],
      version: '0.0.0',
      view: this.view,
      store,
      storage,
      sessions,
      policy: DEFAULT_POLICY,
      audit: this.room,
      clock,
      random,
      logger,
      commit: budgetedCommit({
        commit: groupCommit(store),
        budget: { spend: (name, bytes) => this.budget.spend(name, bytes) },
        fill: () => this.fill,
      }),
      requestLeases: new RequestLeases(store, clock),
      places: apiPlaces('host1'),
      seal: openSeal(sealKey),
      forVoters: { sealKey, etcdEndpoints: ['https://10.0.0.1:2379'] },
      leadership: { leader: () => ({ host: 'host1' }) },
      alarms: createAlarms(
        {
          cluster: 'test',
          host: 'host1',
          view: this.view,
          sessions,
          audit: this.room,
          storage,
          clock,
          fill: () => this.fill,
        },
        ALARM_SOURCES,
      ),
    };
    this.services = publicServices(this.api);
    this.trail = new AuditTrail({ ...this.api, room: this.room });
    this.#firstUses = new FirstUses({ store, view: this.view, clock, logger });
    this.admission = admission(this.view, clock, (serial) => this.#firstUses.note(serial));
    this.#leader = {
      term: 1n,
      signal: this.#stop.signal,
      txn: (transaction) => store.txn(withEvents(this.api, transaction)),
    };
    this.#runner = this.#newRunner(SAGAS);
  }

  /** What every transport puts in front of the handlers. */
  gate(): Pipeline {
    return pipeline({ logger: silentLogger, trail: this.trail, admission: this.admission, clock: this.clock });
  }

  async start(): Promise<void> {
    void this.view.run(this.#stop.signal);
    void this.trail.run(this.#stop.signal);
    void this.#firstUses.run(this.#stop.signal);
    const inventory = {
      managementAddress: '10.0.0.1',
      storageAddress: '10.0.1.1',
      numaNodes: [],
      cpu: { model: 'sim', vendor: 'sim', libvirtModel: 'sim', features: [], onlineCpus: 8 },
      isolatedCpus: [],
      memoryBytes: 64n * 1024n ** 3n,
      pciDevices: [],
      interfaces: [],
      bridges: [{ name: 'br-vm', kind: BridgeKind.LINUX }],
      kvmUsable: true,
      kvmMessage: '',
      versions: undefined,
      pretendedTopology: undefined,
    };
    await this.run(
      this.api.store.txn({
        compare: [],
        writes: [
          putRecord('host', 'host1', {
            meta: {
              id: 'host1',
              name: 'host1',
              labels: {},
              createTime: undefined,
              updateTime: undefined,
              deleting: false,
            },
            spec: NEW_HOST_SPEC,
          }),
          putRecord('host-status', 'host1', {
            state: HostState.READY,
            message: '',
            role: HostRole.HYPERVISOR,
            bootId: 'b',
            inventory,
          }),
        ],
      }),
    );
  }

  stop(): void {
    this.#stop.abort();
  }

  /** Replaces the runner, as a new leader would: what it remembered is gone. */
  newLeader(sagas: readonly Saga[] = SAGAS): void {
    this.#runner = this.#newRunner(sagas);
  }

  #newRunner(sagas: readonly Saga[]): SagaRunner {
    const { view, clock } = this;
    return new SagaRunner({
      sagas,
      view,
      storage: this.api.storage,
      clock,
      logger: silentLogger,
      leader: this.#leader,
    });
  }

  /** Lets virtual time pass until the promise has settled. */
  async run<T>(promise: Promise<T>, limitMs = 60_000): Promise<T> {
    let settled = false;
    const mark = () => {
      settled = true;
    };
    promise.then(mark, mark);
    if (this.usesCrypto) {
      // Four virtual milliseconds to a real one: what it does takes a real one or two, and no deadline is below 2 s.
      for (const endMs = this.clock.nowMs() + limitMs; !settled && this.clock.nowMs() < endMs; ) {
        await this.clock.advance(4);
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    }
    if (!(await this.clock.advanceUntil(() => settled, limitMs)))
      throw new Error(`not settled within ${limitMs} virtual ms`);
    return promise;
  }

  /** One RPC through the pipeline. Its answer must be one that a transport can send. */
  async call<Response>(
    service: string,
    method: string,
    request: unknown,
    caller: Caller | null = testCaller(),
  ): Promise<Response> {
    const bound = this.services.find((each) => each.definition.name === service);
    const rpc = bound?.definition.methods[method];
    const handler = bound?.methods[method];
    if (bound === undefined || rpc === undefined || handler === undefined) throw new Error(`no ${service}/${method}`);
    const handle = this.gate().unary(bound.definition.fullName, rpc, handler);
    const answer = await this.run(handle(request, caller, SIGNAL));
    rpc.responseType.encode(answer as never).finish();
    return answer as Response;
  }

  /** Ticks the runner and the host until every operation has ended. */
  async finish(limitMs = 300_000): Promise<void> {
    const endMs = this.clock.nowMs() + limitMs;
    while (this.clock.nowMs() < endMs) {
      await this.#host();
      this.#runner.tick(() => {});
      await this.clock.advance(250);
      if (this.view.tables.operation.sorted().every((entry) => ENDED.has(operationOf(entry.record).state))) return;
    }
    const open = this.view.tables.operation
      .sorted()
      .map((entry) => operationOf(entry.record))
      .filter((o) => !ENDED.has(o.state));
    throw new Error(`operations did not end: ${open.map((o) => `${o.method} ${o.state} ${o.message}`).join('; ')}`);
  }

  /** Everything in the store but operations, request ids and what tells of the past, for "nothing is left behind". */
  async stored(): Promise<ReadonlyMap<string, string>> {
    const { value } = await this.run(this.api.store.list(ROOT));
    return new Map(
      value
        .filter(
          (kv) =>
            !['operation', 'request', 'guard', 'audit', 'event'].some((kind) => kv.key.startsWith(`${ROOT}${kind}/`)),
        )
        .map((kv) => [kv.key, kv.value]),
    );
  }

  /** The reconciler's own plan, fed by a host that obeys at once. */
  async #host(): Promise<void> {
    for (const vm of this.view.tables.vm.sorted()) {
      const status = this.view.tables['vm-status'].get(vm.id);
      if (status === undefined) continue;
      const plan = planVm(vm.record, status.record, {
        domain: this.#domain(vm.id, status.record),
        diskSizes: this.qemuHangs ? {} : this.#grown(vm.record),
        hostReporting: true,
        bootId: 'b',
        isAlone: true,
        hostMessage: '',
        phaseAgeMs: 3_600_000,
        place: () => ok({ placement: Placement.fromPartial({ host: 'host1' }), bootId: 'b', reason: '' }),
        inventory: undefined,
        hardware: hardwareDigest(vm.record),
        revision: vm.modRevision,
        wallTime: this.clock.wallTime(),
      });
      if (plan.status === null) continue;
      const result = await this.run(
        this.#leader.txn({
          compare: [{ target: 'mod', key: `${ROOT}vm-status/${vm.id}`, revision: status.modRevision }],
          writes: [putRecord('vm-status', vm.id, plan.status)],
        }),
      );
      await this.run(this.view.waitFor(result.revision));
    }
  }

  /** QEMU grows at once what it is asked to. */
  #grown(vm: VmRecord): Record<string, bigint> {
    const wanted = Object.values(vm.diskVolumes).map(
      (id) => [id, this.view.tables.volume.get(id)?.record.growingToBytes ?? 0n] as const,
    );
    return Object.fromEntries(wanted.filter(([, bytes]) => bytes > 0n));
  }

  #domain(vmId: string, status: VmStatusRecord) {
    const { UNSPECIFIED } = EndReason;
    const base = {
      vmId,
      epoch: status.epoch,
      endReason: UNSPECIFIED,
      message: '',
      placement: undefined,
      diskSizes: {},
    };
    if (status.phase === VmPhase.STOPPING && this.shutdownHangs) return { ...base, state: DomainState.STOPPING };
    if (status.phase === VmPhase.STOPPING)
      return { ...base, state: DomainState.ENDED, endReason: EndReason.GUEST_SHUTDOWN };
    if (this.startFailure !== null)
      return { ...base, state: DomainState.ENDED, endReason: EndReason.START_FAILED, message: this.startFailure };
    return { ...base, state: DomainState.RUNNING };
  }
}
