// SPDX-License-Identifier: Apache-2.0
import { AuditServiceDefinition } from '@busbar/proto/gen/busbar/v1/audit';
import { CertificateServiceDefinition } from '@busbar/proto/gen/busbar/v1/certificate';
import { ClusterServiceDefinition } from '@busbar/proto/gen/busbar/v1/cluster';
import { EventServiceDefinition } from '@busbar/proto/gen/busbar/v1/event';
import { HostServiceDefinition } from '@busbar/proto/gen/busbar/v1/host';
import { ImageServiceDefinition } from '@busbar/proto/gen/busbar/v1/image';
import { JoinServiceDefinition, JoinTokenServiceDefinition } from '@busbar/proto/gen/busbar/v1/join';
import { NetworkServiceDefinition } from '@busbar/proto/gen/busbar/v1/network';
import { OperationServiceDefinition } from '@busbar/proto/gen/busbar/v1/operation';
import { VmServiceDefinition } from '@busbar/proto/gen/busbar/v1/vm';
import { VolumeServiceDefinition } from '@busbar/proto/gen/busbar/v1/volume';
import { auditService } from '../audit/rpc.ts';
import { certificateService } from '../certificate/rpc.ts';
import { clusterService } from '../cluster/rpc.ts';
import { eventService } from '../event/rpc.ts';
import { hostService } from '../host/rpc.ts';
import { imageService } from '../image/rpc.ts';
import { joinService, joinTokenService } from '../join/rpc.ts';
import { networkService } from '../network/rpc.ts';
import { operationService } from '../operation/rpc.ts';
import { vmService } from '../vm/rpc.ts';
import { volumeService } from '../volume/rpc.ts';
import type { Api } from './call.ts';
import type { AnyMethod } from './pipeline.ts';
import { type PlaceKind, takePlace } from './places.ts';
import type { Service, ServiceDefinition } from './service.ts';

export interface BoundService {
  readonly definition: ServiceDefinition;
  readonly methods: Readonly<Record<string, AnyMethod>>;
}

/** A method as its service has it. */
interface Declared extends Omit<AnyMethod, 'enter'> {
  readonly place?: PlaceKind;
}

/** The public API, complete: a service that is not here does not exist. */
export function publicServices(api: Api): readonly BoundService[] {
  function bind<D extends ServiceDefinition>(definition: D, methods: Service<D>): BoundService {
    const entries = Object.entries(methods as unknown as Readonly<Record<string, Declared>>);
    return { definition, methods: Object.fromEntries(entries.map(([key, method]) => [key, entered(method)])) };
  }
  const entered = ({ place, ...method }: Declared): AnyMethod => ({
    ...method,
    enter: place === undefined ? () => null : (caller) => takePlace(api.places, place, caller),
  });
  return [
    bind(ClusterServiceDefinition, clusterService(api)),
    bind(HostServiceDefinition, hostService(api)),
    bind(VmServiceDefinition, vmService(api)),
    bind(ImageServiceDefinition, imageService(api)),
    bind(VolumeServiceDefinition, volumeService(api)),
    bind(NetworkServiceDefinition, networkService(api)),
    bind(OperationServiceDefinition, operationService(api)),
    bind(EventServiceDefinition, eventService(api)),
    bind(AuditServiceDefinition, auditService(api)),
    bind(CertificateServiceDefinition, certificateService(api)),
    bind(JoinTokenServiceDefinition, joinTokenService(api)),
    bind(JoinServiceDefinition, joinService(api)),
  ];
}
