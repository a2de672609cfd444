// SPDX-License-Identifier: Apache-2.0
import type { VmId } from '@busbar/core/ids';
import { IsolationPolicy } from '@busbar/proto/gen/busbar/v1/vm';
import { expect, it } from 'vitest';
import { onLease } from './isolation.ts';

const vm = (policy: IsolationPolicy, linksUp = true) => ({ vmId: policy as string as VmId, policy, linksUp });
const { ISOLATE, STOP, KEEP_RUNNING, UNSPECIFIED } = IsolationPolicy;

it('does to each domain what its policy says, and does it once', () => {
  expect(onLease(false, [vm(ISOLATE), vm(STOP), vm(KEEP_RUNNING), vm(UNSPECIFIED)])).toEqual([
    { kind: 'cut-links', vmId: ISOLATE },
    { kind: 'stop', vmId: STOP },
    { kind: 'cut-links', vmId: UNSPECIFIED },
  ]);
  expect(onLease(false, [vm(ISOLATE, false)])).toEqual([]);
});

it('raises the links that were cut when the lease is back', () => {
  expect(onLease(true, [vm(ISOLATE, false), vm(ISOLATE)])).toEqual([{ kind: 'raise-links', vmId: ISOLATE }]);
});
