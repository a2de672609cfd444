// SPDX-License-Identifier: Apache-2.0
import { AlarmSeverity } from '@busbar/proto/gen/busbar/v1/alarm';
import { Cluster } from '@busbar/proto/gen/busbar/v1/cluster';
import { describe, expect, it } from 'vitest';
import { renderStatus } from './status.ts';

const alarm = (severity: AlarmSeverity, code: string, message: string) => ({
  code,
  severity,
  subject: 'host/host1',
  message,
  hint: 'see what is there, and decide',
  raiseTime: new Date('2026-11-28T10:00:00Z'),
});

describe('cluster status', () => {
  it('shows each alarm with what to do, in lines that fit, and passes on no escape sequence', () => {
    const long = `two machines say that they are host1, at 10.77.0.12 and 10.77.0.99${'; neither is told to start anything'.repeat(3)}`;
    const text = renderStatus(
      Cluster.fromPartial({
        name: 'plant',
        leader: 'host1',
        alarms: [
          alarm(AlarmSeverity.CRITICAL, 'HOST_TWICE', long),
          alarm(AlarmSeverity.WARNING, 'AUDIT_FULL', '75 %\u001b[2J'),
        ],
      }),
      false,
    );
    expect(text).toContain('alarms:       1 critical, 1 warning\n');
    expect(text).toContain('\nALARM (critical) HOST_TWICE: host/host1, since 2026-11-28T10:00:00Z\n  two machines say');
    expect(text).toContain('\n  do: see what is there, and decide\n');
    expect(text).not.toContain('\u001b');
    for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
  });
});
