// SPDX-License-Identifier: Apache-2.0
/** Reads and calls of each kind that `apply` takes. */

import { unreachable } from '@busbar/core/assert';
import type { ResourceMeta } from '@busbar/proto/gen/busbar/v1/common';
import { NetworkServiceDefinition, type NetworkSpec } from '@busbar/proto/gen/busbar/v1/network';
import type { Operation } from '@busbar/proto/gen/busbar/v1/operation';
import { type DeepPartial, VmServiceDefinition, type VmSpec } from '@busbar/proto/gen/busbar/v1/vm';
import { VolumeServiceDefinition, type VolumeSpec } from '@busbar/proto/gen/busbar/v1/volume';
import { Status } from 'nice-grpc';
import type { Api } from '../api/api.ts';
import { RpcError } from '../api/rpc-error.ts';
import { images } from '../image/resource.ts';
import type { Kind } from '../manifest/kinds.ts';
import type { Manifest } from '../manifest/parse.ts';
import { networks } from '../network/resource.ts';
import { vms } from '../vm/resource.ts';
import { volumes } from '../volume/resource.ts';
import type { RefKind } from './compare.ts';
import type { Existing, Step } from './plan.ts';

/** VMs need networks and volumes, so these come first whatever the order in the file. */
export const STAGES: readonly Kind[] = ['Network', 'Volume', 'Vm'];

export async function readExisting(api: Api, kind: Kind, name: string): Promise<Existing | undefined> {
  const resource = { Vm: vms, Volume: volumes, Network: networks }[kind];
  try {
    return await resource.get(api, name);
  } catch (error) {
    if (error instanceof RpcError && error.code === Status.NOT_FOUND) return undefined;
    throw error;
  }
}

export async function readId(api: Api, kind: RefKind, name: string): Promise<string | undefined> {
  return (await readMeta(api, kind, name))?.id;
}

/** The name behind an id. */
export async function readName(api: Api, kind: RefKind, id: string): Promise<string | undefined> {
  return (await readMeta(api, kind, id))?.name;
}

async function readMeta(api: Api, kind: RefKind, reference: string): Promise<ResourceMeta | undefined> {
  const resource = { image: images, volume: volumes, network: networks }[kind];
  try {
    return (await resource.get(api, reference)).meta;
  } catch (error) {
    if (error instanceof RpcError && error.code === Status.NOT_FOUND) return undefined;
    throw error;
  }
}

export interface StepCall {
  readonly manifest: Manifest;
  readonly step: Step;
  /** Of what the plan was made from; 0 when it does not exist yet. */
  readonly revision: bigint;
  readonly validateOnly: boolean;
  readonly requestId: string;
}

export interface StepResult {
  readonly operation?: Operation | undefined;
  readonly restartNeeded?: boolean;
}

export async function callStep(api: Api, call: StepCall): Promise<StepResult> {
  const { manifest, step, revision, validateOnly, requestId } = call;
  const { name } = manifest;
  const common = { validateOnly, requestId };
  const creation = { ...common, name, labels: { ...manifest.labels } };
  switch (step.type) {
    case 'create':
      switch (manifest.kind) {
        case 'Vm': {
          const spec = manifest.spec as DeepPartial<VmSpec>;
          return api.call(VmServiceDefinition, (client, options) => client.createVm({ ...creation, spec }, options));
        }
        case 'Volume': {
          const spec = manifest.spec as DeepPartial<VolumeSpec>;
          return api.call(VolumeServiceDefinition, (client, options) =>
            client.createVolume({ ...creation, spec }, options),
          );
        }
        case 'Network': {
          const spec = manifest.spec as DeepPartial<NetworkSpec>;
          await api.call(NetworkServiceDefinition, (client, options) =>
            client.createNetwork({ ...creation, spec }, options),
          );
          return {};
        }
        default:
          return unreachable(manifest.kind);
      }
    case 'update': {
      const labels = step.labels;
      if (manifest.kind === 'Network') {
        await api.call(NetworkServiceDefinition, (client, options) =>
          client.updateNetwork({ ...common, network: name, labels, revision }, options),
        );
        return {};
      }
      const request = {
        ...common,
        vm: name,
        labels,
        spec: step.spec as DeepPartial<VmSpec>,
        updateMask: [...step.mask],
        revision,
      };
      const { vm } = await api.call(VmServiceDefinition, (client, options) => client.updateVm(request, options));
      return { restartNeeded: vm?.status?.restartNeeded === true };
    }
    case 'start':
      return api.call(VmServiceDefinition, (client, options) => client.startVm({ ...common, vm: name }, options));
    case 'stop':
      return api.call(VmServiceDefinition, (client, options) => client.stopVm({ ...common, vm: name }, options));
    case 'resize':
      return api.call(VolumeServiceDefinition, (client, options) =>
        client.resizeVolume({ ...common, volume: name, sizeBytes: step.sizeBytes, revision }, options),
      );
    default:
      return unreachable(step);
  }
}
