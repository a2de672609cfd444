// SPDX-License-Identifier: Apache-2.0
/** Controllers in front of a FakeCluster: several at once, each of which can be killed and revived. */
import { createHash } from 'node:crypto';
import { on, once } from 'node:events';
import { AuditServiceDefinition } from '@busbar/proto/gen/busbar/v1/audit';
import { ClusterServiceDefinition, type ClusterServiceImplementation } from '@busbar/proto/gen/busbar/v1/cluster';
import type { ErrorInfo } from '@busbar/proto/gen/busbar/v1/common';
import { ChangeKind } from '@busbar/proto/gen/busbar/v1/common';
import { EventServiceDefinition } from '@busbar/proto/gen/busbar/v1/event';
import { HostServiceDefinition, type HostServiceImplementation, type HostSpec } from '@busbar/proto/gen/busbar/v1/host';
import {
  Image,
  ImagePhase,
  ImageServiceDefinition,
  type ImageServiceImplementation,
} from '@busbar/proto/gen/busbar/v1/image';
import {
  Network,
  NetworkServiceDefinition,
  type NetworkServiceImplementation,
} from '@busbar/proto/gen/busbar/v1/network';
import { OperationServiceDefinition, type OperationServiceImplementation } from '@busbar/proto/gen/busbar/v1/operation';
import { Placement, VmServiceDefinition } from '@busbar/proto/gen/busbar/v1/vm';
import {
  Volume,
  VolumePhase,
  VolumeServiceDefinition,
  type VolumeServiceImplementation,
} from '@busbar/proto/gen/busbar/v1/volume';
import { ServerCredentials } from '@grpc/grpc-js';
import { type CallContext, createServer, type Server, ServerError, Status } from 'nice-grpc';
import { changes, type FakeCluster, refuse } from './fake-cluster.ts';
import { vmService } from './fake-vms.ts';

export class FakeController {
  readonly name: string;
  readonly cluster: FakeCluster;
  readonly #credentials: ServerCredentials;
  #server: Server | undefined;
  address = '';
  /** Every call is refused so. */
  refuses: { status: Status; info: Partial<ErrorInfo> } | undefined;

  /** As SIGSTOP looks from outside: connections stand, calls are not answered. */
  frozen = false;

  constructor(name: string, cluster: FakeCluster, credentials = ServerCredentials.createInsecure()) {
    this.name = name;
    this.cluster = cluster;
    this.#credentials = credentials;
  }

  async start(): Promise<void> {
    const { cluster } = this;
    const refusal = () => this.refuses;
    const isFrozen = () => this.frozen;
    // What every call meets first: the log, and faults that tests ask for.
    const server = createServer().use(async function* (call, context) {
      cluster.calls.push(call.method.path.split('/')[2] ?? '');
      if (isFrozen()) await once(context.signal, 'abort');
      const refused = refusal();
      if (refused !== undefined) refuse(context as CallContext, refused.status, refused.info);
      return yield* call.next(call.request, context);
    });
    server.add(ClusterServiceDefinition, clusterService(this));
    server.add(HostServiceDefinition, hostService(cluster));
    server.add(VmServiceDefinition, vmService(cluster, this));
    server.add(VolumeServiceDefinition, volumeService(cluster));
    server.add(NetworkServiceDefinition, networkService(cluster));
    server.add(ImageServiceDefinition, imageService(cluster));
    server.add(OperationServiceDefinition, operationService(cluster));
    server.add(EventServiceDefinition, cluster.trail.eventService);
    server.add(AuditServiceDefinition, cluster.trail.auditService);
    const [host, port] = this.address === '' ? ['127.0.0.1', '0'] : this.address.split(':');
    const bound = await server.listen(`${host}:${port}`, this.#credentials);
    this.address = `127.0.0.1:${bound}`;
    this.#server = server;
  }

  /** As kill -9 looks from outside: connections break at once. */
  kill(): void {
    this.#server?.forceShutdown();
    this.#server = undefined;
  }
}

function clusterService(controller: FakeController): ClusterServiceImplementation {
  return {
    async getCluster() {
      return {
        cluster: {
          name: 'lab',
          leader: 'host1',
          leaderTerm: 42n,
          answeredBy: controller.name,
          controllers: [{ host: 'host1', address: '10.77.0.11:7800', leader: true }],
          store: { healthy: true, revision: controller.cluster.revision },
          storage: { healthy: true, driver: 'rbd', totalBytes: 3n * 1024n ** 3n, availableBytes: 2n * 1024n ** 3n },
          hostsByState: { ready: 3 },
          vmsByPhase: { running: controller.cluster.vms.size },
          version: '0.1.0',
        },
      };
    },
    async adoptCluster(request) {
      controller.cluster.adoptions.push(request);
      return { plan: controller.cluster.adoption };
    },
  };
}

function hostService(cluster: FakeCluster): HostServiceImplementation {
  return {
    async getHost({ host }, context) {
      return { host: cluster.find(cluster.hosts, host, 'host', context) };
    },
    async drillHost({ host }, context) {
      cluster.find(cluster.hosts, host, 'host', context);
      return {
        moves: [{ vm: 'scada-1', placement: Placement.fromPartial({ host: 'host1' }), recoveryMs: 3_550 }],
        losses: [{ vm: 'web', reason: 'not highly available (spec.ha.enabled is false): it waits for its host' }],
        steps: [
          { name: 'its lease has certainly ended', durationMs: 2_750 },
          { name: 'storage refuses it', durationMs: 300 },
        ],
      };
    },
    async listHosts() {
      return { hosts: [...cluster.hosts.values()], revision: cluster.revision };
    },
    async updateHost({ host: name, labels, spec, updateMask, revision, validateOnly, requestId }, context) {
      const host = cluster.find(cluster.hosts, name, 'host', context);
      cluster.checkRevision(host, revision, context);
      if (validateOnly) return { host };
      return cluster.once(requestId, () => {
        if (host.meta !== undefined && updateMask.includes('labels')) host.meta.labels = labels;
        const fields = updateMask
          .filter((path) => path.startsWith('spec.'))
          .map((path) => path.slice(5) as keyof HostSpec);
        if (spec !== undefined && host.spec !== undefined)
          for (const field of fields) Object.assign(host.spec, { [field]: spec[field] });
        if (host.meta !== undefined) host.meta.revision = cluster.nextRevision();
        return { host };
      });
    },
    async *watchHosts() {
      for (const host of cluster.hosts.values()) yield { change: ChangeKind.PUT, host };
    },
  };
}

function volumeService(cluster: FakeCluster): VolumeServiceImplementation {
  return {
    async getVolume({ volume }, context) {
      return { volume: cluster.find(cluster.volumes, volume, 'volume', context) };
    },
    async listVolumes() {
      return { volumes: [...cluster.volumes.values()], revision: cluster.revision };
    },
    async createVolume({ name, labels, spec, validateOnly, requestId }, context) {
      return cluster.once(requestId, () => {
        cluster.free(cluster.volumes, name, 'volume', context);
        const image =
          spec?.image === undefined || spec.image === ''
            ? ''
            : (cluster.find(cluster.images, spec.image, 'image', context).meta?.id ?? '');
        const sizeBytes = spec?.sizeBytes ?? 0n;
        const volume = Volume.fromPartial({
          meta: cluster.meta('volume', name, labels),
          spec: { sizeBytes, image },
          status: { phase: VolumePhase.READY },
        });
        if (validateOnly) return { volume };
        cluster.volumes.set(name, volume);
        return { volume, operation: cluster.begin('CreateVolume', 'volume', volume, requestId, () => {}) };
      });
    },
    async resizeVolume({ volume: name, sizeBytes, revision, validateOnly, requestId }, context) {
      const volume = cluster.find(cluster.volumes, name, 'volume', context);
      cluster.checkRevision(volume, revision, context);
      if (validateOnly) return {};
      return cluster.once(requestId, () => ({
        operation: cluster.begin('ResizeVolume', 'volume', volume, requestId, () => {
          if (volume.spec !== undefined) volume.spec.sizeBytes = sizeBytes;
        }),
      }));
    },
    async deleteVolume({ volume: name, revision, requestId }, context) {
      const volume = cluster.find(cluster.volumes, name, 'volume', context);
      cluster.checkRevision(volume, revision, context);
      return {
        operation: cluster.begin(
          'DeleteVolume',
          'volume',
          volume,
          requestId,
          () => void cluster.volumes.delete(volume.meta?.name ?? ''),
        ),
      };
    },
    async *watchVolumes() {},
  };
}

function networkService(cluster: FakeCluster): NetworkServiceImplementation {
  return {
    async getNetwork({ network }, context) {
      return { network: cluster.find(cluster.networks, network, 'network', context) };
    },
    async listNetworks() {
      return { networks: [...cluster.networks.values()], revision: cluster.revision };
    },
    async createNetwork({ name, labels, spec, validateOnly, requestId }, context) {
      return cluster.once(requestId, () => {
        cluster.free(cluster.networks, name, 'network', context);
        const network = Network.fromPartial({
          meta: cluster.meta('network', name, labels),
          spec: spec ?? {},
          status: { hosts: ['host1', 'host2'] },
        });
        if (!validateOnly) cluster.networks.set(name, network);
        return { network };
      });
    },
    async updateNetwork({ network: name, labels, revision, validateOnly }, context) {
      const network = cluster.find(cluster.networks, name, 'network', context);
      cluster.checkRevision(network, revision, context);
      if (!validateOnly && network.meta !== undefined)
        Object.assign(network.meta, { labels, revision: cluster.nextRevision() });
      return { network };
    },
    async deleteNetwork({ network: name, revision }, context) {
      const network = cluster.find(cluster.networks, name, 'network', context);
      cluster.checkRevision(network, revision, context);
      cluster.networks.delete(network.meta?.name ?? '');
      return {};
    },
    async *watchNetworks() {},
  };
}

function imageService(cluster: FakeCluster): ImageServiceImplementation {
  return {
    async getImage({ image }, context) {
      return { image: cluster.find(cluster.images, image, 'image', context) };
    },
    async listImages() {
      return { images: [...cluster.images.values()], revision: cluster.revision };
    },
    async *importImage(requests, context) {
      const hash = createHash('sha256');
      let image: Image | undefined;
      let declared = '';
      let doneBytes = 0n;
      for await (const { part } of requests) {
        if (part?.$case === 'header') {
          const { name, labels, spec, validateOnly } = part.value;
          cluster.free(cluster.images, name, 'image', context);
          declared = spec?.sha256 ?? '';
          image = Image.fromPartial({
            meta: cluster.meta('image', name, labels),
            spec: spec ?? {},
            status: { phase: ImagePhase.READY },
          });
          if (validateOnly) return;
        } else if (part?.$case === 'chunk') {
          hash.update(part.value);
          doneBytes += BigInt(part.value.length);
          yield { phase: 'receive', doneBytes };
          await cluster.duringImport?.(doneBytes);
        }
      }
      if (image?.meta === undefined || image.status === undefined)
        throw new ServerError(Status.INVALID_ARGUMENT, 'no header');
      const sha256 = hash.digest('hex');
      if (declared !== '' && declared !== sha256) throw new ServerError(Status.INVALID_ARGUMENT, 'checksum differs');
      Object.assign(image.status, {
        sha256: cluster.corrupt ? '0'.repeat(64) : sha256,
        virtualSizeBytes: doneBytes,
        allocatedBytes: doneBytes,
      });
      cluster.images.set(image.meta.name, image);
      yield { phase: 'seal', doneBytes, image };
    },
    async deleteImage({ image: name, revision, requestId }, context) {
      const image = cluster.find(cluster.images, name, 'image', context);
      cluster.checkRevision(image, revision, context);
      return {
        operation: cluster.begin(
          'DeleteImage',
          'image',
          image,
          requestId,
          () => void cluster.images.delete(image.meta?.name ?? ''),
        ),
      };
    },
    async *watchImages() {},
  };
}

function operationService(cluster: FakeCluster): OperationServiceImplementation {
  const find = (id: string) => {
    const operation = cluster.operations.get(id);
    if (operation === undefined) throw new ServerError(Status.NOT_FOUND, `there is no operation ${id}`);
    return operation;
  };
  return {
    async getOperation({ operation }) {
      return { operation: find(operation) };
    },
    async listOperations({ activeOnly, targetId }) {
      const wanted = [...cluster.operations.values()].filter(
        (operation) =>
          (!activeOnly || operation.endTime === undefined) && (targetId === '' || operation.target?.id === targetId),
      );
      return { operations: wanted.reverse() };
    },
    async waitOperation({ operation: id, timeoutMs }) {
      const operation = find(id);
      if (cluster.hold) await new Promise((done) => setTimeout(done, Math.min(timeoutMs, 100)));
      cluster.advance(operation);
      return { operation };
    },
    async cancelOperation({ operation: id }, context) {
      const operation = find(id);
      if (operation.endTime !== undefined) {
        refuse(context, Status.FAILED_PRECONDITION, {
          reason: 'OPERATION_ENDED',
          message: `operation ${id} has ended already`,
          hint: 'to take back what it did, ask for the opposite',
        });
      }
      operation.cancelRequested = true;
      cluster.touch(operation);
      return { operation };
    },
    async *watchOperations({ revision, operation: only }, context) {
      const subscription = on(changes, 'operation', { signal: context.signal });
      const mine = [...cluster.operations.values()].filter(({ id }) => only === '' || id === only);
      for (const operation of mine) if (operation.revision > revision) yield { change: ChangeKind.PUT, operation };
      yield { change: ChangeKind.PROGRESS, progress: { revision: cluster.revision } };
      for await (const [source, operation] of subscription) {
        if (source !== cluster || (only !== '' && operation.id !== only)) continue;
        yield { change: ChangeKind.PUT, operation, progress: { revision: operation.revision } };
      }
    },
  };
}
