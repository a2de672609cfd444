// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import type { Logger } from '@busbar/core/log';
import { VmRecord, VmStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import type { AccessGrant, AccessRequest } from '@busbar/storage/driver';
import { beforeEach, describe, expect, it } from 'vitest';
import { Rig } from '../testing/rig.ts';
import { lastEpochs, VmAccess } from './access.ts';

/** Goal: a key for each start, told for that start only, asked for until it is there, and taken back when the start is over. */
let rig: Rig;
let calls: string[];
let fails: boolean;
let answer: AccessGrant | null;
let requests: AccessRequest[];
let warnings: string[];
let wakes: number;
let ending: AbortController;
let access: VmAccess;

const place = { createRevision: 1n, modRevision: 1n } as const;
const GRANT: AccessGrant = { user: 'busbar-vm.v.5', key: Buffer.from('key') };
const vm = VmRecord.fromPartial({
  meta: { id: 'v', name: 'relay' },
  spec: { disks: [{ name: 'boot' }, { name: 'data' }] },
  diskVolumes: { boot: 'vol-boot', data: 'vol-data' },
});
const starting = (epoch = 5n) => VmStatusRecord.fromPartial({ phase: VmPhase.STARTING, host: 'host1', epoch });
const put = (status: VmStatusRecord) => {
  rig.view.tables.vm.set({ ...place, id: 'v', record: vm } as never);
  rig.view.tables['vm-status'].set({ ...place, id: 'v', record: status } as never);
};
const settle = () => rig.clock.advance(0);

beforeEach(() => {
  rig = new Rig();
  [calls, requests, warnings, fails, answer, wakes] = [[], [], [], false, GRANT, 0];
  ending = new AbortController();
  const storage = {
    grantAccess: async (request: AccessRequest) => {
      calls.push(`grant ${request.vmId} ${request.epoch}`);
      requests.push(request);
      if (fails) throw new BusbarError({ kind: 'unavailable', reason: 'STORAGE_UNAVAILABLE', message: 'no monitors' });
      return answer;
    },
    revokeAccess: async (vmId: string, epochs: readonly bigint[]) => {
      calls.push(`revoke ${vmId} ${epochs.join(',')}`);
      if (fails) throw new BusbarError({ kind: 'unavailable', reason: 'STORAGE_UNAVAILABLE', message: 'no monitors' });
    },
  };
  const logger: Logger = { debug() {}, info() {}, error() {}, warn: (_fields, message) => void warnings.push(message) };
  const { view, clock } = rig.api;
  access = new VmAccess({ view, storage, clock, logger }, ending.signal, () => void wakes++);
  const image = { ...place, id: 'vol-boot', record: { spec: { image: 'img' } } };
  view.tables.volume.set(image as never);
});

describe('the key of a start', () => {
  it('is asked for once, with what the records say, after former ones were taken back; then it is told', async () => {
    expect(access.of('v', vm, starting())).toBeNull();
    expect(access.of('v', vm, starting())).toBeNull();
    await settle();
    expect(wakes).toBe(1);
    expect(access.of('v', vm, starting())).toEqual(GRANT);
    expect(calls).toEqual(['revoke v 2,3,4', 'grant v 5']);
    expect(requests[0]?.disks).toEqual([
      { volumeId: 'vol-boot', imageId: 'img' },
      { volumeId: 'vol-data', imageId: null },
    ]);
  });

  it('is another for the next start', async () => {
    access.of('v', vm, starting());
    await settle();
    expect(access.of('v', vm, starting(6n))).toBeNull();
    await settle();
    expect(calls).toContain('grant v 6');
  });

  it.each([VmPhase.RUNNING, VmPhase.STOPPING, VmPhase.UNKNOWN])(
    'is told nobody in phase %s: QEMU has it',
    async (phase) => {
      access.of('v', vm, starting());
      await settle();
      expect(access.of('v', vm, VmStatusRecord.fromPartial({ phase, host: 'host1', epoch: 5n }))).toBeUndefined();
    },
  );

  it('is not needed without disks, or where the pool has none', async () => {
    expect(access.of('w', VmRecord.fromPartial({ spec: {} }), starting())).toBeUndefined();
    answer = null;
    access.of('v', vm, starting());
    await settle();
    expect(access.of('v', vm, starting())).toBeUndefined();
  });

  it('that the pool does not give is asked for again after a second, and told once', async () => {
    fails = true;
    access.of('v', vm, starting());
    await settle();
    expect(access.of('v', vm, starting())).toBeNull();
    expect(access.whyNot('v')).toContain('no monitors');
    await rig.clock.advance(1_000);
    expect(access.of('v', vm, starting())).toBeNull();
    await settle();
    expect(warnings).toEqual(['a start waits for the key of its disks']);
    fails = false;
    await rig.clock.advance(1_000);
    access.of('v', vm, starting());
    await settle();
    expect(access.of('v', vm, starting())).toEqual(GRANT);
    expect(access.whyNot('v')).toBe('');
  });

  it('is asked for by no leader of yesterday', () => {
    ending.abort();
    expect(access.of('v', vm, starting())).toBeNull();
    put(VmStatusRecord.fromPartial({ phase: VmPhase.STOPPED, epoch: 5n }));
    access.takeBack();
    expect(calls).toEqual([]);
  });
});

describe('the key of a start that is over', () => {
  it('is taken back once, and again when the pool did not answer', async () => {
    put(VmStatusRecord.fromPartial({ phase: VmPhase.STOPPED, epoch: 5n }));
    fails = true;
    access.takeBack();
    await settle();
    fails = false;
    access.takeBack();
    await settle();
    access.takeBack();
    await settle();
    expect(calls).toEqual(['revoke v 5', 'revoke v 5']);
  });

  it('is not taken back while a host may have it', async () => {
    for (const phase of [VmPhase.STARTING, VmPhase.RUNNING, VmPhase.STOPPING, VmPhase.UNKNOWN]) {
      put(VmStatusRecord.fromPartial({ phase, host: 'host1', epoch: 5n }));
      access.takeBack();
      await settle();
    }
    expect(calls).toEqual([]);
  });

  it('of a VM that is deleted is among its last ones', () => {
    expect(lastEpochs(0n)).toEqual([]);
    expect(lastEpochs(2n)).toEqual([1n, 2n]);
    expect(lastEpochs(9n)).toEqual([6n, 7n, 8n, 9n]);
  });
});
