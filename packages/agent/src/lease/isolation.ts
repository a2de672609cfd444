// SPDX-License-Identifier: Apache-2.0
import type { VmId } from '@busbar/core/ids';
import { IsolationPolicy } from '@busbar/proto/gen/busbar/v1/vm';

/** A domain on this host as far as isolation cares. */
export interface IsolationSubject {
  readonly vmId: VmId;
  readonly policy: IsolationPolicy;
  readonly linksUp: boolean;
}

export type IsolationAction =
  | { readonly kind: 'cut-links'; readonly vmId: VmId }
  | { readonly kind: 'raise-links'; readonly vmId: VmId }
  | { readonly kind: 'stop'; readonly vmId: VmId };

/**
 * What a lease that ended, or came back, asks to be done with the domains of this host. Pure; the
 * agent calls it on every change of the lease and, without one, for every domain that turns up (a
 * start may have been under way). An unknown policy is treated as isolate: the guest lives, and
 * whoever took its place is not disturbed.
 */
export function onLease(held: boolean, subjects: readonly IsolationSubject[]): readonly IsolationAction[] {
  const actions: IsolationAction[] = [];
  for (const { vmId, policy, linksUp } of subjects) {
    if (held) {
      if (!linksUp) actions.push({ kind: 'raise-links', vmId });
    } else if (policy === IsolationPolicy.STOP) {
      actions.push({ kind: 'stop', vmId });
    } else if (policy !== IsolationPolicy.KEEP_RUNNING && linksUp) {
      actions.push({ kind: 'cut-links', vmId });
    }
  }
  return actions;
}
