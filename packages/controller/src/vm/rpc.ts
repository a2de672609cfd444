// SPDX-License-Identifier: Apache-2.0

import { BusbarError } from '@busbar/core/errors';
import { includesRole } from '@busbar/pki/role';
import type { VmRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { ChangeKind } from '@busbar/proto/gen/busbar/v1/common';
import type { Vm, WatchVmsResponse } from '@busbar/proto/gen/busbar/v1/vm';
import {
  CreateVmRequest,
  type CreateVmResponse,
  DeleteVmRequest,
  RestartVmRequest,
  RunPolicy,
  StartVmRequest,
  StopVmRequest,
  UpdateVmRequest,
  type UpdateVmResponse,
  type VmServiceDefinition,
} from '@busbar/proto/gen/busbar/v1/vm';
import { z } from 'zod';
import type { Api, Call } from '../api/call.ts';
import { contentOf, mutate, type Plan } from '../api/mutate.ts';
import { page, pageFields } from '../api/pages.ts';
import { assertNotDeleting, assertRevision, find } from '../api/refusals.ts';
import type { Service } from '../api/service.ts';
import { sharedMessages } from '../api/shared-messages.ts';
import { labels, name, reference, requestId, revision } from '../api/validation.ts';
import { watchTable } from '../api/watch.ts';
import { bytes, checkedLater, list, text } from '../bounds/schema.ts';
import { newOperation, supersede } from '../operation/create.ts';
import { operationById } from '../operation/present.ts';
import type { Saga } from '../operation/saga.ts';
import { putRecord } from '../records/kinds.ts';
import { unchanged } from '../view/table.ts';
import { cloudInitFor } from './cloud-init.ts';
import { openConsole, readLog } from './console.ts';
import { planCreate } from './create.ts';
import { explainPlacement } from './explain.ts';
import { previewPlacement } from './placement.ts';
import { presentVm, presentVmById } from './present.ts';
import { DELETE_VM, RESTART_VM, START_VM, STOP_VM } from './sagas.ts';
import { vmSpecSchema } from './spec.ts';
import { MASK_RULE, planUpdate } from './update.ts';

const flags = { validateOnly: z.boolean(), requestId };
const timeout = z.number().int('milliseconds').min(0, '0 to 3600000 ms').max(3_600_000, '0 to 3600000 ms');

export function vmService(api: Api): Service<typeof VmServiceDefinition> {
  const shared = sharedMessages<WatchVmsResponse>();
  const sharedWithViewers = sharedMessages<WatchVmsResponse>();
  return {
    createVm: {
      access: 'write',
      schema: z.object({ name, labels, spec: vmSpecSchema, ...flags }),
      handle: (request, call) => createVm(api, request, call),
    },
    getVm: {
      access: 'read',
      schema: z.object({ vm: reference }),
      async handle(request, call) {
        await api.view.fresh();
        const entry = find(api.view.tables.vm, request.vm);
        return { vm: presentVmById(entry.id, api.view, shownTo(api, call)) ?? undefined };
      },
    },
    explainPlacement: {
      access: 'read',
      schema: z.object({ vm: reference }),
      async handle(request) {
        await api.view.fresh();
        return explainPlacement(api, find(api.view.tables.vm, request.vm));
      },
    },
    listVms: {
      access: 'read',
      schema: z.object({ ...pageFields, host: text(253, 'a host name') }),
      async handle(request, call) {
        const shown = shownTo(api, call);
        const revisionNow = await api.view.fresh();
        const all = api.view.tables.vm
          .sorted()
          .filter(
            (entry) => request.host === '' || api.view.tables['vm-status'].get(entry.id)?.record.host === request.host,
          );
        const { items, nextPageToken } = page(all, (entry) => entry.record.meta?.name ?? '', request);
        const vms = items.map((entry) =>
          presentVm(
            entry.record,
            entry.modRevision,
            api.view.tables['vm-status'].get(entry.id)?.record,
            api.view,
            shown,
          ),
        );
        return { vms, nextPageToken, revision: revisionNow };
      },
    },
    updateVm: {
      access: 'write',
      // What the mask leaves out may be empty: the parts are checked when they are put together.
      schema: z.object({
        vm: reference,
        labels,
        spec: checkedLater(vmSpecSchema),
        updateMask: list(text(64, MASK_RULE), 0, 64, 'at most 64 paths'),
        revision,
        ...flags,
      }),
      handle: (request, call) => updateVm(api, request, call),
    },
    deleteVm: {
      access: 'write',
      schema: z.object({ vm: reference, revision, force: z.boolean(), ...flags }),
      handle: (request, call) =>
        changeRun(api, call, contentOf(DeleteVmRequest, request), request, {
          method: 'DeleteVm',
          saga: DELETE_VM,
          force: request.force,
          timeoutMs: 0,
          runPolicy: RunPolicy.STOPPED,
          deleting: true,
          revision: request.revision,
        }),
    },
    startVm: {
      access: 'write',
      schema: z.object({ vm: reference, ...flags }),
      async handle(request, call) {
        const response = await changeRun(api, call, contentOf(StartVmRequest, request), request, {
          method: 'StartVm',
          saga: START_VM,
          force: false,
          timeoutMs: 0,
          runPolicy: RunPolicy.RUNNING,
          deleting: false,
          revision: 0n,
        });
        const placement = request.validateOnly
          ? previewPlacement(api, toRun(find(api.view.tables.vm, request.vm).record))
          : undefined;
        return { ...response, placement };
      },
    },
    stopVm: {
      access: 'write',
      schema: z.object({ vm: reference, force: z.boolean(), timeoutMs: timeout, ...flags }),
      handle: (request, call) =>
        changeRun(api, call, contentOf(StopVmRequest, request), request, {
          method: 'StopVm',
          saga: STOP_VM,
          force: request.force,
          timeoutMs: request.timeoutMs,
          runPolicy: RunPolicy.STOPPED,
          deleting: false,
          revision: 0n,
        }),
    },
    restartVm: {
      access: 'write',
      schema: z.object({ vm: reference, force: z.boolean(), ...flags }),
      handle: (request, call) => restartVm(api, request, call),
    },
    watchVms: {
      access: 'read',
      place: 'watch',
      schema: z.object({ revision }),
      handle: (request, call) =>
        watchTable<Vm, WatchVmsResponse>(api, call, request.revision, {
          kinds: ['vm', 'vm-status'],
          ids: () => api.view.tables.vm.sorted().map((entry) => entry.id),
          present: (id) => presentVmById(id, api.view, shownTo(api, call)),
          put: (vm) => ({ change: ChangeKind.PUT, vm }),
          gone: (id, goneName) => ({
            change: ChangeKind.DELETE,
            vm: presentVm(
              {
                meta: { id, name: goneName, labels: {}, createTime: undefined, updateTime: undefined, deleting: true },
                spec: undefined,
                stopByForce: false,
                stopTimeoutMs: 0,
                diskVolumes: {},
                sealedCloudInit: '',
              },
              0n,
              undefined,
              api.view,
              () => undefined,
            ),
          }),
          mark: (change, progress) => ({ change, vm: undefined, progress }),
          shared: seesCloudInit(call) ? shared : sharedWithViewers,
        }),
    },
    openConsole: {
      access: 'write',
      place: 'console',
      schema: z.object({
        vm: text(253, 'a name or an id'),
        input: bytes(65_536, 'at most 64 KiB'),
      }),
      handle: (incoming, call) => openConsole(api, incoming, call),
    },
    getVmLog: {
      access: 'read',
      place: 'log',
      schema: z.object({
        vm: reference,
        tailBytes: z
          .bigint()
          .min(0n, '0 to 16 MiB')
          .max(16n * 1024n ** 2n, '0 to 16 MiB'),
        follow: z.boolean(),
      }),
      handle: (request, call) => readLog(api, request, call),
    },
  };
}

/** As cloudInitFor decides; who may see less must never get what was built for who sees more. */
const seesCloudInit = ({ caller }: Call) => caller.role !== null && includesRole(caller.role, 'operator');
const shownTo = (api: Api, call: Call) => cloudInitFor(api.seal, call.caller.role);

function createVm(api: Api, request: CreateVmRequest, call: Call): Promise<CreateVmResponse> {
  return mutate<VmRecord, CreateVmResponse>(api, call, {
    method: 'CreateVm',
    content: contentOf(CreateVmRequest, request),
    requestId: request.requestId,
    validateOnly: request.validateOnly,
    plan: () => planCreate(api, request, call),
    preview: (plan) => ({
      operation: undefined,
      vm: presentVm(plan.extra, 0n, undefined, api.view, shownTo(api, call)),
      placement: previewPlacement(api, plan.extra),
    }),
    respond: (ids) => ({
      operation: operationById(ids.operationId, api.view),
      vm: presentVmById(ids.resourceId, api.view, shownTo(api, call)) ?? undefined,
      placement: undefined,
    }),
  });
}

function updateVm(api: Api, request: UpdateVmRequest, call: Call): Promise<UpdateVmResponse> {
  return mutate(api, call, {
    method: 'UpdateVm',
    content: contentOf(UpdateVmRequest, request),
    requestId: request.requestId,
    validateOnly: request.validateOnly,
    plan: () => planUpdate(api, request),
    preview: (plan) => ({
      vm: presentVm(
        plan.extra,
        0n,
        api.view.tables['vm-status'].get(plan.ids.resourceId)?.record,
        api.view,
        shownTo(api, call),
      ),
    }),
    respond: (ids) => ({ vm: presentVmById(ids.resourceId, api.view, shownTo(api, call)) ?? undefined }),
  });
}

interface RunChange {
  readonly method: string;
  readonly saga: Saga;
  readonly force: boolean;
  readonly timeoutMs: number;
  readonly runPolicy: RunPolicy;
  readonly deleting: boolean;
  readonly revision: bigint;
}

/** Start, stop and delete: the user's word on whether the VM shall run, and the operation that waits for it. */
function changeRun(
  api: Api,
  call: Call,
  content: Uint8Array,
  request: { readonly vm: string; readonly validateOnly: boolean; readonly requestId: string },
  change: RunChange,
) {
  return mutate(api, call, {
    method: change.method,
    content,
    requestId: request.requestId,
    validateOnly: request.validateOnly,
    plan: (): Plan<null> => {
      const entry = find(api.view.tables.vm, request.vm);
      const { meta, spec } = entry.record;
      if (meta === undefined || spec === undefined) throw unreadable(request.vm);
      assertRevision('vm', meta.name, entry, change.revision);
      if (!change.deleting) assertNotDeleting('vm', entry);
      const target = { kind: 'vm', id: entry.id, name: meta.name };
      const operation = newOperation(api, call, {
        method: change.method,
        requestId: request.requestId,
        target,
        saga: change.saga,
      });
      const former = supersede(api, entry.id, change.saga);
      const next = {
        ...entry.record,
        meta: { ...meta, deleting: change.deleting, updateTime: api.clock.wallTime() },
        // Deletion leaves the run policy: when it is called off, the VM is what it was.
        spec: change.deleting ? spec : { ...spec, runPolicy: change.runPolicy },
        stopByForce: change.force,
        stopTimeoutMs: change.timeoutMs,
      };
      return {
        compare: [unchanged('vm', entry), ...former.compare],
        writes: [putRecord('vm', entry.id, next), operation.write, ...former.writes],
        ids: { operationId: operation.id, resourceId: entry.id },
        extra: null,
      };
    },
    preview: () => ({ operation: undefined }),
    respond: (ids) => ({ operation: operationById(ids.operationId, api.view) }),
  });
}

function restartVm(api: Api, request: RestartVmRequest, call: Call) {
  return mutate(api, call, {
    method: 'RestartVm',
    content: contentOf(RestartVmRequest, request),
    requestId: request.requestId,
    validateOnly: request.validateOnly,
    plan: (): Plan<null> => {
      const entry = find(api.view.tables.vm, request.vm);
      const vmName = entry.record.meta?.name ?? '';
      assertNotDeleting('vm', entry);
      if (entry.record.spec?.runPolicy !== RunPolicy.RUNNING) {
        throw new BusbarError({
          kind: 'precondition',
          reason: 'VM_NOT_RUNNING',
          message: `VM "${vmName}" is to be stopped, so there is nothing to restart`,
          hint: `start it: busbar vm start ${vmName}`,
        });
      }
      const target = { kind: 'vm', id: entry.id, name: vmName };
      const facts = { force: String(request.force) };
      const operation = newOperation(api, call, {
        method: 'RestartVm',
        requestId: request.requestId,
        target,
        saga: RESTART_VM,
        facts,
      });
      const former = supersede(api, entry.id, RESTART_VM);
      return {
        compare: [unchanged('vm', entry), ...former.compare],
        writes: [operation.write, ...former.writes],
        ids: { operationId: operation.id, resourceId: entry.id },
        extra: null,
      };
    },
    preview: () => ({ operation: undefined }),
    respond: (ids) => ({ operation: operationById(ids.operationId, api.view) }),
  });
}

/** The VM as it would be once its start is accepted. */
function toRun(vm: VmRecord): VmRecord {
  return vm.spec === undefined ? vm : { ...vm, spec: { ...vm.spec, runPolicy: RunPolicy.RUNNING } };
}

function unreadable(vm: string): BusbarError {
  return new BusbarError({
    kind: 'internal',
    reason: 'VM_RECORD_INCOMPLETE',
    message: `the record of VM "${vm}" is incomplete`,
  });
}
