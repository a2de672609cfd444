// SPDX-License-Identifier: Apache-2.0
/**
 * A cluster in memory, for tests of the CLI's side of the protocol only: defaults, ids for names, revisions, request
 * ids and operations as the API promises them. What the real controller does is tested against the real one.
 */
import { EventEmitter } from 'node:events';
import { type AdoptClusterRequest, AdoptionPlan } from '@busbar/proto/gen/busbar/v1/cluster';
import { ErrorInfo, type ResourceMeta } from '@busbar/proto/gen/busbar/v1/common';
import { Host, HostRole, HostState } from '@busbar/proto/gen/busbar/v1/host';
import type { Image } from '@busbar/proto/gen/busbar/v1/image';
import type { Network } from '@busbar/proto/gen/busbar/v1/network';
import { Operation, OperationState, OperationStepState } from '@busbar/proto/gen/busbar/v1/operation';
import type { Vm } from '@busbar/proto/gen/busbar/v1/vm';
import type { Volume } from '@busbar/proto/gen/busbar/v1/volume';
import { type CallContext, ServerError, Status } from 'nice-grpc';
import { FakeTrail } from './fake-trail.ts';

export const CREATED = new Date('2026-03-01T10:00:00Z');
export const NOW = new Date('2026-03-01T12:30:00Z');

/** Carries changes to the watches of all controllers. */
export const changes = new EventEmitter().setMaxListeners(100);

interface Stored {
  meta?: ResourceMeta | undefined;
}

export class FakeCluster {
  readonly vms = new Map<string, Vm>();
  readonly hosts = new Map<string, Host>();
  readonly volumes = new Map<string, Volume>();
  readonly networks = new Map<string, Network>();
  readonly images = new Map<string, Image>();
  readonly operations = new Map<string, Operation>();
  readonly trail = new FakeTrail();
  /** What each request id was answered. */
  readonly answers = new Map<string, unknown>();
  /** Calls in order, e.g. "CreateVm web". */
  readonly calls: string[] = [];
  readonly consoleInput: Buffer[] = [];
  /** Runs after each chunk of an import. */
  duringImport: ((doneBytes: bigint) => Promise<void> | void) | undefined;
  /** The next conditional change finds another revision. */
  staleOnce = false;
  /** Imports arrive damaged. */
  corrupt = false;
  /** What an adoption would do, and the calls for one. */
  adoption: AdoptionPlan = AdoptionPlan.fromPartial({});
  readonly adoptions: AdoptClusterRequest[] = [];
  pageSize = 1000;
  /** Operations stay where they are. */
  hold = false;
  /** It is too late to cancel operations. */
  onlyForward = false;
  /** The next operation ends so. */
  failNext: ErrorInfo | undefined;
  readonly #effects = new Map<string, () => void>();
  #revision = 100n;
  #ids = 0;

  nextRevision(): bigint {
    this.#revision += 1n;
    return this.#revision;
  }

  get revision(): bigint {
    return this.#revision;
  }

  nextId(kind: string): string {
    this.#ids += 1;
    return `${kind}-id-${this.#ids}`;
  }

  meta(kind: string, name: string, labels: Record<string, string> = {}): ResourceMeta {
    const revision = this.nextRevision();
    return { id: this.nextId(kind), name, revision, createTime: CREATED, updateTime: CREATED, labels, deleting: false };
  }

  find<T extends Stored>(map: ReadonlyMap<string, T>, name: string, kind: string, context: CallContext): T {
    const found = map.get(name) ?? [...map.values()].find(({ meta }) => meta?.id === name);
    if (found !== undefined) return found;
    return refuse(context, Status.NOT_FOUND, {
      reason: `${kind.toUpperCase()}_NOT_FOUND`,
      message: `there is no ${kind} ${JSON.stringify(name)}`,
      hint: `busbar ${kind} list shows what there is`,
    });
  }

  free<T>(map: ReadonlyMap<string, T>, name: string, kind: string, context: CallContext): void {
    if (!map.has(name)) return;
    refuse(context, Status.ALREADY_EXISTS, {
      reason: `${kind.toUpperCase()}_NAME_TAKEN`,
      message: `a ${kind} named ${JSON.stringify(name)} exists`,
      hint: 'choose another name',
    });
  }

  checkRevision(stored: Stored, wanted: bigint, context: CallContext): void {
    const stale = this.staleOnce;
    this.staleOnce = false;
    if (!stale && (wanted === 0n || wanted === stored.meta?.revision)) return;
    refuse(context, Status.ABORTED, {
      reason: 'REVISION_STALE',
      message: `it has revision ${stored.meta?.revision ?? 0n}, not ${wanted}`,
    });
  }

  /** The first answer again for a request id that was seen. */
  once<R>(requestId: string, make: () => R): R {
    if (requestId === '') throw new ServerError(Status.INVALID_ARGUMENT, 'the CLI sent no request id');
    if (!this.answers.has(requestId)) this.answers.set(requestId, make());
    return this.answers.get(requestId) as R;
  }

  begin(method: string, kind: string, target: Stored, requestId: string, done: () => void): Operation {
    const operation = Operation.create({
      id: this.nextId('op'),
      method,
      target: { kind, id: target.meta?.id ?? '', name: target.meta?.name ?? '' },
      state: OperationState.RUNNING,
      steps: ['prepare', 'work', 'finish'].map((name) => ({ name, state: OperationStepState.PENDING })),
      createTime: CREATED,
      requestId,
      revision: this.nextRevision(),
    });
    this.operations.set(operation.id, operation);
    this.#effects.set(operation.id, done);
    changes.emit('operation', this, structuredClone(operation));
    return structuredClone(operation);
  }

  /** One step further; called by each wait, and by tests that watch. */
  advance(operation: Operation): void {
    if (this.hold || operation.endTime !== undefined) return;
    if (operation.cancelRequested && !this.onlyForward) {
      this.#end(operation, OperationState.CANCELLED);
      return;
    }
    const step = operation.steps.find(({ state }) => state !== OperationStepState.DONE);
    if (step !== undefined) {
      step.state = OperationStepState.DONE;
      [step.startTime, step.endTime] = [CREATED, new Date(CREATED.getTime() + 1500)];
      operation.progressPercent += 33;
    }
    if (this.failNext !== undefined) {
      operation.error = this.failNext;
      if (step !== undefined) step.state = OperationStepState.FAILED;
      this.failNext = undefined;
      this.#end(operation, OperationState.FAILED);
    } else if (operation.steps.every(({ state }) => state === OperationStepState.DONE)) {
      operation.progressPercent = 100;
      this.#effects.get(operation.id)?.();
      this.#end(operation, OperationState.SUCCEEDED);
    } else this.touch(operation);
  }

  #end(operation: Operation, state: OperationState): void {
    operation.state = state;
    operation.endTime = new Date(CREATED.getTime() + 4500);
    this.touch(operation);
  }

  /** A new revision, which watches see. */
  touch(operation: Operation): void {
    operation.revision = this.nextRevision();
    changes.emit('operation', this, structuredClone(operation));
  }

  addHost(name: string, runningVms: number): void {
    const meta = { ...this.meta('host', name), id: name };
    const versions = { agent: '0.1.0', kernel: '6.1.0', libvirt: '9.0.0', qemu: '7.2.0', os: 'Debian GNU/Linux 12' };
    const cpu = { model: 'Test CPU', onlineCpus: 8 };
    const numaNodes = [
      { id: 0, cpus: [0, 1, 2, 3] },
      { id: 1, cpus: [4, 5, 6, 7] },
    ];
    this.hosts.set(
      name,
      Host.fromPartial({
        meta,
        spec: { unschedulable: false },
        status: {
          state: HostState.READY,
          role: HostRole.HYPERVISOR,
          runningVms,
          allocatedVcpus: runningVms,
          allocatedMemoryBytes: BigInt(runningVms) * 512n * 1024n ** 2n,
          inventory: { numaNodes, cpu, memoryBytes: 32n * 1024n ** 3n, kvmUsable: name !== 'host3', versions },
        },
      }),
    );
  }
}

/** As the controller does: a status, and the details in the trailer. */
export function refuse(context: CallContext, status: Status, info: Partial<ErrorInfo>): never {
  const whole = ErrorInfo.fromPartial(info);
  context.trailer.set('busbar-error-bin', ErrorInfo.encode(whole).finish());
  throw new ServerError(status, whole.message);
}
