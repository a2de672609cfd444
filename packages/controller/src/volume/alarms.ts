// SPDX-License-Identifier: Apache-2.0
import type { AlarmDraft, AlarmWorld } from '../alarm/alarm.ts';

/** One key for all hosts opens every disk, and no host can be shut out: kept for the time of an upgrade (ADR 0056). */
export function volumeAlarms({ storage }: Pick<AlarmWorld, 'storage'>): readonly AlarmDraft[] {
  if (storage.diskKeys !== 'shared') return [];
  return [
    {
      code: 'CEPH_KEY_SHARED',
      severity: 'warning',
      subject: 'cluster',
      message:
        'all hosts open all disks with one Ceph key: a guest that breaks out of its QEMU reads and writes every VM’s',
      hint: 'give the controllers’ key the caps in docs/operations.md (Ceph), and say storage.identities: vm in controller.yaml',
    },
  ];
}
