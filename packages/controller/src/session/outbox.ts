// SPDX-License-Identifier: Apache-2.0
import type { AttachOrder, DesiredState, SessionResponse } from '@busbar/proto/gen/busbar/agent/v1/agent';

/** Attach orders waiting for a slow agent; an agent serves at most 48 streams anyway. */
const ORDERS_MAX = 64;

/**
 * What waits to be sent to one agent. Bounded by construction: of acknowledgements, desired states and marks only
 * the newest counts, so each has one place. An acknowledgement always goes first: a host's lease hangs on it.
 */
export class Outbox {
  #first: SessionResponse | null;
  #ack: bigint | null = null;
  #desired: DesiredState | null = null;
  #mark: bigint | null = null;
  readonly #orders: AttachOrder[] = [];
  #closed = false;
  #wake = () => {};

  constructor(first: SessionResponse) {
    this.#first = first;
  }

  acknowledge(number: bigint): void {
    if (this.#ack === null || number > this.#ack) this.#ack = number;
    this.#wake();
  }

  desire(desired: DesiredState): void {
    this.#desired = desired;
    this.#wake();
  }

  markStore(revision: bigint): void {
    this.#mark = revision;
    this.#wake();
  }

  /** False when the agent is too far behind to be asked for more. */
  order(order: AttachOrder): boolean {
    if (this.#closed || this.#orders.length >= ORDERS_MAX) return false;
    this.#orders.push(order);
    this.#wake();
    return true;
  }

  close(): void {
    this.#closed = true;
    this.#wake();
  }

  async *messages(): AsyncIterable<SessionResponse> {
    while (!this.#closed) {
      const next = this.#take();
      if (next !== null) yield next;
      else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        this.#wake = () => {};
      }
    }
  }

  #take(): SessionResponse | null {
    if (this.#first !== null) {
      const first = this.#first;
      this.#first = null;
      return first;
    }
    if (this.#ack !== null) {
      const number = this.#ack;
      this.#ack = null;
      return { message: { $case: 'heartbeatAck', value: { number } } };
    }
    if (this.#desired !== null) {
      const desired = this.#desired;
      this.#desired = null;
      return { message: { $case: 'desired', value: desired } };
    }
    if (this.#mark !== null) {
      const revision = this.#mark;
      this.#mark = null;
      return { message: { $case: 'storeMark', value: { revision } } };
    }
    const order = this.#orders.shift();
    return order === undefined ? null : { message: { $case: 'attach', value: order } };
  }
}
