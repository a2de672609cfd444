// SPDX-License-Identifier: Apache-2.0
import type { VolumeRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { VolumePhase } from '@busbar/proto/gen/busbar/v1/volume';
import { type EventDraft, info } from '../event/draft.ts';

/** Of volumes on their own: those that come and go with a VM are told by the VM's events. */
export function volumeEvents(before: VolumeRecord | undefined, after: VolumeRecord | undefined): readonly EventDraft[] {
  if (before === undefined) return [];
  if (after === undefined)
    return before.phase === VolumePhase.DELETING && before.ownerVmId === ''
      ? [info('VOLUME_DELETED', 'was deleted')]
      : [];
  if (before.phase === VolumePhase.CREATING && after.phase === VolumePhase.READY)
    return after.ownerVmId === '' ? [info('VOLUME_READY', `is ready, ${after.spec?.sizeBytes ?? 0n} bytes`)] : [];
  const [was, is] = [before.spec?.sizeBytes ?? 0n, after.spec?.sizeBytes ?? 0n];
  return is > was && before.phase === VolumePhase.READY
    ? [info('VOLUME_GROWN', `grew from ${was} to ${is} bytes`)]
    : [];
}
