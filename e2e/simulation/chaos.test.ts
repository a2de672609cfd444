// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import { type Random, seededRandom } from '@busbar/core/random';
import { CreateVmRequest, type CreateVmResponse, RunPolicy, VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import { describe, expect, it } from 'vitest';
import { World } from './world.ts';

/**
 * Goal: whatever dies while VMs are created, started, stopped and deleted, no VM ever runs on two machines, no acknowledged
 * write is lost, and in the end everything is as the last acknowledged word wanted it. Method: random seeds; controllers
 * and agents are killed and restarted at random moments; a failure names its seed.
 */
const STEPS = 45;
const GIB = 1024n ** 3n;

/** What was acknowledged. `maybe`: a call whose outcome the caller was never told. */
interface Wish {
  id: string;
  readonly wanted: Set<'running' | 'stopped' | 'gone'>;
  /** Its record must be there: creation was acknowledged and deletion never asked for. */
  certain: boolean;
}

class Chaos {
  readonly world: World;
  readonly #random: Random;
  readonly #wishes = new Map<string, Wish>();
  readonly #downControllers: string[] = [];
  readonly #calls = new Set<Promise<void>>();
  readonly #busy = new Set<string>();
  #requests = 0;

  constructor(seed: number) {
    this.world = new World({ seed });
    this.#random = seededRandom(seed * 7919);
  }

  async run(): Promise<void> {
    const { world } = this;
    await world.until(() => world.leaderName() !== null && this.#ready() === 3, 40_000, 'a ready cluster');
    for (let step = 0; step < STEPS; step++) {
      this.#act();
      await this.#pass(this.#random.next() ** 2 * 3_000);
    }
    for (const name of this.#downControllers.splice(0)) world.bootController(name);
    for (const host of world.hosts) if (host.agent === null) world.startAgent(host);
    await this.#pass(30_000);
    await world.settled(Promise.all(this.#calls), 60_000, 'all calls answered');
    await world
      .until(() => this.#unsettled() === null, 400_000, 'everything to settle')
      .catch((error: unknown) => {
        throw new Error(`${String(this.#unsettled())}\n${String(error)}`);
      });
  }

  /** Time passes, and at each moment the invariant holds. */
  async #pass(ms: number): Promise<void> {
    const endMs = this.world.clock.nowMs() + ms;
    while (this.world.clock.nowMs() < endMs) {
      await this.world.clock.advance(Math.min(50, endMs - this.world.clock.nowMs()));
      for (const { id } of this.#wishes.values()) {
        const hosts = id === '' ? [] : this.world.runningOn(id);
        if (hosts.length > 1) throw new Error(`VM ${id} runs on ${hosts.join(' and ')}`);
      }
    }
  }

  #act(): void {
    const { world } = this;
    const draw = this.#random.next();
    const controllers = world.liveControllers();
    if (draw < 0.12 && controllers.length > 2) {
      const victim = this.#pick(controllers);
      world.killController(victim);
      this.#downControllers.push(victim);
    } else if (draw < 0.25 && this.#downControllers.length > 0) {
      world.bootController(this.#downControllers.shift() ?? '');
    } else if (draw < 0.4) {
      const host = this.#pick(world.hosts);
      if (host.agent === null) world.startAgent(host);
      else world.killAgent(host);
    } else this.#ask();
  }

  #ask(): void {
    const names = [...this.#wishes.keys()].filter((name) => !this.#busy.has(name));
    const draw = this.#random.next();
    if (names.length === 0 || (draw < 0.3 && this.#wishes.size < 6)) {
      this.#create(`vm-${this.#wishes.size}`);
      return;
    }
    const name = this.#pick(names);
    if (draw < 0.55) this.#call(name, 'startVm', { vm: name }, 'running');
    else if (draw < 0.88) this.#call(name, 'stopVm', { vm: name, force: draw < 0.65, timeoutMs: 0 }, 'stopped');
    else this.#call(name, 'deleteVm', { vm: name, force: false, revision: 0n }, 'gone');
  }

  #create(name: string): void {
    this.#wishes.set(name, { id: '', wanted: new Set(['gone']), certain: false });
    const disks = [{ name: 'data', sizeBytes: GIB }];
    const spec = { runPolicy: RunPolicy.RUNNING, cpu: { vcpus: 1 }, memoryBytes: GIB, disks };
    const { requestId: _, ...request } = CreateVmRequest.fromPartial({ name, spec });
    this.#call(name, 'createVm', request, 'running');
  }

  /** Sends a call, and sends it again with the same request id when its outcome is unknown, as automation does. */
  #call(name: string, method: string, request: object, wanted: 'running' | 'stopped' | 'gone'): void {
    const wish = this.#wishes.get(name);
    if (wish === undefined) return;
    const requestId = `r${this.#requests++}`;
    this.#busy.add(name);
    const before = new Set(wish.wanted);
    wish.wanted.add(wanted);
    if (wanted === 'gone') wish.certain = false;
    const done = (async () => {
      for (let attempt = 0; attempt < 3; attempt++) {
        const through = this.#pick(this.world.liveControllers());
        try {
          const answer = await this.#orDead(
            through,
            this.world.call<CreateVmResponse>(through, 'VmService', method, {
              validateOnly: false,
              ...request,
              requestId,
            }),
          );
          wish.wanted.clear();
          wish.wanted.add(wanted);
          if (method === 'createVm') {
            wish.id = answer.vm?.meta?.id ?? '';
            wish.certain = true;
          }
          return;
        } catch (error) {
          const kind = error instanceof BusbarError ? error.kind : 'lost';
          if (kind === 'internal') throw error;
          if (kind !== 'timeout' && kind !== 'unavailable' && kind !== 'lost') {
            // Refused for good. An earlier attempt may still have been carried out.
            if (attempt === 0 && !before.has(wanted)) wish.wanted.delete(wanted);
            return;
          }
        }
      }
    })();
    const ended = done.finally(() => {
      this.#busy.delete(name);
      this.#calls.delete(ended);
    });
    ended.catch(() => {});
    this.#calls.add(ended);
  }

  /** The answer, unless the controller dies first: then nobody ever answers. */
  #orDead<T>(controller: string, answer: Promise<T>): Promise<T> {
    const alive = this.world.controller(controller);
    answer.catch(() => {});
    return new Promise<T>((resolve, reject) => {
      const look = () => {
        const dead = !this.world.liveControllers().includes(controller) || this.world.controller(controller) !== alive;
        if (dead) reject(new Error('connection lost'));
        else this.world.clock.timer(100, look);
      };
      answer.then(resolve, reject);
      look();
    });
  }

  /** What is not yet as wanted; null when all is. */
  #unsettled(): string | null {
    const { world } = this;
    const leader = world.leaderName();
    if (leader === null) return 'no leader';
    const { tables } = world.controller(leader).view;
    for (const { record } of tables.operation.sorted())
      if (!/SUCCEEDED|FAILED|CANCELLED/.test(record.operation?.state ?? ''))
        return `operation ${record.operation?.method} of ${record.operation?.target?.name}: ${record.operation?.state} ${record.operation?.message}`;
    for (const [name, wish] of this.#wishes) {
      const entry = tables.vm.find(name);
      const phase = entry === undefined ? undefined : tables['vm-status'].get(entry.id)?.record.phase;
      const is =
        phase === undefined
          ? 'gone'
          : phase === VmPhase.RUNNING
            ? 'running'
            : phase === VmPhase.STOPPED
              ? 'stopped'
              : phase;
      if (wish.certain && entry?.id !== wish.id) return `${name}: acknowledged as ${wish.id}, found ${entry?.id}`;
      if (!wish.wanted.has(is as 'gone')) return `${name} is ${is}, wanted ${[...wish.wanted].join(' or ')}`;
      if (entry !== undefined && wish.id === '') wish.id = entry.id;
      const hosts = wish.id === '' ? [] : world.runningOn(wish.id);
      if ((hosts.length === 1) !== (is === 'running'))
        return `${name} is ${is}, and runs on ${hosts.join(', ') || 'no host'}`;
    }
    const volumes = tables.volume.sorted().map(({ id }) => id);
    const stored = [...world.pool.volumes.keys()].toSorted();
    return JSON.stringify(volumes.toSorted()) === JSON.stringify(stored)
      ? null
      : `records of volumes ${volumes.join()} , in the pool ${stored.join()}`;
  }

  #ready(): number {
    const leader = this.world.leaderName();
    if (leader === null) return 0;
    return this.world
      .controller(leader)
      .view.tables['host-status'].sorted()
      .filter(({ record }) => record.state === 'HOST_STATE_READY').length;
  }

  #pick<T>(from: readonly T[]): T {
    return from[Math.floor(this.#random.next() * from.length)] as T;
  }
}

/** CHAOS_SEED=7 runs that one alone, CHAOS_SEED=1-500 all of these. */
const [first, last] = (process.env.CHAOS_SEED ?? '1-10').split('-').map(Number);
const SEEDS = Array.from({ length: (last ?? first ?? 1) - (first ?? 1) + 1 }, (_, i) => (first ?? 1) + i);

describe('VMs while controllers and agents die and return', () => {
  it.each(SEEDS)('seed %i', { timeout: 60_000 }, async (seed) => {
    const chaos = new Chaos(seed);
    try {
      await chaos.run();
    } catch (error) {
      throw new Error(
        `CHAOS_SEED=${seed}: ${error instanceof Error ? error.message : String(error)}\n${chaos.world.trace.slice(-60).join('\n')}`,
      );
    }
    expect(chaos.world.trace.length).toBeGreaterThan(0);
    // Whatever dies and returns: no store goes back in time by that.
    expect(chaos.world.log.filter((line) => line.includes('went back in time'))).toEqual([]);
  });
});
