// SPDX-License-Identifier: Apache-2.0
import type { VmId } from '@busbar/core/ids';
import type { DesiredVm } from '@busbar/proto/gen/busbar/agent/v1/agent';

/** What a plan asks to be done; the epoch is the one it was decided for. */
export type Action =
  | { readonly kind: 'start'; readonly vmId: VmId; readonly epoch: bigint; readonly vm: DesiredVm }
  | { readonly kind: 'destroy'; readonly vmId: VmId; readonly epoch: bigint; readonly why: string }
  | { readonly kind: 'press'; readonly vmId: VmId; readonly epoch: bigint }
  | {
      readonly kind: 'grow';
      readonly vmId: VmId;
      readonly epoch: bigint;
      readonly disk: { readonly volumeId: string; readonly sizeBytes: bigint };
    };
