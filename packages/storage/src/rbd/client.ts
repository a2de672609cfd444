// SPDX-License-Identifier: Apache-2.0
/** librados behind its child process, with errors in the words of the storage contract. */
import type { Clock } from '@busbar/core/clock/clock';
import { BusbarError, errorChain } from '@busbar/core/errors';
import type { Logger } from '@busbar/core/log';
import type { Metrics } from '@busbar/core/metrics';
import { NATIVE_REASONS, nativeCode } from '@busbar/native/errors';
import { NativeHost } from '@busbar/native/host';
import type { MethodArgs, MethodName, MethodResult } from '@busbar/native/protocol';
import type { RbdConfig } from '../config.ts';
import { STORAGE_REASONS } from '../driver.ts';
import { storageError } from '../errors.ts';
import type { CephCalls } from '../ffi/calls.ts';
import { ERRNO } from '../ffi/errors.ts';
import { describeHealth } from './monitors.ts';

/** `short` calls never wait behind deletions, which take minutes. */
type Lane = 'short' | 'long';

export interface ClientDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics?: Metrics | undefined;
}

/** What the driver needs of a client; a test has its own. */
export type CephApi = Pick<CephClient, 'childPid' | 'call' | 'callLong' | 'close'>;

export class CephClient {
  readonly #config: RbdConfig;
  readonly #native: NativeHost<CephCalls, never, Lane>;

  constructor(config: RbdConfig, deps: ClientDeps) {
    this.#config = config;
    const { cephConf, user, keyring, pool, timeouts } = config;
    this.#native = new NativeHost<CephCalls, never, Lane>({
      name: 'librados',
      entry: new URL('../ffi/child.ts', import.meta.url),
      lanes: { short: { concurrency: 8, queueLimit: 256 }, long: { concurrency: 4, queueLimit: 64 } },
      threadPoolSize: 24,
      startDeadlineMs: timeouts.mountS * 1000 + 4000,
      onStart: (call) =>
        call(
          'connect',
          {
            cephConf,
            user,
            keyring,
            pool,
            mountTimeoutS: timeouts.mountS,
            monOpTimeoutS: timeouts.monOpS,
            osdOpTimeoutS: timeouts.osdOpS,
          },
          { deadlineMs: timeouts.mountS * 1000 + 3000 },
        ),
      clock: deps.clock,
      logger: deps.logger,
      metrics: deps.metrics,
    });
  }

  get childPid(): number | null {
    return this.#native.pid;
  }

  call<K extends MethodName<CephCalls>>(
    method: K,
    args: MethodArgs<CephCalls, K>,
  ): Promise<MethodResult<CephCalls, K>> {
    return this.#call(method, args, this.#config.deadlines.callMs, 'short');
  }

  callLong<K extends MethodName<CephCalls>>(
    method: K,
    args: MethodArgs<CephCalls, K>,
  ): Promise<MethodResult<CephCalls, K>> {
    return this.#call(method, args, this.#config.deadlines.deleteMs, 'long');
  }

  close(): Promise<void> {
    return this.#native.close();
  }

  async #call<K extends MethodName<CephCalls>>(
    method: K,
    args: MethodArgs<CephCalls, K>,
    deadlineMs: number,
    lane: Lane,
  ): Promise<MethodResult<CephCalls, K>> {
    try {
      return await this.#native.call(method, args, { deadlineMs, lane });
    } catch (error) {
      throw await this.#explain(method, error);
    }
  }

  async #explain(method: string, error: unknown): Promise<unknown> {
    if (!(error instanceof BusbarError)) return error;
    if (nativeCode(error) === ERRNO.ESHUTDOWN) {
      // A fenced instance stays fenced; a new child is a new instance. When the whole address is
      // fenced, that one fails as well and says so.
      this.#native.restart('Ceph has fenced this client');
    }
    switch (error.reason) {
      case NATIVE_REASONS.deadline:
      case STORAGE_REASONS.storageTimeout: {
        const why = await this.#diagnose();
        return storageError('storageTimeout', `${error.message}; ${why}`, { hint: HINT, cause: error });
      }
      case NATIVE_REASONS.startFailed: {
        const message = `cannot connect to the Ceph cluster of ${this.#config.cephConf}: ${errorChain(error.cause)}`;
        const noAnswer = nativeCode(error) === ERRNO.ETIMEDOUT || !error.cause;
        const hint = noAnswer
          ? 'check that a majority of its monitors runs and can be reached from here'
          : error.cause instanceof BusbarError
            ? error.cause.hint
            : '';
        return storageError('storageUnavailable', message, { hint, cause: error });
      }
      case NATIVE_REASONS.childLost:
      case NATIVE_REASONS.closed:
      case NATIVE_REASONS.queueFull:
        return storageError('storageUnavailable', `${method}: ${error.message}`, {
          hint: 'repeat the call: it may or may not have taken effect',
          cause: error,
        });
      default:
        return error;
    }
  }

  /** In words; never throws, never long. */
  async #diagnose(): Promise<string> {
    const { diagnoseMs } = this.#config.deadlines;
    const command = { prefix: 'health', detail: 'detail' };
    try {
      return describeHealth(
        await this.#native.call('monCommand', { command }, { deadlineMs: diagnoseMs, lane: 'short' }),
      );
    } catch (error) {
      return `the monitors do not answer either (${errorChain(error)})`;
    }
  }
}

const HINT = 'see `ceph health detail`; the call may be repeated when the cluster answers again';
