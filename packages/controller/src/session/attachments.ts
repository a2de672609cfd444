// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import type { Random } from '@busbar/core/random';
import type { AttachOrder, AttachRequest, AttachResponse } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { ByteChannel } from './channel.ts';
import { firstMessage } from './first-message.ts';
import type { Outbox } from './outbox.ts';

interface Ticket {
  readonly host: string;
  readonly accept: (incoming: AsyncIterable<AttachRequest>) => AsyncIterable<AttachResponse>;
}

/** An agent answers an attach order in milliseconds; after this it is not coming. */
const ATTACH_DEADLINE_MS = 5_000;

/** What the agent is asked for. */
export type AttachWish = Omit<AttachOrder, 'ticket'>;

/** Byte streams (consoles, logs) that agents open because they were asked to through their sessions. */
export class Attachments {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #outboxOf: (host: string) => Outbox | null | undefined;
  readonly #tickets = new Map<string, Ticket>();

  constructor(deps: {
    readonly clock: Clock;
    readonly random: Random;
    /** Of the host's session, while it has one. */
    readonly outboxOf: (host: string) => Outbox | null | undefined;
  }) {
    this.#clock = deps.clock;
    this.#random = deps.random;
    this.#outboxOf = deps.outboxOf;
  }

  /**
   * Asks a host's agent for a byte stream. `input` is sent to the guest; the returned iterable ends
   * when the agent ends the stream, and throws with its reason when it cannot go on.
   */
  async attach(
    host: string,
    order: AttachWish,
    input: AsyncIterable<Uint8Array>,
    signal: AbortSignal,
  ): Promise<AsyncIterable<Uint8Array>> {
    const outbox = this.#outboxOf(host);
    // Two UUIDs: 244 random bits that only the agent of this host is told.
    const ticket = `${this.#random.uuid()}${this.#random.uuid()}`;
    const output = new ByteChannel();
    let late = () => {};
    const timer = this.#clock.timer(ATTACH_DEADLINE_MS, () => late());
    const opened = new Promise<void>((resolve, reject) => {
      late = () => reject(unreachableHost(host, 'its agent did not open the stream in time'));
      this.#tickets.set(ticket, {
        host,
        accept: (incoming) => {
          resolve();
          void pump(incoming, output);
          return responses(input, output);
        },
      });
    });
    const hangUp = () => output.end();
    signal.addEventListener('abort', hangUp, { once: true });
    if (signal.aborted) hangUp();
    try {
      if (!outbox?.order({ ...order, ticket }))
        throw unreachableHost(host, 'its agent is not connected to this controller');
      await Promise.race([opened, output.closed]);
    } catch (error) {
      output.end();
      throw error;
    } finally {
      // Given up or taken: nobody may come with it any more.
      timer[Symbol.dispose]();
      this.#tickets.delete(ticket);
    }
    return output.read();
  }

  /** Serves one attach stream of the agent whose certificate names `host`. */
  async *attached(host: string, incoming: AsyncIterable<AttachRequest>): AsyncIterable<AttachResponse> {
    const iterator = incoming[Symbol.asyncIterator]();
    const first = await firstMessage(this.#clock, iterator, 'the ticket');
    const ticket = first.done ? undefined : this.#tickets.get(first.value.ticket);
    if (first.done || ticket === undefined || ticket.host !== host) {
      throw new BusbarError({
        kind: 'forbidden',
        reason: 'ATTACH_TICKET_UNKNOWN',
        message: 'the ticket is unknown, used or of another host',
      });
    }
    this.#tickets.delete(first.value.ticket);
    const head = first.value;
    async function* whole(): AsyncIterable<AttachRequest> {
      yield head;
      yield* { [Symbol.asyncIterator]: () => iterator };
    }
    yield* ticket.accept(whole());
  }
}

async function pump(incoming: AsyncIterable<AttachRequest>, output: ByteChannel): Promise<void> {
  try {
    for await (const message of incoming) {
      if (message.data.length > 0) await output.push(message.data);
      if (message.error !== '') {
        output.end(refusalOf(message));
        return;
      }
    }
    output.end();
  } catch (error) {
    output.end(
      new BusbarError({
        kind: 'unavailable',
        reason: 'ATTACH_BROKEN',
        message: 'the connection to the host broke',
        hint: 'open it again',
        cause: error,
      }),
    );
  }
}

function refusalOf({ error: message, reason, hint }: AttachRequest): BusbarError {
  if (reason !== 'PLACES_TAKEN') return new BusbarError({ kind: 'precondition', reason: 'ATTACH_FAILED', message });
  return new BusbarError({ kind: 'exhausted', reason, message, hint });
}

/**
 * The user's input, and then the wait for the end of the output: a gRPC call whose responses end is over in both
 * directions. Ends with the output even while the input is silent, so that a user who hung up keeps no stream of the agent.
 */
async function* responses(input: AsyncIterable<Uint8Array>, output: ByteChannel): AsyncIterable<AttachResponse> {
  const iterator = input[Symbol.asyncIterator]();
  const closed = output.closed.then(() => null);
  try {
    for (;;) {
      const next = await Promise.race([iterator.next(), closed]);
      if (next === null) return;
      if (next.done) break;
      yield { data: Buffer.from(next.value) };
    }
    await closed;
  } finally {
    // Not awaited: an input that waits for its caller would not let go.
    void iterator.return?.().catch(() => {});
  }
}

function unreachableHost(host: string, why: string): BusbarError {
  return new BusbarError({
    kind: 'unavailable',
    reason: 'HOST_UNREACHABLE',
    message: `host "${host}" cannot be asked: ${why}`,
    hint: `look at "busbar host get ${host}"`,
  });
}
