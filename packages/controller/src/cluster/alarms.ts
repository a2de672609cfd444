// SPDX-License-Identifier: Apache-2.0
import { DomainState } from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { AlarmDraft, AlarmWorld } from '../alarm/alarm.ts';
import { ADOPT_HINT, historyRecord } from './behind.ts';

/** The store went back in time and the cluster was not adopted yet. */
export function storeBehind({ view }: AlarmWorld): readonly AlarmDraft[] {
  const record = historyRecord(view)?.record;
  if (record?.behindSince === undefined) return [];
  const message = `the cluster store went back in time; nothing starts and nothing is destroyed until the cluster is adopted: ${record.signs.join('; ')}`;
  return [{ code: 'STORE_BEHIND', severity: 'critical', subject: 'cluster', message, hint: ADOPT_HINT }];
}

/** What adoption found without a record and left alone, while it runs on. */
export function vmsWithoutRecord({ view, sessions }: AlarmWorld): readonly AlarmDraft[] {
  return (historyRecord(view)?.record.unknownVms ?? []).flatMap(({ vmId, host }): readonly AlarmDraft[] => {
    const report = sessions.observed(host)?.report;
    const runs = report?.domains.some((domain) => domain.vmId === vmId && domain.state !== DomainState.ENDED);
    if (!runs || view.tables.vm.get(vmId) !== undefined) return [];
    return [
      {
        code: 'VM_WITHOUT_RECORD',
        severity: 'warning',
        subject: `vm/${vmId}`,
        message: `${host} runs VM ${vmId}, which the cluster store does not know since it went back in time`,
        hint: `save its data from inside, then end it with "virsh destroy" on ${host}; its volumes stay in the pool`,
      },
    ];
  });
}
