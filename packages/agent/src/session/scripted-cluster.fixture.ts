// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import {
  type AttachRequest,
  type AttachResponse,
  DesiredState,
  type HostReport,
  type SessionRequest,
  SessionResponse,
} from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { HostInventory } from '@busbar/proto/gen/busbar/v1/host';
import type { ControllerDialer } from './link.ts';

const LATENCY_MS = 1;

/** Values in, values out; ends or fails when told. */
export class Pipe<T> implements AsyncIterable<T> {
  readonly #values: T[] = [];
  #ended = false;
  #error: Error | undefined;
  #notify: (() => void) | undefined;

  push(value: T): void {
    this.#values.push(value);
    this.#notify?.();
  }

  end(error?: Error): void {
    this.#ended = true;
    this.#error = error;
    this.#notify?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void> {
    for (;;) {
      const value = this.#values.shift();
      if (value !== undefined) {
        yield value;
      } else if (this.#ended) {
        if (this.#error !== undefined) throw this.#error;
        return;
      } else {
        await new Promise<void>((resolve) => {
          this.#notify = resolve;
        });
      }
    }
  }
}

/** A controller that does what the test says; acknowledges by itself. */
export class ScriptedController {
  readonly reports: HostReport[] = [];
  readonly inventories: HostInventory[] = [];
  /** What each session began with, e.g. hello then heartbeat. */
  readonly kinds: string[][] = [];
  sessions = 0;
  /** Nothing passes in either direction, and nobody is told: a cut network. */
  cut = false;
  /** Refuses to answer the dialler. */
  down = false;
  /** Hears but does not acknowledge: sealed, or slow. */
  mute = false;
  welcome: { controller: string; controllers: string[]; heartbeatIntervalMs: number; leaseTtlMs: number };
  readonly #clock: Clock;
  #down: Pipe<SessionResponse> | undefined;

  constructor(clock: Clock, host: string, controllers: string[]) {
    this.#clock = clock;
    this.welcome = { controller: host, controllers, heartbeatIntervalMs: 250, leaseTtlMs: 2500 };
  }

  get report(): HostReport | undefined {
    return this.reports.at(-1);
  }

  send(response: Parameters<typeof SessionResponse.fromPartial>[0]): void {
    this.#sendTo(this.#down, SessionResponse.fromPartial(response));
  }

  desire(state: Parameters<typeof DesiredState.fromPartial>[0]): void {
    this.send({ message: { $case: 'desired', value: DesiredState.fromPartial(state) } });
  }

  /** Ends the session as a controller that stops does. */
  hangUp(): void {
    this.#down?.end();
  }

  serve(outgoing: AsyncIterable<SessionRequest>, signal: AbortSignal): AsyncIterable<SessionResponse> {
    const down = new Pipe<SessionResponse>();
    signal.addEventListener('abort', () => down.end(new Error('aborted')));
    if (this.down) {
      down.end(new Error('connection refused'));
      return down;
    }
    this.sessions++;
    const kinds: string[] = [];
    this.kinds.push(kinds);
    void this.#read(outgoing, down, kinds);
    return down;
  }

  async #read(outgoing: AsyncIterable<SessionRequest>, down: Pipe<SessionResponse>, kinds: string[]): Promise<void> {
    for await (const { message } of outgoing) {
      if (this.cut || message === undefined) continue;
      kinds.push(message.$case);
      if (message.$case === 'hello') {
        this.#down = down;
        this.#sendTo(down, { message: { $case: 'welcome', value: this.welcome } });
      } else if (message.$case === 'heartbeat' && !this.mute) {
        this.#sendTo(down, { message: { $case: 'heartbeatAck', value: { number: message.value.number } } });
      } else if (message.$case === 'report') {
        this.reports.push(message.value);
      } else if (message.$case === 'inventory') {
        this.inventories.push(message.value);
      }
    }
  }

  #sendTo(down: Pipe<SessionResponse> | undefined, response: SessionResponse): void {
    this.#clock.timer(LATENCY_MS, () => {
      if (!this.cut) down?.push(response);
    });
  }
}

/** One attach stream as the controller sees it. */
export interface AttachSide {
  readonly address: string;
  readonly received: AttachRequest[];
  readonly input: Pipe<AttachResponse>;
  ended: boolean;
}

/** Controllers h1… in memory; addresses are the host names. */
export class ScriptedCluster implements ControllerDialer {
  readonly controllers: ReadonlyMap<string, ScriptedController>;
  readonly attached: AttachSide[] = [];

  constructor(clock: Clock, size = 3) {
    const names = Array.from({ length: size }, (_, index) => `h${index + 1}`);
    this.controllers = new Map(names.map((name) => [name, new ScriptedController(clock, name, names)]));
  }

  get all(): readonly ScriptedController[] {
    return [...this.controllers.values()];
  }

  /** The one that plays the leader. */
  get leader(): ScriptedController {
    return this.get('h1');
  }

  get(name: string): ScriptedController {
    const controller = this.controllers.get(name);
    if (controller === undefined) throw new Error(`no controller ${name}`);
    return controller;
  }

  get config(): { host: string; address: string }[] {
    return [...this.controllers.keys()].map((host) => ({ host, address: host }));
  }

  cut(isCut: boolean): void {
    for (const controller of this.all) controller.cut = isCut;
  }

  session(
    address: string,
    outgoing: AsyncIterable<SessionRequest>,
    signal: AbortSignal,
  ): AsyncIterable<SessionResponse> {
    return this.get(address).serve(outgoing, signal);
  }

  attach(address: string, outgoing: AsyncIterable<AttachRequest>, signal: AbortSignal): AsyncIterable<AttachResponse> {
    const side: AttachSide = { address, received: [], input: new Pipe(), ended: false };
    this.attached.push(side);
    signal.addEventListener('abort', () => side.input.end());
    void (async () => {
      for await (const request of outgoing) side.received.push(request);
      side.ended = true;
    })();
    return side.input;
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
