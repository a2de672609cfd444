// SPDX-License-Identifier: Apache-2.0
// One case of each call that changes something, for tests of what holds for all of them.

import { createRequest } from '@busbar/pki/csr';
import { parseJoinToken } from '@busbar/pki/join-token';
import { StoreRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import {
  CertificatePurpose,
  ClientRole,
  IssueCertificateRequest,
  RenewCertificateRequest,
  RevokeCertificateRequest,
} from '@busbar/proto/gen/busbar/v1/certificate';
import { AdoptClusterRequest } from '@busbar/proto/gen/busbar/v1/cluster';
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import { ImageFormat, ImportImageRequest } from '@busbar/proto/gen/busbar/v1/image';
import { CreateJoinTokenRequest, DeleteJoinTokenRequest } from '@busbar/proto/gen/busbar/v1/join';
import { CreateNetworkRequest } from '@busbar/proto/gen/busbar/v1/network';
import { CreateVmRequest, RunPolicy, UpdateVmRequest } from '@busbar/proto/gen/busbar/v1/vm';
import { CreateVolumeRequest } from '@busbar/proto/gen/busbar/v1/volume';
import { HISTORY_ID } from '../cluster/behind.ts';
import { NEW_HOST_SPEC } from '../host/spec.ts';
import { putRecord } from '../records/kinds.ts';
import { testCaller } from '../testing/callers.ts';
import type { FoundedRig } from '../testing/founded-rig.ts';
import type { Rig } from '../testing/rig.ts';

const MIB = 1024n ** 2n;

export const flags = { validateOnly: false, requestId: '', revision: 0n };
export const network = (name: string, more: object = {}) =>
  CreateNetworkRequest.fromPartial({ name, spec: { kind: BridgeKind.LINUX, bridge: 'br-vm' }, ...more });
export const volume = (name: string) => CreateVolumeRequest.fromPartial({ name, spec: { sizeBytes: MIB } });
export const vm = (name: string, runPolicy: RunPolicy = RunPolicy.STOPPED) =>
  CreateVmRequest.fromPartial({ name, spec: { runPolicy, cpu: { vcpus: 1 }, memoryBytes: 64n * MIB } });

export async function stream(
  rig: Rig,
  service: string,
  method: string,
  requests: readonly unknown[],
  limitMs = 200_000,
): Promise<void> {
  const bound = rig.services.find((each) => each.definition.name === service);
  const [rpc, handler] = [bound?.definition.methods[method], bound?.methods[method]];
  if (bound === undefined || rpc === undefined || handler === undefined) throw new Error(`no ${method}`);
  async function* sending() {
    yield* requests;
  }
  const run = rig.gate().stream(bound.definition.fullName, rpc, handler);
  const answers = run(sending(), testCaller(), new AbortController().signal);
  const drain = async () => {
    for await (const _ of answers);
  };
  await rig.run(drain(), limitMs);
}

export const importing = (name: string, more: object = {}) => [
  ImportImageRequest.fromPartial({
    part: { $case: 'header', value: { name, spec: { format: ImageFormat.RAW, fileSizeBytes: 512n }, ...more } },
  }),
  ImportImageRequest.fromPartial({ part: { $case: 'chunk', value: Buffer.alloc(512, 1) } }),
];

export interface Case {
  readonly before?: () => Promise<unknown>;
  readonly call: () => Promise<unknown>;
  readonly target: object;
  /** client/test, an admin, unless it is another. */
  readonly caller?: RegExp;
  readonly role?: string;
}
/** By the name of the RPC. The rig that `at` names when a case runs is the one it runs on. */
export function mutations(at: { founded: FoundedRig }): Readonly<Record<string, Case>> {
  const rig = (): Rig => at.founded.rig;
  let token = '';
  const running = async () => {
    await rig().call('VmService', 'createVm', vm('relay', RunPolicy.RUNNING));
    await rig().finish();
  };
  const stopped = async () => {
    await rig().call('VmService', 'createVm', vm('relay'));
    await rig().finish();
  };
  const oneVolume = async () => {
    await rig().call('VolumeService', 'createVolume', volume('data'));
    await rig().finish();
  };
  const onVm =
    (method: string, more: object = {}) =>
    () =>
      rig().call('VmService', method, { vm: 'relay', force: false, timeoutMs: 0, ...flags, ...more });
  const relay = { kind: 'vm', name: 'relay' };

  return {
    'HostService/UpdateHost': {
      call: () =>
        rig().call('HostService', 'updateHost', {
          host: 'host1',
          labels: {},
          spec: { ...NEW_HOST_SPEC, unschedulable: true },
          updateMask: [],
          ...flags,
        }),
      target: { kind: 'host', id: 'host1' },
    },
    'ClusterService/AdoptCluster': {
      before: async () => {
        const record = StoreRecord.fromPartial({ behindSince: new Date(0), signs: ['a test says so'] });
        const writes = [putRecord('store', HISTORY_ID, record)];
        await rig().run(rig().api.store.txn({ compare: [], writes }));
      },
      call: () => {
        const withoutHosts = rig().view.tables.host.ids();
        const request = AdoptClusterRequest.fromPartial({ withoutHosts: [...withoutHosts] });
        return rig().call('ClusterService', 'adoptCluster', request);
      },
      target: { kind: 'store', id: HISTORY_ID, name: 'cluster' },
    },
    'VmService/CreateVm': { call: () => rig().call('VmService', 'createVm', vm('relay')), target: relay },
    'VmService/UpdateVm': {
      before: stopped,
      call: () =>
        rig().call('VmService', 'updateVm', UpdateVmRequest.fromPartial({ vm: 'relay', updateMask: ['labels'] })),
      target: relay,
    },
    'VmService/DeleteVm': { before: stopped, call: onVm('deleteVm'), target: relay },
    'VmService/StartVm': { before: stopped, call: onVm('startVm'), target: relay },
    'VmService/StopVm': { before: running, call: onVm('stopVm'), target: relay },
    'VmService/RestartVm': { before: running, call: onVm('restartVm'), target: relay },
    'ImageService/ImportImage': {
      call: () => stream(rig(), 'ImageService', 'importImage', importing('debian')),
      target: { kind: 'image', name: 'debian' },
    },
    'ImageService/DeleteImage': {
      before: () => stream(rig(), 'ImageService', 'importImage', importing('debian')),
      call: () => rig().call('ImageService', 'deleteImage', { image: 'debian', ...flags }),
      target: { kind: 'image', name: 'debian' },
    },
    'VolumeService/CreateVolume': {
      call: () => rig().call('VolumeService', 'createVolume', volume('data')),
      target: { kind: 'volume', name: 'data' },
    },
    'VolumeService/ResizeVolume': {
      before: oneVolume,
      call: () => rig().call('VolumeService', 'resizeVolume', { volume: 'data', sizeBytes: 2n * MIB, ...flags }),
      target: { kind: 'volume', name: 'data' },
    },
    'VolumeService/DeleteVolume': {
      before: oneVolume,
      call: () => rig().call('VolumeService', 'deleteVolume', { volume: 'data', ...flags }),
      target: { kind: 'volume', name: 'data' },
    },
    'NetworkService/CreateNetwork': {
      call: () => rig().call('NetworkService', 'createNetwork', network('plant')),
      target: { kind: 'network', name: 'plant' },
    },
    'NetworkService/UpdateNetwork': {
      before: () => rig().call('NetworkService', 'createNetwork', network('plant')),
      call: () => rig().call('NetworkService', 'updateNetwork', { network: 'plant', labels: { a: '1' }, ...flags }),
      target: { kind: 'network', name: 'plant' },
    },
    'NetworkService/DeleteNetwork': {
      before: () => rig().call('NetworkService', 'createNetwork', network('plant')),
      call: () => rig().call('NetworkService', 'deleteNetwork', { network: 'plant', ...flags }),
      target: { kind: 'network', name: 'plant' },
    },
    'OperationService/CancelOperation': {
      before: () => rig().call('VolumeService', 'createVolume', volume('data')),
      call: () => {
        const [entry] = rig().view.tables.operation.sorted();
        return rig().call('OperationService', 'cancelOperation', { operation: entry?.id });
      },
      target: { kind: 'operation' },
    },
    'CertificateService/IssueCertificate': {
      call: async () => {
        const { csrPem } = await createRequest('x');
        const request = { csrPem, client: 'anna', role: ClientRole.VIEWER };
        await rig().call('CertificateService', 'issueCertificate', IssueCertificateRequest.fromPartial(request));
      },
      target: { kind: 'certificate' },
    },
    'CertificateService/RenewCertificate': {
      call: async () => {
        const { csrPem } = await createRequest('x');
        await rig().call(
          'CertificateService',
          'renewCertificate',
          RenewCertificateRequest.fromPartial({ csrPem }),
          at.founded.admin,
        );
      },
      target: { kind: 'certificate' },
      caller: /^client\/admin$/,
    },
    'CertificateService/RevokeCertificate': {
      call: () => {
        const serial = at.founded.admin.certificate?.serial ?? '';
        const request = RevokeCertificateRequest.fromPartial({ serial, reason: 'lost' });
        return rig().call('CertificateService', 'revokeCertificate', request);
      },
      target: { kind: 'certificate' },
    },
    'JoinTokenService/CreateJoinToken': {
      call: () =>
        rig().call(
          'JoinTokenService',
          'createJoinToken',
          CreateJoinTokenRequest.fromPartial({ host: 'host2', addresses: ['10.0.0.2'] }),
        ),
      target: { kind: 'join-token' },
    },
    'JoinTokenService/DeleteJoinToken': {
      before: () =>
        rig().call(
          'JoinTokenService',
          'createJoinToken',
          CreateJoinTokenRequest.fromPartial({ host: 'host2', addresses: ['10.0.0.2'] }),
        ),
      call: () => {
        const [entry] = rig().view.tables['join-token'].sorted();
        return rig().call(
          'JoinTokenService',
          'deleteJoinToken',
          DeleteJoinTokenRequest.fromPartial({ id: entry?.id ?? '' }),
        );
      },
      target: { kind: 'join-token' },
    },
    'JoinService/Join': {
      before: async () => {
        const request = CreateJoinTokenRequest.fromPartial({ host: 'host2', addresses: ['10.0.0.2'] });
        token = (await rig().call<{ text: string }>('JoinTokenService', 'createJoinToken', request)).text;
      },
      call: async () => {
        const { id: tokenId, secret } = parseJoinToken(token);
        const purposes = [CertificatePurpose.AGENT, CertificatePurpose.NATS];
        const csrs = await Promise.all(
          purposes.map(async (purpose) => ({ purpose, csrPem: (await createRequest('x')).csrPem })),
        );
        await rig().call('JoinService', 'join', { tokenId, secret, addresses: ['10.0.0.2'], csrs }, null);
      },
      target: { kind: 'join-token' },
      caller: /^join-token\/[-0-9a-f]{36}$/,
      role: '',
    },
  };
}
