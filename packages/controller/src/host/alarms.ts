// SPDX-License-Identifier: Apache-2.0
import type { AlarmDraft, AlarmWorld } from '../alarm/alarm.ts';
import type { Boot } from '../lease/granter.ts';

/** Machines that say at the same time that they are one host, for people; ordered, so that the text stays the same. */
export function besideText(boots: readonly Boot[]): string {
  const machines = boots.map(({ bootId, address }) => `${address} (boot ${bootId})`).sort();
  return `${machines.length} machines say that they are this host: ${machines.join(' and ')}`;
}

/** Pure. Two machines with one host's certificate: which of them is the host, people have to say. */
export function hostAlarms({ sessions }: AlarmWorld): readonly AlarmDraft[] {
  return sessions.hosts().flatMap((host): AlarmDraft[] => {
    const beside = sessions.observed(host)?.beside ?? [];
    if (beside.length === 0) return [];
    return [
      {
        code: 'HOST_TWICE',
        severity: 'critical',
        subject: `host/${host}`,
        message: `${besideText(beside)}; what runs goes on, nothing is started on either`,
        hint: 'switch the copy off or give it its own name and certificate ("busbar host join"); a minute later this is over',
      },
    ];
  });
}
