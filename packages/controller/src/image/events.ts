// SPDX-License-Identifier: Apache-2.0
import type { ImageRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { ImagePhase } from '@busbar/proto/gen/busbar/v1/image';
import { type EventDraft, info } from '../event/draft.ts';

export function imageEvents(before: ImageRecord | undefined, after: ImageRecord | undefined): readonly EventDraft[] {
  const [from, to] = [before?.status?.phase, after?.status?.phase];
  if (from === ImagePhase.IMPORTING && to === ImagePhase.READY)
    return [info('IMAGE_READY', `is ready, ${after?.status?.virtualSizeBytes ?? 0n} bytes as a disk`)];
  // An import that was broken off leaves nothing that anybody had.
  return from === ImagePhase.DELETING && after === undefined ? [info('IMAGE_DELETED', 'was deleted')] : [];
}
