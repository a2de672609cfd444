// SPDX-License-Identifier: Apache-2.0
import type { NetworkRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { type EventDraft, info } from '../event/draft.ts';

/** A network is made and gone in the API call itself. */
export function networkEvents(
  before: NetworkRecord | undefined,
  after: NetworkRecord | undefined,
): readonly EventDraft[] {
  if (before === undefined) return after === undefined ? [] : [info('NETWORK_CREATED', 'was created')];
  return after === undefined ? [info('NETWORK_DELETED', 'was deleted')] : [];
}
