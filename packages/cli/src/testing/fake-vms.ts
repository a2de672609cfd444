// SPDX-License-Identifier: Apache-2.0
import { on } from 'node:events';
import { ChangeKind } from '@busbar/proto/gen/busbar/v1/common';
import {
  DiskBus,
  DiskCache,
  Firmware,
  IsolationPolicy,
  MachineType,
  NicModel,
  PlacementAdviceKind,
  RunPolicy,
  Vm,
  VmPhase,
  type VmServiceImplementation,
  type VmSpec,
} from '@busbar/proto/gen/busbar/v1/vm';
import { type CallContext, ServerError, Status } from 'nice-grpc';
import { changes, type FakeCluster, refuse } from './fake-cluster.ts';

interface Named {
  readonly name: string;
}

export function vmService(cluster: FakeCluster, controller: Named): VmServiceImplementation {
  const find = (name: string, context: CallContext) => cluster.find(cluster.vms, name, 'vm', context);
  const operate = (method: string, vm: Vm, requestId: string, done: () => void) =>
    cluster.once(requestId, () => ({ operation: cluster.begin(method, 'vm', vm, requestId, done) }));
  const power = (vm: Vm, runPolicy: RunPolicy) => () => {
    if (vm.spec !== undefined) vm.spec.runPolicy = runPolicy;
    const running = runPolicy === RunPolicy.RUNNING;
    if (vm.status !== undefined) Object.assign(vm.status, { phase: running ? VmPhase.RUNNING : VmPhase.STOPPED });
    put(cluster, vm);
  };
  return {
    async getVm({ vm }, context) {
      return { vm: find(vm, context) };
    },
    async explainPlacement({ vm }, context) {
      const found = find(vm, context);
      return {
        preview: {
          host: '',
          verdicts: [
            {
              host: 'host1',
              fits: false,
              refusals: [{ checker: 'memory', reason: 'needs 4192 MiB, 1024 MiB free' }],
              scoreParts: [],
            },
          ],
        },
        current: found.status?.placement,
        advice: [
          { kind: PlacementAdviceKind.MOVE, vm: 'web', host: 'host1', toHost: 'host2', placement: { host: 'host1' } },
          { kind: PlacementAdviceKind.RESIZE, vcpus: 2, memoryBytes: 1024n ** 3n, placement: { host: 'host1' } },
        ],
      };
    },
    async listVms({ pageToken, host }) {
      const all = [...cluster.vms.values()].filter((vm) => host === '' || vm.status?.host === host);
      const begin = Number(pageToken || 0);
      const end = begin + cluster.pageSize;
      return {
        vms: all.slice(begin, end),
        nextPageToken: end < all.length ? String(end) : '',
        revision: cluster.revision,
      };
    },
    async createVm({ name, labels, spec, validateOnly, requestId }, context) {
      return cluster.once(requestId, () => {
        cluster.free(cluster.vms, name, 'vm', context);
        const stored = withDefaults(cluster, spec, context);
        const vm = Vm.fromPartial({
          meta: cluster.meta('vm', name, labels),
          spec: stored,
          status: { phase: VmPhase.CREATING, host: 'host1' },
        });
        if (validateOnly) {
          const verdicts = [
            { host: 'host1', fits: true },
            { host: 'host2', fits: false, refusals: [{ checker: 'memory', reason: '1GiB wanted, 512MiB free' }] },
          ];
          return { vm, placement: { host: 'host1', verdicts } };
        }
        cluster.vms.set(name, vm);
        return {
          vm,
          operation: cluster.begin('CreateVm', 'vm', vm, requestId, power(vm, stored.runPolicy ?? RunPolicy.RUNNING)),
        };
      });
    },
    async updateVm({ vm: name, labels, spec, updateMask, revision, validateOnly, requestId }, context) {
      const vm = find(name, context);
      cluster.checkRevision(vm, revision, context);
      if (validateOnly) return { vm };
      return cluster.once(requestId, () => {
        const stored = withDefaults(cluster, spec, context);
        for (const path of updateMask) {
          const field = path.replace('spec.', '') as keyof VmSpec;
          if (path === 'labels' && vm.meta !== undefined) vm.meta.labels = labels;
          else if (vm.spec !== undefined) Object.assign(vm.spec, { [field]: stored[field] });
        }
        if (vm.meta !== undefined) vm.meta.revision = cluster.nextRevision();
        if (vm.status !== undefined) vm.status.restartNeeded = updateMask.some((path) => path !== 'labels');
        return { vm };
      });
    },
    async deleteVm({ vm: name, revision, validateOnly, requestId }, context) {
      const vm = find(name, context);
      cluster.checkRevision(vm, revision, context);
      if (validateOnly) return {};
      return operate('DeleteVm', vm, requestId, () => {
        cluster.vms.delete(vm.meta?.name ?? '');
        changes.emit('change', cluster, {
          change: ChangeKind.DELETE,
          vm,
          progress: { revision: cluster.nextRevision() },
        });
      });
    },
    async startVm({ vm: name, validateOnly, requestId }, context) {
      const vm = find(name, context);
      return validateOnly ? {} : operate('StartVm', vm, requestId, power(vm, RunPolicy.RUNNING));
    },
    async stopVm({ vm: name, validateOnly, requestId }, context) {
      const vm = find(name, context);
      return validateOnly ? {} : operate('StopVm', vm, requestId, power(vm, RunPolicy.STOPPED));
    },
    async restartVm({ vm: name, requestId }, context) {
      const vm = find(name, context);
      return operate('RestartVm', vm, requestId, power(vm, RunPolicy.RUNNING));
    },
    async *watchVms({ revision }, context) {
      if (revision === 0n) for (const vm of cluster.vms.values()) yield { change: ChangeKind.PUT, vm };
      yield { change: ChangeKind.PROGRESS, progress: { revision: cluster.revision } };
      for await (const [source, change] of on(changes, 'change', { signal: context.signal })) {
        if (source === cluster) yield change;
      }
    },
    async *openConsole(requests, context) {
      let first = true;
      for await (const { vm, input } of requests) {
        if (first) {
          find(vm, context);
          yield {};
          yield { output: Buffer.from(`${controller.name} login: `) };
        }
        first = false;
        if (input.length === 0) continue;
        cluster.consoleInput.push(Buffer.from(input));
        yield { output: Buffer.from(`<${Buffer.from(input).toString()}>`) };
      }
    },
    async *getVmLog({ vm, tailBytes, follow }, context) {
      find(vm, context);
      const log = Buffer.from('line 1\nline 2\nline 3\n');
      yield { output: log.subarray(Math.max(0, log.length - Number(tailBytes || 65536n))) };
      if (!follow) return;
      for await (const [source, text] of on(changes, 'log', { signal: context.signal })) {
        if (source === cluster) yield { output: Buffer.from(String(text)) };
      }
    },
  };
}

export function put(cluster: FakeCluster, vm: Vm): void {
  changes.emit('change', cluster, { change: ChangeKind.PUT, vm, progress: { revision: cluster.nextRevision() } });
}

/** Defaults echoed back and ids in place of names, as the API says. */
function withDefaults(cluster: FakeCluster, spec: VmSpec | undefined, context: CallContext): VmSpec {
  if (spec === undefined) throw new ServerError(Status.INVALID_ARGUMENT, 'no spec');
  if (spec.memoryBytes % 1048576n !== 0n) {
    const fields = [{ field: 'spec.memoryBytes', problem: `is ${spec.memoryBytes}`, expected: 'a multiple of 1 MiB' }];
    refuse(context, Status.INVALID_ARGUMENT, {
      reason: 'INVALID',
      message: 'the VM is not valid',
      hint: 'correct the field',
      fields,
    });
  }
  const id = (map: ReadonlyMap<string, { meta?: { id: string } | undefined }>, name: string, kind: string) =>
    name === '' ? '' : (cluster.find(map as never, name, kind, context) as { meta: { id: string } }).meta.id;
  return {
    ...spec,
    runPolicy: spec.runPolicy === RunPolicy.UNSPECIFIED ? RunPolicy.RUNNING : spec.runPolicy,
    machineType: spec.machineType === MachineType.UNSPECIFIED ? MachineType.Q35 : spec.machineType,
    firmware: spec.firmware === Firmware.UNSPECIFIED ? Firmware.BIOS : spec.firmware,
    isolationPolicy:
      spec.isolationPolicy === IsolationPolicy.UNSPECIFIED ? IsolationPolicy.KEEP_RUNNING : spec.isolationPolicy,
    shutdownTimeoutMs: spec.shutdownTimeoutMs || 60_000,
    disks: spec.disks.map((disk, index) => ({
      ...disk,
      image: id(cluster.images, disk.image, 'image'),
      volume: id(cluster.volumes, disk.volume, 'volume'),
      sizeBytes: disk.sizeBytes || 1024n ** 3n,
      bus: disk.bus === DiskBus.UNSPECIFIED ? DiskBus.VIRTIO : disk.bus,
      cache: disk.cache === DiskCache.UNSPECIFIED ? DiskCache.NONE : disk.cache,
      bootOrder: disk.bootOrder || (index === 0 ? 1 : 0),
    })),
    nics: spec.nics.map((nic) => ({
      ...nic,
      network: id(cluster.networks, nic.network, 'network'),
      macAddress: nic.macAddress || '52:54:00:00:00:01',
      model: nic.model === NicModel.UNSPECIFIED ? NicModel.VIRTIO : nic.model,
    })),
  };
}
