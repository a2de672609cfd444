// SPDX-License-Identifier: Apache-2.0
import { unreachable } from '@busbar/core/assert';
import { type BoundedLog, boundedLog } from '@busbar/core/bounded-log';
import { type Clock, sleep, withDeadline } from '@busbar/core/clock/clock';
import { errorChain } from '@busbar/core/errors';
import type { VmId } from '@busbar/core/ids';
import type { Logger } from '@busbar/core/log';
import type { PlacesTaken } from '@busbar/core/places';
import { AttachKind, type AttachOrder, type AttachRequest } from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { ConsoleLink, HostDriver } from '../driver/host-driver.ts';
import type { ControllerDialer } from '../session/link.ts';
import { attachPlaces, placeRole } from './places.ts';

/** Who gets no place is told so over a stream; so many of those at a time, a flood of orders is dropped. */
const REFUSAL_LIMIT = 16;
/** Controllers know the word. */
const PLACES_TAKEN = 'PLACES_TAKEN';
const OPEN_DEADLINE_MS = 10_000;
/** After our last message the controller ends the stream; it is not waited for longer. */
const GOODBYE_MS = 5000;
/** Small enough that a slow reader holds little memory. */
const CHUNK_BYTES = 16 * 1024;

export interface AttachOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly dialer: ControllerDialer;
  readonly driver: HostDriver | undefined;
}

/**
 * Opens the byte streams that controllers ask for. Each has its own stream to the controller, read
 * and written one chunk at a time: the next chunk is taken from the guest when the transport has
 * taken the former, and the user's next input when the guest has. So a slow end slows the other
 * down instead of filling memory.
 */
export class AttachStreams {
  readonly #options: AttachOptions;
  readonly #streams = new Set<Promise<void>>();
  readonly #places = attachPlaces();
  #refusals = 0;
  readonly #abort = new AbortController();
  readonly #lines: BoundedLog;

  constructor(options: AttachOptions) {
    this.#options = options;
    this.#lines = boundedLog(options);
  }

  open(address: string, order: AttachOrder): void {
    if (this.#abort.signal.aborted) return;
    const kind = order.kind === AttachKind.CONSOLE ? 'console' : 'log';
    const place = this.#places.take(kind, { name: order.caller, role: placeRole(order.role) });
    if (!place.ok && this.#refusals >= REFUSAL_LIMIT) {
      this.#tell(order, { address, caller: order.caller }, 'attach order dropped: too many are refused');
      return;
    }
    if (!place.ok) this.#refusals++;
    const stream = this.#stream(address, order, place.ok ? null : place.error)
      .catch((error: unknown) => {
        if (!this.#abort.signal.aborted) this.#tell(order, { err: error }, 'attach stream failed');
      })
      .finally(() => {
        if (place.ok) place.value[Symbol.dispose]();
        else this.#refusals--;
        this.#streams.delete(stream);
      });
    this.#streams.add(stream);
  }

  async stop(): Promise<void> {
    this.#abort.abort(new Error('the agent stops'));
    await Promise.all(this.#streams);
    this.#lines[Symbol.dispose]();
  }

  /** Whoever may read a log may ask for streams as fast as he likes. */
  #tell({ vmId }: AttachOrder, fields: object, message: string): void {
    this.#lines.write('warn', { kind: 'attach', name: vmId, fields: { vmId } }, { vmId, ...fields }, message);
  }

  async #stream(address: string, order: AttachOrder, refusal: PlacesTaken | null): Promise<void> {
    const { clock, dialer } = this.#options;
    const abort = new AbortController();
    const signal = AbortSignal.any([abort.signal, this.#abort.signal]);
    const side = new GuestSide(this.#options, order, refusal, signal);
    const goodbye = side.finished
      .then(() => sleep(clock, GOODBYE_MS, signal))
      .then(
        () => abort.abort(),
        () => {},
      );
    try {
      for await (const response of dialer.attach(address, side.outgoing(), signal)) await side.input(response.data);
    } catch (error) {
      if (!abort.signal.aborted) throw error;
    } finally {
      abort.abort();
      side.close();
      await goodbye;
    }
  }
}

/** The guest's end of one stream. */
class GuestSide {
  /** Resolves when there is nothing more to send. */
  readonly finished: Promise<void>;
  readonly #options: AttachOptions;
  readonly #order: AttachOrder;
  readonly #refusal: PlacesTaken | null;
  readonly #signal: AbortSignal;
  #finish!: () => void;
  #console: ConsoleLink | undefined;
  #opened: (() => void) | undefined;
  readonly #open: Promise<void>;

  constructor(options: AttachOptions, order: AttachOrder, refusal: PlacesTaken | null, signal: AbortSignal) {
    this.#options = options;
    this.#order = order;
    this.#refusal = refusal;
    this.#signal = signal;
    this.finished = new Promise((resolve) => {
      this.#finish = resolve;
    });
    this.#open = new Promise((resolve) => {
      this.#opened = resolve;
    });
  }

  async *outgoing(): AsyncGenerator<AttachRequest, void> {
    yield { ...NOTHING, ticket: this.#order.ticket };
    try {
      if (this.#refusal !== null) {
        const { message: error, hint } = this.#refusal;
        yield { ...NOTHING, error, hint, reason: PLACES_TAKEN };
        return;
      }
      for await (const bytes of await this.#bytes()) {
        for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
          const data = Buffer.from(bytes.buffer, bytes.byteOffset + at, Math.min(CHUNK_BYTES, bytes.length - at));
          yield { ...NOTHING, data };
        }
      }
    } catch (error) {
      if (!this.#signal.aborted) yield { ...NOTHING, error: errorChain(error) };
    } finally {
      this.close();
    }
  }

  /** Waits until the guest has taken it. Input for a log, or after the console went, is dropped. */
  async input(data: Uint8Array): Promise<void> {
    if (data.length === 0) return;
    await this.#open;
    await this.#console?.write(data).catch(() => {}); // its end is told through the output
  }

  close(): void {
    this.#console?.close();
    this.#console = undefined;
    this.#opened?.();
    this.#finish();
  }

  async #bytes(): Promise<AsyncIterable<Uint8Array>> {
    const { clock, driver } = this.#options;
    const { kind, vmId, tailBytes, follow } = this.#order;
    if (driver === undefined) throw new Error('this host is a witness and runs no VMs');
    const signal = this.#signal;
    switch (kind) {
      case AttachKind.CONSOLE: {
        const open = () => driver.openConsole(vmId as VmId, signal);
        const console = await withDeadline(clock, OPEN_DEADLINE_MS, 'opening the console', open, signal);
        this.#console = console;
        this.#opened?.();
        return console.output;
      }
      case AttachKind.LOG:
        this.#opened?.();
        return driver.readSerialLog(vmId as VmId, { tailBytes: Number(tailBytes), follow, signal });
      case AttachKind.UNSPECIFIED:
      case AttachKind.UNRECOGNIZED:
        throw new Error('this agent does not know that kind of stream; is it older than the controller?');
      default:
        return unreachable(kind);
    }
  }
}

const NOTHING: AttachRequest = { ticket: '', data: Buffer.alloc(0), error: '', reason: '', hint: '' };
