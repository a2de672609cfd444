// SPDX-License-Identifier: Apache-2.0
import { ok, refuse } from '@busbar/core/result';
import { mayMove } from '@busbar/core/state-table';
import { type DomainReport, DomainState, EndReason } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { VmRecord, VmStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { HostInventory } from '@busbar/proto/gen/busbar/v1/host';
import { ObservedPlacement, Placement, RunPolicy, VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { planVm, restartDelayMs, shallStop, type VmObservation } from './plan.ts';
import { type LiveVmPhase, ON_HOST, VM_PHASES } from './state.ts';

/** The reconciler's plan: every phase × what the host says × what the user wants, and what no sequence may ever do. */
const EPOCH = 7n;
const PLACED = Placement.fromPartial({ host: 'host2', cells: [{ vcpus: 1, cpus: [3], memoryBytes: 1024n ** 3n }] });
const NOW = new Date('2030-01-01T00:00:00Z');

type Wish = 'run' | 'stop' | 'restart' | 'delete';
const WISHES: readonly Wish[] = ['run', 'stop', 'restart', 'delete'];

function vmOf(wish: Wish): VmRecord {
  return VmRecord.fromPartial({
    meta: { id: 'v', name: 'relay', deleting: wish === 'delete' },
    spec: { runPolicy: wish === 'stop' ? RunPolicy.STOPPED : RunPolicy.RUNNING },
  });
}

function statusOf(phase: VmPhase, wish: Wish, more: Partial<VmStatusRecord> = {}): VmStatusRecord {
  const onHost = ON_HOST.has(phase);
  return VmStatusRecord.fromPartial({
    phase,
    host: onHost ? 'host1' : '',
    bootId: onHost ? 'b1' : '',
    epoch: EPOCH,
    restartEpoch: wish === 'restart' && onHost ? EPOCH : 0n,
    ...(phase === VmPhase.RUNNING ? { startTime: NOW } : {}),
    ...more,
  } as Parameters<typeof VmStatusRecord.fromPartial>[0]);
}

function domainOf(state: DomainState, more: Partial<DomainReport> = {}): DomainReport {
  return {
    vmId: 'v',
    epoch: EPOCH,
    state,
    endReason: EndReason.UNSPECIFIED,
    message: '',
    placement: undefined,
    diskSizes: {},
    ...more,
  };
}

function seenOf(domain: DomainReport | null, more: Partial<VmObservation> = {}): VmObservation {
  return {
    domain,
    hostReporting: true,
    bootId: 'b1',
    isAlone: true,
    hostMessage: '',
    phaseAgeMs: 0,
    place: () => ok({ placement: PLACED, bootId: 'b1', reason: 'the only host' }),
    inventory: undefined,
    hardware: 'h',
    revision: 3n,
    wallTime: NOW,
    ...more,
  };
}

/** `=`: the status stays as it is. */
type Outcome = VmPhase | '=';
const { CREATING, STOPPED, PENDING, STARTING, RUNNING, STOPPING, PAUSED, UNKNOWN, DELETING } = VmPhase;
type Said = 'silent' | 'nothing' | 'starting' | 'running' | 'paused' | 'stopping' | 'ended';
const SAID: readonly Said[] = ['silent', 'nothing', 'starting', 'running', 'paused', 'stopping', 'ended'];
const STATE_OF: Partial<Record<Said, DomainState>> = {
  starting: DomainState.STARTING,
  running: DomainState.RUNNING,
  paused: DomainState.PAUSED,
  stopping: DomainState.STOPPING,
  ended: DomainState.ENDED,
};

/** Columns as SAID. Rows: wish "run", and wish "stop" (restart and delete must be as stop while the VM is on a host). */
const TABLE: readonly (readonly [VmPhase, 'run' | 'stop', ...Outcome[]])[] = [
  [STARTING, 'run', UNKNOWN, '=', '=', RUNNING, PAUSED, STOPPING, STOPPED],
  [RUNNING, 'run', UNKNOWN, '=', '=', '=', PAUSED, STOPPING, STOPPED],
  [PAUSED, 'run', UNKNOWN, '=', '=', RUNNING, '=', STOPPING, STOPPED],
  [STOPPING, 'run', UNKNOWN, '=', STARTING, RUNNING, PAUSED, '=', STOPPED],
  [UNKNOWN, 'run', UNKNOWN, STARTING, STARTING, RUNNING, PAUSED, STOPPING, STOPPED],
  [STARTING, 'stop', UNKNOWN, STOPPING, STOPPING, STOPPING, STOPPING, STOPPING, STOPPED],
  [RUNNING, 'stop', UNKNOWN, STOPPING, STOPPING, STOPPING, STOPPING, STOPPING, STOPPED],
  [PAUSED, 'stop', UNKNOWN, STOPPING, STOPPING, STOPPING, STOPPING, STOPPING, STOPPED],
  [STOPPING, 'stop', UNKNOWN, '=', '=', '=', '=', '=', STOPPED],
  [UNKNOWN, 'stop', UNKNOWN, STOPPING, STOPPING, STOPPING, STOPPING, STOPPING, STOPPED],
];

describe('planVm: a VM on a host', () => {
  const cases = TABLE.flatMap(([phase, wish, ...outcomes]) =>
    SAID.flatMap((said, column) => {
      const wishes: readonly Wish[] = wish === 'run' ? ['run'] : ['stop', 'restart', 'delete'];
      return wishes.map((each) => [phase, each, said, outcomes[column] ?? '='] as const);
    }),
  );
  it.each(cases)('%s, wish %s, host says %s: %s', (phase, wish, said, outcome) => {
    const state = STATE_OF[said];
    const seen = seenOf(state === undefined ? null : domainOf(state), { hostReporting: said !== 'silent' });
    const before = statusOf(phase, wish);
    const { status } = planVm(vmOf(wish), before, seen);
    const after = status ?? before;
    if (outcome === '=') expect(after.phase).toBe(before.phase);
    else expect(after.phase).toBe(outcome);
    expect(after.epoch).toBe(EPOCH);
    // Only the end of the epoch takes the VM from its host.
    expect(after.host).toBe(said === 'ended' ? '' : 'host1');
  });

  it.each<[string, Said, Partial<VmObservation>, VmPhase]>([
    ['of a former boot, that boot itself', 'ended', { bootId: 'b1', isAlone: false }, STOPPED],
    ['of a former boot, another that is alone', 'ended', { bootId: 'b2' }, STOPPED],
    ['of a former boot, another beside it', 'ended', { bootId: 'b2', isAlone: false }, UNKNOWN],
    ['of a former boot, another that has not looked yet', 'nothing', { bootId: 'b2' }, UNKNOWN],
    ['of a former boot, another that cannot have it', 'running', { bootId: 'b2' }, UNKNOWN],
  ])('an epoch %s says %s', (_, said, more, phase) => {
    const state = STATE_OF[said];
    const seen = seenOf(state === undefined ? null : domainOf(state), more);
    const { status } = planVm(vmOf('run'), statusOf(RUNNING, 'run'), seen);
    expect([status?.phase, status?.host, status?.bootId]).toEqual(
      phase === STOPPED ? [STOPPED, '', ''] : [UNKNOWN, 'host1', 'b1'],
    );
  });

  it('gives the epoch to the boot that the host has, and a record of an older version the one that reports', () => {
    const started = planVm(vmOf('run'), statusOf(STOPPED, 'run'), seenOf(null)).status;
    expect(started).toMatchObject({ phase: STARTING, host: 'host2', bootId: 'b1' });
    const older = statusOf(RUNNING, 'run', { bootId: '' });
    const silent = planVm(vmOf('run'), older, seenOf(null, { hostReporting: false, bootId: 'b9' })).status;
    expect(silent).toMatchObject({ phase: UNKNOWN, bootId: '' });
    for (const said of [null, domainOf(DomainState.RUNNING)])
      expect(planVm(vmOf('run'), older, seenOf(said)).status).toMatchObject({ phase: RUNNING, bootId: 'b1' });
    expect(planVm(vmOf('run'), older, seenOf(domainOf(DomainState.ENDED))).status?.phase).toBe(STOPPED);
  });

  it('says the host’s reason for an end, and none for one that was asked for', () => {
    const failed = domainOf(DomainState.ENDED, { endReason: EndReason.START_FAILED, message: 'qemu: no such device' });
    expect(planVm(vmOf('run'), statusOf(STARTING, 'run'), seenOf(failed)).status).toMatchObject({
      phase: STOPPED,
      message: 'qemu: no such device',
      failedStarts: 1,
    });
    const off = domainOf(DomainState.ENDED, { endReason: EndReason.GUEST_SHUTDOWN, message: 'bye' });
    expect(planVm(vmOf('run'), statusOf(RUNNING, 'run'), seenOf(off)).status?.message).toBe(
      'the guest powered off by itself',
    );
    const silent = domainOf(DomainState.ENDED, { endReason: EndReason.CRASHED });
    expect(planVm(vmOf('run'), statusOf(RUNNING, 'run'), seenOf(silent)).status?.message).toBe('crashed');
    for (const wish of ['stop', 'restart', 'delete'] as const) {
      const before = statusOf(STOPPING, wish, { failedStarts: 4 });
      expect(planVm(vmOf(wish), before, seenOf(off)).status).toMatchObject({ message: '', failedStarts: 0 });
    }
  });

  it('bounds what a host says: it is stored', () => {
    const chatty = domainOf(DomainState.ENDED, { endReason: EndReason.CRASHED, message: 'x'.repeat(1_000_000) });
    expect(planVm(vmOf('run'), statusOf(RUNNING, 'run'), seenOf(chatty)).status?.message.length).toBe(1_000);
    const paused = domainOf(DomainState.PAUSED, { message: '😀'.repeat(100_000) });
    const message = planVm(vmOf('run'), statusOf(RUNNING, 'run'), seenOf(paused)).status?.message ?? '';
    expect(message.isWellFormed()).toBe(true);
    expect(message.length).toBeLessThanOrEqual(1_000);
    // And the same words again are no change.
    const again = planVm(vmOf('run'), statusOf(PAUSED, 'run', { message }), seenOf(paused));
    expect(again.status).toBeNull();
  });

  it('begins the run once: neither a pause nor silence nor a shutdown called off restarts its clock', () => {
    const begun = planVm(vmOf('run'), statusOf(STARTING, 'run'), seenOf(domainOf(DomainState.RUNNING)));
    expect(begun.status?.startTime).toEqual(NOW);
    const early = new Date(0);
    for (const phase of [PAUSED, UNKNOWN, STOPPING]) {
      const before = statusOf(phase, 'run', { startTime: early });
      expect(planVm(vmOf('run'), before, seenOf(domainOf(DomainState.RUNNING))).status?.startTime).toEqual(early);
    }
  });

  it('counts a VM that ran for a minute as healthy, and only then', () => {
    const before = statusOf(RUNNING, 'run', { failedStarts: 3 });
    const running = (phaseAgeMs: number) =>
      planVm(vmOf('run'), before, seenOf(domainOf(DomainState.RUNNING), { phaseAgeMs })).status;
    expect(running(59_999)).toBeNull();
    expect(running(60_000)?.failedStarts).toBe(0);
    const crashed = domainOf(DomainState.ENDED, { endReason: EndReason.CRASHED });
    const after = (phaseAgeMs: number) => planVm(vmOf('run'), before, seenOf(crashed, { phaseAgeMs })).status;
    expect(after(59_999)?.failedStarts).toBe(4);
    expect(after(60_000)?.failedStarts).toBe(1);
  });
});

describe('planVm: a VM off host', () => {
  it.each([CREATING, DELETING, VmPhase.UNSPECIFIED, VmPhase.UNRECOGNIZED])('%s is left to others', (phase) => {
    for (const wish of WISHES) expect(planVm(vmOf(wish), statusOf(phase, wish), seenOf(null)).status).toBeNull();
  });

  it('starts with the next epoch and names the host in the same step', () => {
    for (const phase of [STOPPED, PENDING]) {
      expect(planVm(vmOf('run'), statusOf(phase, 'run', { message: 'old' }), seenOf(null)).status).toMatchObject({
        phase: STARTING,
        host: 'host2',
        epoch: EPOCH + 1n,
        message: '',
        startedRevision: 3n,
        startedHardware: 'h',
        restartEpoch: 0n,
      });
    }
  });

  it('does not start what shall not run, and calls a pending start off', () => {
    for (const wish of ['stop', 'delete'] as const) {
      expect(planVm(vmOf(wish), statusOf(STOPPED, wish), seenOf(null)).status).toBeNull();
      expect(planVm(vmOf(wish), statusOf(PENDING, wish), seenOf(null)).status?.phase).toBe(STOPPED);
    }
  });

  it('tells why no host fits, once', () => {
    const seen = seenOf(null, { place: () => refuse('host1: memory') });
    const first = planVm(vmOf('run'), statusOf(STOPPED, 'run'), seen).status;
    expect(first).toMatchObject({ phase: PENDING, message: 'no host fits: host1: memory', epoch: EPOCH, host: '' });
    expect(planVm(vmOf('run'), first as VmStatusRecord, seen).status).toBeNull();
  });

  it('starts nothing while starts are held, says why, and goes on with a higher epoch than adoption left', () => {
    const held = 'STORE_BEHIND: nothing starts';
    const waiting = planVm(vmOf('run'), statusOf(STOPPED, 'run'), seenOf(null, { held })).status;
    expect(waiting).toMatchObject({ phase: PENDING, message: held, epoch: EPOCH, host: '' });
    const adopted = statusOf(STOPPED, 'run', { epochFloor: 1_000_000n });
    expect(planVm(vmOf('run'), adopted, seenOf(null, { held: '' })).status).toMatchObject({
      phase: STARTING,
      epoch: 1_000_001n,
    });
  });

  it('waits longer after each failure: doubling from a second to five minutes', () => {
    const delays = Array.from({ length: 14 }, (_, failures) => restartDelayMs(failures));
    expect(delays.slice(0, 5)).toEqual([0, 1_000, 2_000, 4_000, 8_000]);
    for (let i = 2; i < delays.length; i++) {
      const before = delays[i - 1] ?? 0;
      expect(delays[i]).toBe(Math.min(2 * before, 300_000));
    }
    expect(restartDelayMs(5_000)).toBe(300_000);
    const before = statusOf(STOPPED, 'run', { failedStarts: 3 });
    expect(planVm(vmOf('run'), before, seenOf(null, { phaseAgeMs: 3_999 })).status).toBeNull();
    expect(planVm(vmOf('run'), before, seenOf(null, { phaseAgeMs: 4_000 })).status?.phase).toBe(STARTING);
  });
});

interface Step {
  readonly wish: Wish;
  readonly said: Said;
  readonly epochBack: number;
  readonly fits: boolean;
  readonly ageMs: number;
}

const step: fc.Arbitrary<Step> = fc.record({
  wish: fc.constantFrom(...WISHES),
  said: fc.constantFrom(...SAID),
  epochBack: fc.constantFrom(0, 0, 0, 1, 2),
  fits: fc.boolean(),
  ageMs: fc.constantFrom(0, 999, 1_000, 60_000, 400_000),
});

describe('planVm: any sequence', () => {
  it('stays in the table, keeps the host until the end of the current epoch, and counts epochs one by one', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        let status = statusOf(STOPPED, 'run', { epoch: 0n });
        for (const { wish, said, epochBack, fits, ageMs } of steps) {
          const vm = vmOf(wish);
          if (wish === 'restart' && ON_HOST.has(status.phase)) status = { ...status, restartEpoch: status.epoch };
          const state = STATE_OF[said];
          // As the reconciler does: only a report of the current epoch is shown to the plan.
          const shown = epochBack === 0 && state !== undefined;
          const endReason = state === DomainState.ENDED ? EndReason.CRASHED : EndReason.UNSPECIFIED;
          const seen = seenOf(shown ? domainOf(state, { epoch: status.epoch, endReason }) : null, {
            hostReporting: said !== 'silent',
            phaseAgeMs: ageMs,
            place: () => (fits ? ok({ placement: PLACED, bootId: 'b1', reason: '' }) : refuse('full')),
          });
          const next = planVm(vm, status, seen).status;
          if (next === null) continue;
          const [from, to] = [status.phase as LiveVmPhase, next.phase as LiveVmPhase];
          expect(from === to || mayMove(VM_PHASES, from, to), `${from} -> ${to}`).toBe(true);
          expect(ON_HOST.has(to)).toBe(next.host !== '');
          if (status.host !== '' && next.host === '') expect([shown, state]).toEqual([true, DomainState.ENDED]);
          if (status.host !== '' && next.host !== '') expect(next.host).toBe(status.host);
          if (next.epoch !== status.epoch) {
            expect(next.epoch).toBe(status.epoch + 1n);
            expect([status.host, next.host, to]).toEqual(['', 'host2', STARTING]);
            expect(shallStop(vm, next)).toBe(false);
          } else expect(status.host === '' && next.host !== '').toBe(false);
          if (said === 'silent' && ON_HOST.has(from)) expect(to).toBe(UNKNOWN);
          status = next;
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe('what a VM was given', () => {
  const told = ObservedPlacement.fromPartial({ vcpuCpus: ['3'], numaNodes: [0] });
  const off = ObservedPlacement.fromPartial({ vcpuCpus: ['0-7'], numaNodes: [0] });
  const on = (more: Partial<VmStatusRecord> = {}) => statusOf(RUNNING, 'run', { placement: PLACED, ...more });
  const next = (status: VmStatusRecord, placement: ObservedPlacement | undefined, more: Partial<VmObservation> = {}) =>
    planVm(vmOf('run'), status, seenOf(domainOf(DomainState.RUNNING, { placement }), more)).status;

  it('is stored with the start, and forgotten with the end', () => {
    const started = planVm(vmOf('run'), statusOf(STOPPED, 'run'), seenOf(null)).status;
    expect(started).toMatchObject({
      host: 'host2',
      placement: PLACED,
      observedPlacement: undefined,
      placementDrift: '',
    });
    const ended = planVm(vmOf('run'), on({ placementDrift: 'x' }), seenOf(domainOf(DomainState.ENDED))).status;
    expect(ended).toMatchObject({ host: '', placement: undefined, observedPlacement: undefined, placementDrift: '' });
  });

  it('is compared with what its host reports', () => {
    const seen = next(on(), told);
    expect(seen).toMatchObject({ observedPlacement: told, placementDrift: '' });
    expect(next(on({ observedPlacement: told }), told)).toBeNull();
    const drifted = next(on({ observedPlacement: told }), off);
    expect(drifted).toMatchObject({ observedPlacement: off, placementDrift: 'vCPU 0 on CPUs 0-7 instead of 3' });
    // A report without it (an agent that was just started) changes nothing.
    expect(next(drifted as VmStatusRecord, undefined)).toBeNull();
    expect(next(drifted as VmStatusRecord, told)).toMatchObject({ placementDrift: '' });
  });

  it('on a pretended topology is compared with the CPUs that exist', () => {
    const mapped = ObservedPlacement.fromPartial({ vcpuCpus: ['1'] });
    expect(
      next(on(), mapped, { inventory: HostInventory.fromPartial({ pretendedTopology: { realCpus: [0, 1] } }) }),
    ).toMatchObject({ placementDrift: '' });
    expect(next(on(), mapped)).toMatchObject({ placementDrift: expect.stringContaining('instead of 3') });
  });
});
