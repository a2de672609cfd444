// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import { BusbarError, errorChain } from '@busbar/core/errors';
import type { Logger } from '@busbar/core/log';
import type { Metrics } from '@busbar/core/metrics';
import { move, type StateTable } from '@busbar/core/state-table';
import { NATIVE_REASONS, nativeCode } from '@busbar/native/errors';
import { NativeHost } from '@busbar/native/host';
import type { MethodArgs, MethodResult } from '@busbar/native/protocol';
import { hypervisorTimeout, hypervisorUnavailable } from '../driver/refusals.ts';
import { LANE_CONFIGS, type LaneName, type LibvirtEvent, type LibvirtMethods } from './ffi/methods.ts';

/** As the child throws them; the file that declares them belongs to the child. */
const CONNECTION_LOST = 'BUSBAR_CONNECTION_LOST';
const SOFT_DEADLINE = 'BUSBAR_SOFT_DEADLINE';

/** Mostly for libvirtd's first answer: after its start or an upgrade it asks every QEMU for its abilities (5 s seen). */
const CONNECT_DEADLINE_MS = 30_000;
/** The child gives up on a call by itself; when not even that happens within this, it is replaced. */
const CHILD_GRACE_MS = 2000;
const RETRY_MS = { first: 100, max: 2000 } as const;

/** virConnectCloseReason. */
const CLOSE_REASONS = ['connection error', 'libvirtd ended', 'libvirtd does not answer', 'closed by us'];

type State = 'idle' | 'connecting' | 'connected' | 'waiting' | 'closed';
const STATES: StateTable<State> = {
  idle: ['connecting', 'closed'],
  connecting: ['connected', 'waiting', 'closed'],
  connected: ['waiting', 'closed'],
  waiting: ['connecting', 'closed'],
  closed: [],
};

export interface LibvirtLinkOptions {
  readonly uri: string;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics?: Metrics | undefined;
  /** Runs in each new session before any other call, e.g. to define secrets. A failure drops the session. */
  readonly onConnected: (call: LinkCall) => Promise<void>;
  /** A session began or ended: what was known may be old. */
  readonly onChange: () => void;
  readonly onEvent: (event: LibvirtEvent) => void;
}

type Method = Exclude<Extract<keyof LibvirtMethods, string>, 'connect'>;
type Args<K extends Method> = Omit<MethodArgs<LibvirtMethods, K>, 'untilNs'>;

export type LinkCall = <K extends Method>(
  method: K,
  args: Args<K>,
  options: { readonly lane: LaneName; readonly deadlineMs: number },
) => Promise<MethodResult<LibvirtMethods, K>>;

/**
 * A connection to libvirt that is kept: when libvirtd, the connection or the child process goes,
 * everything is dropped and connected anew, with a backoff, for ever. Calls made meanwhile are
 * refused at once. Errors of calls are translated to HostDriver's words, except libvirt's own,
 * which keep their number for `nativeCode`.
 */
export class LibvirtLink {
  readonly #options: LibvirtLinkOptions;
  readonly #host: NativeHost<LibvirtMethods, LibvirtEvent, LaneName>;
  #state: State = 'idle';
  #why = 'not started';
  #failures = 0;
  #timer: Disposable | null = null;
  #versions = { libvirt: 0, hypervisor: 0 };

  constructor(options: LibvirtLinkOptions) {
    this.#options = options;
    this.#host = new NativeHost({
      name: 'libvirt',
      entry: new URL('./ffi/child.ts', import.meta.url),
      lanes: LANE_CONFIGS,
      clock: options.clock,
      logger: options.logger,
      metrics: options.metrics,
      onEvent: (event) => {
        if (event.type === 'closed') this.#lost(CLOSE_REASONS[event.reason] ?? 'closed');
        else options.onEvent(event);
      },
      onEventsLost: () => options.onChange(),
      onLost: (cause) => this.#lost(cause.message),
    });
  }

  start(): void {
    if (this.#state === 'idle') void this.#connect();
  }

  get connected(): boolean {
    return this.#state === 'connected';
  }

  /** Why there is no connection; empty when there is one. */
  get why(): string {
    return this.connected ? '' : this.#why;
  }

  /** Process id of the child; null between two. */
  get childPid(): number | null {
    return this.#host.pid;
  }

  /** As `major.minor.release`; empty without a connection. */
  get versions(): { readonly libvirt: string; readonly hypervisor: string } {
    if (!this.connected) return { libvirt: '', hypervisor: '' };
    return { libvirt: formatVersion(this.#versions.libvirt), hypervisor: formatVersion(this.#versions.hypervisor) };
  }

  call: LinkCall = async (method, args, options) => {
    if (!this.connected) throw hypervisorUnavailable(this.#why);
    return await this.#call(method, args, options);
  };

  async close(): Promise<void> {
    if (this.#state === 'closed') return;
    this.#to('closed');
    this.#why = 'the driver was closed';
    this.#timer?.[Symbol.dispose]();
    await this.#host.close();
  }

  #call: LinkCall = async (method, args, { lane, deadlineMs }) => {
    const full = { ...args, untilNs: until(deadlineMs) } as MethodArgs<LibvirtMethods, typeof method>;
    try {
      return await this.#host.call(method, full, { lane, deadlineMs: deadlineMs + CHILD_GRACE_MS });
    } catch (error) {
      throw this.#translate(error, method, deadlineMs);
    }
  };

  #translate(error: unknown, method: string, deadlineMs: number): unknown {
    const code = nativeCode(error);
    if (code === SOFT_DEADLINE) return hypervisorTimeout(method, deadlineMs, error);
    if (code === CONNECTION_LOST) {
      this.#lost(errorChain(error));
      return hypervisorUnavailable(errorChain(error), error);
    }
    if (!(error instanceof BusbarError)) return error;
    switch (error.reason) {
      case NATIVE_REASONS.deadline:
        return hypervisorTimeout(method, deadlineMs, error);
      case NATIVE_REASONS.childLost:
      case NATIVE_REASONS.startFailed:
      case NATIVE_REASONS.queueFull:
      case NATIVE_REASONS.closed:
        return hypervisorUnavailable(error.message, error);
      default:
        return error;
    }
  }

  async #connect(): Promise<void> {
    this.#to('connecting');
    const { uri, logger, onConnected, onChange } = this.#options;
    try {
      const args = { uri, untilNs: until(CONNECT_DEADLINE_MS) };
      this.#versions = await this.#host.call('connect', args, { deadlineMs: CONNECT_DEADLINE_MS + CHILD_GRACE_MS });
      await onConnected(this.#call);
      // Both were lost again meanwhile, or we were closed.
      if (this.#state !== 'connecting') return;
      this.#to('connected');
      this.#failures = 0;
      logger.info({ libvirt: this.versions.libvirt, qemu: this.versions.hypervisor }, 'connected to libvirt');
      onChange();
    } catch (error) {
      this.#lost(errorChain(error));
    }
  }

  #lost(why: string): void {
    if (this.#state !== 'connected' && this.#state !== 'connecting') return;
    const delayMs = Math.min(RETRY_MS.max, RETRY_MS.first * 2 ** Math.min(this.#failures, 10));
    this.#failures++;
    const wasConnected = this.connected;
    this.#to('waiting');
    // Once per change and not per retry: libvirtd may be away for days.
    if (wasConnected || this.#why !== why) this.#options.logger.warn({ why }, 'no connection to libvirt');
    this.#why = why;
    this.#timer = this.#options.clock.timer(delayMs, () => void this.#connect());
    if (wasConnected) this.#options.onChange();
  }

  #to(state: State): void {
    this.#state = move(STATES, this.#state, state);
  }
}

function until(deadlineMs: number): bigint {
  return process.hrtime.bigint() + BigInt(deadlineMs) * 1_000_000n;
}

function formatVersion(version: number): string {
  return `${Math.floor(version / 1_000_000)}.${Math.floor(version / 1000) % 1000}.${version % 1000}`;
}
