// SPDX-License-Identifier: Apache-2.0
import type { Epoch, VmId } from '@busbar/core/ids';
import type { StateTable } from '@busbar/core/state-table';
import type { DomainSpec } from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { ObservedPlacement } from '@busbar/proto/gen/busbar/v1/vm';
import { FanOut } from '../console/fan-out.ts';
import { consoleUnavailable } from '../driver/refusals.ts';

export type SimDomainState = 'starting' | 'running' | 'paused' | 'shutting-down' | 'ended';

export const SIM_DOMAIN_STATES: StateTable<SimDomainState> = {
  starting: ['running', 'ended'],
  running: ['paused', 'shutting-down', 'ended'],
  paused: ['running', 'ended'],
  'shutting-down': ['ended'],
  ended: [],
};

/** A domain as a test or a whole-cluster simulation sees it. */
export interface SimDomain {
  readonly vmId: VmId;
  readonly name: string;
  readonly epoch: Epoch;
  readonly spec: DomainSpec;
  readonly state: SimDomainState;
  /** Why it is paused or ended. */
  readonly message: string;
  readonly linksUp: boolean;
  /** What it was given. */
  readonly placement: ObservedPlacement;
}

/** What happened to a domain, for invariants. */
export type SimChange =
  | { readonly kind: 'state'; readonly domain: SimDomain; readonly from: SimDomainState | null }
  | { readonly kind: 'links'; readonly domain: SimDomain };

const LOG_LIMIT_BYTES = 256 * 1024;

/** The serial line of a VM on this machine: it outlives the domain, and is emptied by the next start. */
export class SimSerial {
  readonly #live: FanOut;
  readonly #followers: FanOut;
  #log: Uint8Array = new Uint8Array();

  constructor(vmId: VmId) {
    const tooSlow = () => consoleUnavailable(vmId, 'the reader was too slow');
    this.#live = new FanOut(tooSlow);
    this.#followers = new FanOut(tooSlow);
  }

  /** Consoles: they end with the domain. */
  get live(): FanOut {
    return this.#live;
  }

  /** Followers of the log: they go on with the next start. */
  get followers(): FanOut {
    return this.#followers;
  }

  print(bytes: Uint8Array): void {
    this.#log = Buffer.concat([this.#log, bytes]).subarray(-LOG_LIMIT_BYTES);
    this.#live.publish(bytes);
    this.#followers.publish(bytes);
  }

  tail(bytes: number): Uint8Array {
    return bytes <= 0 ? new Uint8Array() : this.#log.subarray(-bytes);
  }

  truncate(): void {
    this.#log = new Uint8Array();
  }
}

/** A guest that greets on its serial line and echoes what is typed, unless the test brings another. */
export interface SimGuest {
  onStart(domain: SimDomain, print: (text: string) => void): void;
  onInput(domain: SimDomain, input: Uint8Array, print: (text: string) => void): void;
}

export const echoGuest: SimGuest = {
  onStart: (domain, print) => print(`${domain.name} login: `),
  onInput: (_domain, input, print) => print(Buffer.from(input).toString('utf8')),
};
