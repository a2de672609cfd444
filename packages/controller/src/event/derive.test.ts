// SPDX-License-Identifier: Apache-2.0
import {
  HostRecord,
  HostStatusRecord,
  ImageRecord,
  NetworkRecord,
  OperationRecord,
  VmStatusRecord,
  VolumeRecord,
} from '@busbar/proto/gen/busbar/store/v1/store';
import { EventSeverity } from '@busbar/proto/gen/busbar/v1/event';
import { HostState } from '@busbar/proto/gen/busbar/v1/host';
import { ImagePhase } from '@busbar/proto/gen/busbar/v1/image';
import { OperationState } from '@busbar/proto/gen/busbar/v1/operation';
import { VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import { VolumePhase } from '@busbar/proto/gen/busbar/v1/volume';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Kind, RecordOf } from '../records/kinds.ts';
import { type LiveVmPhase, VM_PHASES } from '../vm/state.ts';
import { eventsOf } from './derive.ts';

const of = <K extends Kind>(kind: K, before: RecordOf<K> | undefined, after: RecordOf<K> | undefined) =>
  eventsOf(kind, 'id-1', before, after, () => 'relay');
const told = <K extends Kind>(kind: K, before: RecordOf<K> | undefined, after: RecordOf<K> | undefined) =>
  of(kind, before, after).map(({ severity, reason }) => `${severity.slice(15).toLowerCase()} ${reason}`);

const vm = (phase: VmPhase, more: object = {}) =>
  VmStatusRecord.fromPartial({ phase, host: 'host1', epoch: 3n, message: 'why', ...more });
const P = VmPhase;

describe('events of a VM', () => {
  it.each<[VmPhase, VmPhase, string[]]>([
    [P.CREATING, P.STOPPED, ['info VM_CREATED']],
    [P.STOPPED, P.STARTING, ['info VM_STARTING']],
    [P.STOPPED, P.PENDING, ['warning VM_WAITING']],
    [P.PENDING, P.STOPPED, []],
    [P.STARTING, P.RUNNING, ['info VM_STARTED']],
    [P.STARTING, P.STOPPED, ['error VM_START_FAILED']],
    [P.RUNNING, P.STOPPED, ['warning VM_ENDED']],
    [P.RUNNING, P.STOPPING, ['info VM_STOPPING']],
    [P.STOPPING, P.STOPPED, ['info VM_STOPPED']],
    [P.RUNNING, P.PAUSED, ['error VM_PAUSED']],
    [P.PAUSED, P.RUNNING, ['info VM_RESUMED']],
    [P.RUNNING, P.UNKNOWN, ['error VM_UNKNOWN']],
    [P.UNKNOWN, P.RUNNING, ['info VM_RESUMED']],
    [P.UNKNOWN, P.STOPPED, ['warning VM_ENDED']],
    [P.STOPPED, P.DELETING, ['info VM_DELETING']],
    [P.RUNNING, P.RUNNING, []],
  ])('%s to %s: %j', (from, to, expected) => {
    expect(told('vm-status', vm(from), vm(to))).toEqual(expected);
  });

  it('every step of the state table is told once at most, and storable', () => {
    for (const [from, tos] of Object.entries(VM_PHASES) as [LiveVmPhase, readonly LiveVmPhase[]][])
      for (const to of tos) {
        const events = of('vm-status', vm(from), vm(to, { message: '\ud800'.repeat(3_000) }));
        expect(events.length).toBeLessThanOrEqual(1);
        for (const event of events) expect(event.message.length).toBeLessThanOrEqual(500);
      }
  });

  it('tell when it does not have what was decided, and when it has it again', () => {
    const drifted = { placementDrift: 'vCPU 0 on CPUs 0-7 instead of 5' };
    const [event] = of('vm-status', vm(P.RUNNING), vm(P.RUNNING, drifted));
    expect(event).toMatchObject({
      reason: 'VM_PLACEMENT_DRIFT',
      message: 'does not have what was decided: vCPU 0 on CPUs 0-7 instead of 5',
      attributes: { host: 'host1', epoch: '3' },
    });
    expect(told('vm-status', vm(P.STARTING), vm(P.RUNNING, drifted))).toEqual([
      'info VM_STARTED',
      'error VM_PLACEMENT_DRIFT',
    ]);
    expect(told('vm-status', vm(P.RUNNING, drifted), vm(P.RUNNING, drifted))).toEqual([]);
    expect(told('vm-status', vm(P.RUNNING, drifted), vm(P.RUNNING))).toEqual(['info VM_PLACEMENT_RESTORED']);
    // Whoever starts it anew has other news.
    expect(told('vm-status', vm(P.RUNNING, drifted), vm(P.STOPPED, { host: '' }))).toEqual(['warning VM_ENDED']);
  });

  it('name the VM, its host and epoch, also when the host is gone from the record', () => {
    const [event] = of('vm-status', vm(P.RUNNING), vm(P.STOPPED, { host: '' }));
    expect(event).toMatchObject({
      subject: { kind: 'vm', id: 'id-1', name: 'relay' },
      message: 'ended by itself: why',
      attributes: { from: 'running', host: 'host1', epoch: '3' },
    });
  });

  it('its end is a deletion, or nothing', () => {
    expect(told('vm-status', vm(P.DELETING), undefined)).toEqual(['info VM_DELETED']);
    expect(told('vm-status', vm(P.CREATING), undefined)).toEqual([]);
    expect(told('vm-status', undefined, vm(P.CREATING))).toEqual([]);
  });
});

describe('events of the other nouns', () => {
  const host = (unschedulable: boolean) => HostRecord.fromPartial({ meta: { name: 'host1' }, spec: { unschedulable } });
  const status = (state: HostState, bootId = 'b1') => HostStatusRecord.fromPartial({ state, bootId, message: 'm' });
  const operation = (state: OperationState) =>
    OperationRecord.fromPartial({
      operation: {
        id: 'op',
        method: 'StartVm',
        state,
        target: { kind: 'vm', id: 'v', name: 'relay' },
        error: { reason: 'R' },
      },
    });
  const image = (phase: ImagePhase) => ImageRecord.fromPartial({ meta: { name: 'i' }, status: { phase } });
  const volume = (phase: VolumePhase, sizeBytes: bigint, ownerVmId = '') =>
    VolumeRecord.fromPartial({ meta: { name: 'v' }, phase, spec: { sizeBytes }, ownerVmId });
  const network = NetworkRecord.fromPartial({ meta: { name: 'plant' } });
  const { READY, CREATING, DELETING } = VolumePhase;

  it.each<[string, string[], string[]]>([
    ['a host joins', told('host', undefined, host(false)), ['info HOST_JOINED']],
    ['is closed', told('host', host(false), host(true)), ['info HOST_UNSCHEDULABLE']],
    ['is opened', told('host', host(true), host(false)), ['info HOST_SCHEDULABLE']],
    ['is labelled', told('host', host(true), host(true)), []],
    ['becomes ready', told('host-status', undefined, status(HostState.READY)), ['info HOST_READY']],
    ['degraded', told('host-status', status(HostState.READY), status(HostState.DEGRADED)), ['warning HOST_DEGRADED']],
    ['lost', told('host-status', status(HostState.READY), status(HostState.UNREACHABLE)), ['error HOST_UNREACHABLE']],
    [
      'back after a boot',
      told('host-status', status(HostState.UNREACHABLE), status(HostState.READY, 'b2')),
      ['warning HOST_REBOOTED', 'info HOST_READY'],
    ],
    ['its inventory changes', told('host-status', status(HostState.READY), status(HostState.READY)), []],
    ['an operation begins', told('operation', undefined, operation(OperationState.PENDING)), []],
    [
      'succeeds',
      told('operation', operation(OperationState.RUNNING), operation(OperationState.SUCCEEDED)),
      ['info OPERATION_SUCCEEDED'],
    ],
    [
      'fails',
      told('operation', operation(OperationState.UNDOING), operation(OperationState.FAILED)),
      ['error OPERATION_FAILED'],
    ],
    [
      'is cancelled',
      told('operation', operation(OperationState.RUNNING), operation(OperationState.CANCELLED)),
      ['warning OPERATION_CANCELLED'],
    ],
    ['is forgotten', told('operation', operation(OperationState.SUCCEEDED), undefined), []],
    ['an image is ready', told('image', image(ImagePhase.IMPORTING), image(ImagePhase.READY)), ['info IMAGE_READY']],
    ['is deleted', told('image', image(ImagePhase.DELETING), undefined), ['info IMAGE_DELETED']],
    ['its import is broken off', told('image', image(ImagePhase.IMPORTING), undefined), []],
    ['a volume is ready', told('volume', volume(CREATING, 1n), volume(READY, 1n)), ['info VOLUME_READY']],
    ['of a VM', told('volume', volume(CREATING, 1n, 'vm'), volume(READY, 1n, 'vm')), []],
    ['grows', told('volume', volume(READY, 1n), volume(READY, 2n)), ['info VOLUME_GROWN']],
    ['is deleted', told('volume', volume(DELETING, 1n), undefined), ['info VOLUME_DELETED']],
    ['a network is made', told('network', undefined, network), ['info NETWORK_CREATED']],
    ['and gone', told('network', network, undefined), ['info NETWORK_DELETED']],
    ['and labelled', told('network', network, network), []],
  ])('%s', (_what, events, expected) => {
    expect(events).toEqual(expected);
  });

  it('an operation is told of what it works on', () => {
    const [event] = of('operation', operation(OperationState.RUNNING), operation(OperationState.FAILED));
    expect(event).toMatchObject({
      severity: EventSeverity.ERROR,
      subject: { kind: 'vm', id: 'v', name: 'relay' },
      attributes: { operation: 'op', method: 'StartVm', error: 'R' },
    });
  });

  it('whatever a newer version stored, nothing fails', () => {
    const odd = fc.constantFrom(undefined, 'UNRECOGNIZED', 'VM_PHASE_NEW');
    fc.assert(
      fc.property(odd, odd, (a, b) => {
        const record = (phase: unknown) => (phase === undefined ? undefined : vm(phase as VmPhase));
        expect(of('vm-status', record(a), record(b))).toEqual([]);
      }),
    );
  });
});
