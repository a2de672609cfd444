// SPDX-License-Identifier: Apache-2.0
import { showBytes } from '@busbar/storage/errors';
import type { AlarmDraft, AlarmWorld } from '../alarm/alarm.ts';
import { isNearlyFull, storeLevel } from './level.ts';

const show = (bytes: number) => showBytes(BigInt(bytes));

/** From 70 % of etcd's quota on, and critical from 85 % on. Every controller sees the same members. */
export function storeAlarms({ fill }: Pick<AlarmWorld, 'fill'>): readonly AlarmDraft[] {
  const { store, quotaBytes } = fill;
  const level = storeLevel(store, quotaBytes);
  if (store === null || !isNearlyFull(level)) return [];
  return [
    {
      code: 'STORE_NEARLY_FULL',
      severity: level === 'critical' ? 'critical' : 'warning',
      subject: 'cluster',
      message:
        `the cluster store uses ${show(store.inUseBytes)} of its quota of ${show(quotaBytes)} (its file has ` +
        `${show(store.fileBytes)}): only what keeps the plant running is written`,
      hint: 'delete what nobody needs; "When etcd is full" in docs/operations.md says what takes the room',
    },
  ];
}

/** Seen by the controller beside that disk alone. */
export function spoolAlarms({ host, fill: { spool } }: Pick<AlarmWorld, 'fill' | 'host'>): readonly AlarmDraft[] {
  if (spool === null || spool.freeBytes >= spool.reserveBytes) return [];
  return [
    {
      code: 'SPOOL_LOW',
      severity: 'warning',
      subject: `host/${host}`,
      message:
        `${showBytes(spool.freeBytes)} of ${showBytes(spool.totalBytes)} are free on the disk of ${spool.dir}, where ` +
        `${showBytes(spool.reserveBytes)} are to be kept free: no qcow2 image can be imported through this host's controller`,
      hint: 'free space there; etcd stops when its disk is full, and by default it is this one',
    },
  ];
}
