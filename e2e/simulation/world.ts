// SPDX-License-Identifier: Apache-2.0
import { type Agent, createAgent } from '@busbar/agent/agent';
import { InMemoryStore } from '@busbar/agent/reconcile/memory';
import type { ControllerDialer, SessionDialer } from '@busbar/agent/session/link';
import { SimHostDriver } from '@busbar/agent/sim/driver';
import { SimMachine } from '@busbar/agent/sim/machine';
import { type SimTopology, simInventory } from '@busbar/agent/sim/topology';
import type { Caller } from '@busbar/controller/api/call';
import { pipeline } from '@busbar/controller/api/pipeline';
import { type Controller, createController } from '@busbar/controller/controller';
import { memoryBus } from '@busbar/controller/event/bus';
import { Conversation } from '@busbar/controller/heartbeats/conversation';
import { DEFAULT_LEASE } from '@busbar/controller/lease/granter';
import { localGranting } from '@busbar/controller/lease/granting';
import { welcomeOf } from '@busbar/controller/session/registry';
import { type MemoryStore, MemoryStoreServer } from '@busbar/controller/store/memory';
import type { MemorySnapshot } from '@busbar/controller/store/memory-truth';
import { testCaller } from '@busbar/controller/testing/callers';
import { VirtualClock } from '@busbar/core/clock/virtual';
import { errorChain } from '@busbar/core/errors';
import type { BootId } from '@busbar/core/ids';
import type { Logger } from '@busbar/core/log';
import { type Metrics, noMetrics } from '@busbar/core/metrics';
import { type Random, seededRandom } from '@busbar/core/random';
import { openSeal, SEAL_KEY_BYTES } from '@busbar/pki/seal';
import type { SessionRequest, SessionResponse } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import type { StorageDriver } from '@busbar/storage/driver';
import { newSimPool, type SimPool, simDriver } from '@busbar/storage/sim/driver';
import { delayed } from './link.ts';

/**
 * A whole cluster in one process on virtual time, from one seed: the product's own controllers and agents, with
 * simulated store, network, storage and hosts around them. The same seed gives the same trace.
 */
const CALLER = testCaller('admin', 'client/simulation');

interface SimController {
  readonly host: string;
  readonly store: MemoryStore;
  readonly controller: Controller;
  readonly granting: ReturnType<typeof localGranting>;
  readonly stop: AbortController;
  /** Aborts every link of this incarnation. */
  readonly power: AbortController;
  dead: boolean;
}

export interface SimHost {
  readonly name: string;
  /** That controllers see it at. */
  readonly address: string;
  readonly machine: SimMachine;
  readonly memory: InMemoryStore;
  agent: Agent | null;
  driver: SimHostDriver | null;
  power: AbortController;
}

export class World {
  readonly clock = new VirtualClock();
  readonly random: Random;
  readonly truth: MemoryStoreServer;
  readonly #quota: { readonly quotaBytes?: number };
  readonly pool: SimPool;
  readonly trace: string[] = [];
  /** What a subscriber of all NATS servers would have heard. */
  readonly bus = memoryBus();
  /** Every line of every log, those of the level debug too. */
  readonly log: string[] = [];
  readonly hosts: readonly SimHost[];
  readonly #controllers = new Map<string, SimController>();
  readonly #names: readonly string[];
  readonly #cutOff = new Set<SimHost>();
  #addresses = 1;
  readonly #metricsOf: (who: string) => Metrics;

  constructor(options: {
    readonly seed: number;
    readonly controllers?: number;
    readonly hosts?: number;
    /** The store's quota [none that it would reach]. */
    readonly quotaBytes?: number;
    /** What each host is made of [one NUMA node with 8 CPUs, 64 GiB]. */
    readonly topology?: SimTopology;
    /** A registry for each `controller NAME` and `agent NAME`. */
    readonly metricsOf?: (who: string) => Metrics;
  }) {
    this.#metricsOf = options.metricsOf ?? (() => noMetrics);
    this.random = seededRandom(options.seed);
    const { quotaBytes } = options;
    this.#quota = quotaBytes === undefined ? {} : { quotaBytes };
    this.truth = new MemoryStoreServer({ clock: this.clock, ...this.#quota });
    this.pool = newSimPool({ latencyMs: { min: 1, max: 40 } });
    const names = (count: number) => Array.from({ length: count }, (_, i) => `host${i + 1}`);
    this.#names = names(options.controllers ?? 3);
    for (const name of this.#names) this.bootController(name);
    this.hosts = names(options.hosts ?? 3).map((name) => this.#newHost(name, options.topology));
    for (const host of this.hosts) this.startAgent(host);
  }

  /** One line of the trace: what happened when, with nothing in it that differs between two runs of one seed. */
  note(line: string): void {
    this.trace.push(`${this.clock.nowMs().toFixed(3)} ${line}`);
  }

  bootController(name: string): void {
    const random = seededRandom(Math.floor(this.random.next() * 2 ** 32));
    const store = this.truth.client({ clock: this.clock, random, latencyMs: [0.3, 3] });
    const power = new AbortController();
    const granting = localGranting({ clock: this.clock, leaseTtlMs: DEFAULT_LEASE.leaseTtlMs });
    const entry: { dead: boolean } = { dead: false };
    const controller = createController({
      seal: openSeal(Buffer.alloc(SEAL_KEY_BYTES)),
      forVoters: { sealKey: Buffer.alloc(SEAL_KEY_BYTES), etcdEndpoints: [] },
      cluster: 'sim',
      host: name,
      address: name,
      controllers: this.#names.map((host) => ({ host, address: host })),
      version: '0.0.0',
      store,
      storage: unlessDead(simDriver(this.pool, { clock: this.clock, random }), entry),
      bus: this.bus,
      clock: this.clock,
      random,
      logger: this.#logger(`controller ${name}`, entry),
      granting,
      metrics: this.#metricsOf(`controller ${name}`),
      ...this.#quota,
    });
    const stop = new AbortController();
    const made: SimController = Object.assign(entry, { host: name, store, controller, granting, stop, power });
    this.#controllers.set(name, made);
    void controller.run(stop.signal);
  }

  /** As abrupt as a power cut: nothing that it does from now on reaches anything. */
  killController(name: string): void {
    const victim = this.#live(name);
    this.note(`kill controller ${name}`);
    victim.dead = true;
    victim.store.setReachable(false);
    victim.power.abort();
    victim.stop.abort();
    this.#controllers.delete(name);
  }

  /** Freezes or thaws the etcd member beside a controller: what it has sent lies there unread, and is carried out after the thaw. */
  freezeStore(name: string, frozen: boolean): void {
    this.note(`${frozen ? 'freeze' : 'thaw'} the store beside ${name}`);
    this.#live(name).store.setFrozen(frozen);
  }

  /** A backup of etcd, as `etcdctl snapshot save` makes it. */
  saveStore(): MemorySnapshot {
    return this.truth.snapshot();
  }

  /**
   * All controllers and etcd members are stopped, the backup is restored on all members, and all of it is started: as
   * docs/operations.md says. The agents run on. The same token as before gives the same cluster id.
   */
  async restoreStore(backup: MemorySnapshot, clusterId?: string): Promise<void> {
    this.note('restore the store');
    for (const name of this.liveControllers()) this.killController(name);
    await this.clock.advance(500);
    this.truth.restore(backup, clusterId);
    for (const name of this.#names) this.bootController(name);
  }

  leaderName(): string | null {
    for (const { host, controller } of this.#controllers.values())
      if (controller.leadership.isLeader() !== null) return host;
    return null;
  }

  controller(name: string): Controller {
    return this.#live(name).controller;
  }

  liveControllers(): readonly string[] {
    return [...this.#controllers.keys()].sort();
  }

  /** Calls an RPC of a controller through the real pipeline. */
  call<Response>(
    controller: string,
    service: string,
    method: string,
    request: unknown,
    caller: Caller = CALLER,
  ): Promise<Response> {
    const bound = this.#live(controller).controller.services.find((each) => each.definition.name === service);
    const rpc = bound?.definition.methods[method];
    const handler = bound?.methods[method];
    if (bound === undefined || rpc === undefined || handler === undefined) throw new Error(`no ${service}/${method}`);
    const { trail, admission } = this.#live(controller).controller;
    const logger = this.#logger(`api ${controller}`, { dead: false });
    const run = pipeline({ logger, trail, admission, clock: this.clock }).unary(
      bound.definition.fullName,
      rpc,
      handler,
    );
    return run(request, caller, new AbortController().signal) as Promise<Response>;
  }

  startAgent(host: SimHost, bootId: BootId = host.machine.bootId): void {
    host.power = new AbortController();
    host.driver = new SimHostDriver(host.machine, this.clock);
    host.agent = createAgent({
      clock: this.clock,
      random: seededRandom(Math.floor(this.random.next() * 2 ** 32)),
      logger: this.#logger(`agent ${host.name}`, { dead: false }),
      metrics: this.#metricsOf(`agent ${host.name}`),
      ...this.#dialers(host, host.power.signal),
      driver: host.driver,
      store: host.memory,
      bootId,
      version: '0.0.0',
      config: {
        host: host.name,
        managementAddress: '10.0.0.1',
        storageAddress: '10.0.1.1',
        controllers: this.#names.map((name) => ({ host: name, address: name })),
      },
    });
    host.agent.start();
  }

  /** A machine with a copy of the host's disk, its certificate and its agent's memory; switched on. [a boot id of its own] */
  async bootClone(host: SimHost, options: { readonly bootId?: BootId } = {}): Promise<SimHost> {
    const memory = new InMemoryStore();
    const copied = await host.memory.load();
    if (copied !== undefined) await memory.save(copied);
    const clone = this.#newHost(host.name, undefined, memory);
    this.note(`boot a clone of ${host.name} at ${clone.address}`);
    this.startAgent(clone, options.bootId);
    return clone;
  }

  /** Cuts a machine's cable, or plugs it in again: what is under way is lost, and nobody is told. */
  setReachable(host: SimHost, reachable: boolean): void {
    this.note(`${reachable ? 'plug in' : 'cut off'} ${host.name} at ${host.address}`);
    if (reachable) this.#cutOff.delete(host);
    else this.#cutOff.add(host);
  }

  killAgent(host: SimHost): void {
    this.note(`kill agent ${host.name}`);
    host.power.abort();
    void host.agent?.stop();
    void host.driver?.close();
    host.agent = null;
  }

  /** How many machines run a domain of this VM right now. */
  runningOn(vmId: string): readonly string[] {
    return this.hosts
      .filter((host) => host.machine.domains.some((domain) => domain.vmId === vmId && domain.state !== 'ended'))
      .map((host) => host.name);
  }

  async until(condition: () => boolean, limitMs: number, what: string): Promise<void> {
    if (await this.clock.advanceUntil(condition, limitMs)) return;
    throw new Error(`not within ${limitMs} virtual ms: ${what}\n${this.trace.slice(-40).join('\n')}`);
  }

  async settled<T>(promise: Promise<T>, limitMs: number, what: string): Promise<T> {
    let done = false;
    const mark = () => {
      done = true;
    };
    promise.then(mark, mark);
    await this.until(() => done, limitMs, what);
    return promise;
  }

  #newHost(name: string, topology?: SimTopology, memory = new InMemoryStore()): SimHost {
    const random = seededRandom(Math.floor(this.random.next() * 2 ** 32));
    const inventory = simInventory({ ...topology, bridges: [{ name: 'br-vm', kind: BridgeKind.LINUX }] });
    const machine = new SimMachine({ clock: this.clock, random, inventory });
    machine.observe((change) => {
      if (change.kind === 'state')
        this.note(
          `${name}: ${change.domain.name} epoch ${change.domain.epoch} ${change.from ?? 'none'} -> ${change.domain.state}`,
        );
    });
    const address = `10.0.0.${this.#addresses++}`;
    return { name, address, machine, memory, agent: null, driver: null, power: new AbortController() };
  }

  #dialers(
    host: SimHost,
    hostPower: AbortSignal,
  ): { readonly dialer: ControllerDialer; readonly heartbeatDialer: SessionDialer } {
    const connect = <Up, Down>(
      address: string,
      outgoing: AsyncIterable<Up>,
      signal: AbortSignal,
      serve: (target: SimController, incoming: AsyncIterable<Up>, ended: AbortSignal) => AsyncIterable<Down>,
    ): AsyncIterable<Down> => {
      const target = this.#controllers.get(address);
      if (target === undefined || this.#cutOff.has(host)) return refused();
      const ended = AbortSignal.any([signal, hostPower, target.power.signal]);
      const link = {
        clock: this.clock,
        random: this.random,
        up: () => !target.dead && !this.#cutOff.has(host),
        signal: ended,
      };
      return delayed(serve(target, delayed(outgoing, link), ended), link);
    };
    const dialer: ControllerDialer = {
      session: (address, outgoing, signal) =>
        connect(address, outgoing, signal, ({ controller }, incoming, ended) =>
          controller.sessions.session(host.name, host.address, incoming, ended),
        ),
      attach: (address, outgoing, signal) =>
        connect(address, outgoing, signal, ({ controller }, incoming) =>
          controller.sessions.attached(host.name, incoming),
        ),
      close: async () => {},
    };
    const heartbeatDialer: SessionDialer = {
      session: (address, outgoing, signal) =>
        connect(address, outgoing, signal, (target, incoming) => {
          const welcome = welcomeOf({ controller: address, controllers: this.#names });
          const { hear } = target.granting;
          return converse(new Conversation({ host: host.name, address: host.address, welcome, hear }), incoming);
        }),
    };
    return { dialer, heartbeatDialer };
  }

  #live(name: string): SimController {
    const found = this.#controllers.get(name);
    if (found === undefined) throw new Error(`no controller ${name}`);
    return found;
  }

  #logger(who: string, life: { readonly dead: boolean }): Logger {
    const write = (level: string) => (fields: object, message: string) => {
      if (life.dead) return;
      const text = JSON.stringify(fields, (_key, value: unknown) =>
        value instanceof Error ? errorChain(value) : value,
      );
      this.log.push(`${who} ${level} ${message} ${text}`);
      if (level !== 'debug') this.note(`${who} ${level} ${message} ${text}`);
    };
    return { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') };
  }
}

async function* converse(
  conversation: Conversation,
  incoming: AsyncIterable<SessionRequest>,
): AsyncIterable<SessionResponse> {
  for await (const message of incoming) {
    const answer = conversation.take(message);
    if (answer !== null) yield answer;
  }
}

async function* refused<T>(): AsyncIterable<T> {
  yield* [] as T[];
  throw new Error('connection refused');
}

/** Calls of a dead controller hang for ever: what it had begun may have reached the pool, nothing new does. */
function unlessDead(driver: StorageDriver, life: { readonly dead: boolean }): StorageDriver {
  return new Proxy(driver, {
    get(target, property, receiver) {
      const value = Reflect.get(target, property, receiver) as unknown;
      if (typeof value !== 'function' || property === 'diskSource') return value;
      return (...args: unknown[]) =>
        life.dead ? new Promise(() => {}) : (value as (...a: unknown[]) => unknown).apply(target, args);
    },
  });
}
