// SPDX-License-Identifier: Apache-2.0
import type { AlarmDraft, AlarmSource } from '../alarm/alarm.ts';
import { NEARLY_FULL } from './policy.ts';

/** From here on the share of a caller is a tenth: see policy.ts. */
const CRITICAL = 0.9;

/** Records that must not go yet take most of the room: whoever has the most of them is held back from now on. */
export const auditAlarms: AlarmSource = ({ audit }) =>
  audit.fill().flatMap(({ sort, used, room, busiest }): AlarmDraft[] => {
    const filled = used / room;
    if (filled < NEARLY_FULL) return [];
    const percent = Math.floor(100 * filled);
    const most = busiest === null ? '' : `, ${busiest.count} of them by "${busiest.caller}"`;
    return [
      {
        code: 'AUDIT_NEARLY_FULL',
        // Strangers can fill the places for refusals; further ones are then counted, and nothing else suffers.
        severity: filled >= CRITICAL && sort !== 'refusals' ? 'critical' : 'warning',
        subject: `audit/${sort}`,
        message: `${percent} % of the places for audit records of ${sort} are taken (${used} of ${room}${most})`,
        hint: 'find out what the busiest caller does (busbar audit list --caller); archive, then raise audit.records or lower audit.keepDays on every controller',
      },
    ];
  });
