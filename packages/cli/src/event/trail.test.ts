// SPDX-License-Identifier: Apache-2.0
/** `event` and `audit`: tables, filters, streams. */
import { EventSeverity } from '@busbar/proto/gen/busbar/v1/event';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { startLab, type TestLab } from '../testing/cli.ts';
import { NOW } from '../testing/fake-cluster.ts';

vi.setConfig({ testTimeout: 60_000 });

let lab: TestLab;
const ago = (seconds: number) => new Date(NOW.getTime() - 1000 * seconds);
beforeEach(async () => {
  lab = await startLab();
});
afterEach(() => lab.end());

describe('event list', () => {
  beforeEach(() => {
    const { trail } = lab.cluster;
    trail.addEvent('VM_STARTED', 'scada-1', 'runs on host1', ago(7_300));
    trail.addEvent(
      'VM_START_FAILED',
      'historian-2',
      `did not start: ${'no memory '.repeat(20)}\u001b[2J`,
      ago(40),
      EventSeverity.ERROR,
    );
  });

  test('newest first, within 100 columns, without control characters', async () => {
    const { stdout, code } = await lab.cli('event', 'list');
    expect(stdout).toMatchInlineSnapshot(`
      "AGE  SEVERITY  REASON           SUBJECT         MESSAGE
      40s  error     VM_START_FAILED  vm/historian-2  did not start: no memory no memory no memory no mem…
       2h  info      VM_STARTED       vm/scada-1      runs on host1
      "
    `);
    expect(code).toBe(0);
    for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
  });

  test('the API filters', async () => {
    await lab.cli(
      'event',
      'list',
      '--subject',
      'vm/scada-1',
      '--severity',
      'warning',
      '--reason',
      'X',
      '--since',
      '2h',
    );
    expect(lab.cluster.trail.filters).toEqual([
      {
        subjectKind: 'vm',
        subject: 'scada-1',
        minSeverity: EventSeverity.WARNING,
        reason: 'X',
        since: ago(7_200),
      },
    ]);
    const { stderr, code } = await lab.cli('event', 'list', '--since', 'yesterday');
    expect({ stderr, code }).toMatchInlineSnapshot(`
      {
        "code": 2,
        "stderr": "error: --since yesterday is not allowed
      why: "yesterday" is neither a duration nor a time
      do: write e.g. --since 2h or --since 2026-05-01T12:00:00Z
      ",
      }
    `);
  });

  test('json is the response; --watch prints one object per line', async () => {
    const { events } = JSON.parse((await lab.cli('event', 'list', '-o', 'json')).stdout) as { events: object[] };
    expect(events[1]).toMatchObject({ reason: 'VM_STARTED', subject: { kind: 'vm', name: 'scada-1' } });
    const command = lab.start(['event', 'list', '--watch', '-o', 'json', '--severity', 'info']);
    await command.stdout.match(/VM_START_FAILED/);
    command.interrupt();
    const lines = (await command.ended).stdout.trim().split('\n');
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({ change: 'CHANGE_KIND_PUT', event: { reason: 'VM_STARTED' } });
    expect(lab.cluster.trail.filters.at(-1)).toMatchObject({ minSeverity: EventSeverity.INFO });
  });
});

describe('audit list', () => {
  test('tells changes, dry runs and refusals apart', async () => {
    const { trail } = lab.cluster;
    const target = { kind: 'vm', id: 'id-1', name: 'scada-1' };
    const method = 'busbar.v1.VmService/DeleteVm';
    trail.addAudit({ method, target, time: ago(90_000), validateOnly: true });
    trail.addAudit({ method, target, time: ago(130), changed: true, revisionBefore: 12n, revisionAfter: 15n });
    trail.addAudit({ method, target, time: ago(4), reason: 'ROLE_TOO_LOW', message: 'DeleteVm needs operator' });
    trail.addAudit({ time: ago(1), reason: 'NOT_RECORDED_SINGLY', message: '7 further calls', furtherCalls: 7 });
    const { stdout } = await lab.cli('audit', 'list');
    expect(stdout).toMatchInlineSnapshot(`
      "AGE  CALLER       METHOD    TARGET      RESULT               MESSAGE
       1s  client/anna  -         -           NOT_RECORDED_SINGLY  7 further calls
       4s  client/anna  DeleteVm  vm/scada-1  ROLE_TOO_LOW         DeleteVm needs operator
       2m  client/anna  DeleteVm  vm/scada-1  ok                   -
      25h  client/anna  DeleteVm  vm/scada-1  ok (dry run)         -
      "
    `);
    for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(100);
  });

  test('shows by which certificate, from where and for how long, and filters by it', async () => {
    const method = 'busbar.v1.VmService/OpenConsole';
    const { trail } = lab.cluster;
    const common = { method, transport: 'grpc', controller: 'host1', streamBeginTime: ago(3_700) };
    trail.addAudit({ ...common, time: ago(3_700), certificateSerial: '4a', address: '10.77.0.8' });
    trail.addAudit({ ...common, time: ago(60), certificateSerial: '4b', address: '10.77.0.9', streamEndTime: ago(60) });
    expect((await lab.cli('audit', 'list', '-o', 'wide')).stdout).toMatchInlineSnapshot(`
      "AGE  CALLER       METHOD       TARGET  RESULT  SERIAL  ADDRESS    VIA   CONTROLLER  OPEN   MESSAGE
      60s  client/anna  OpenConsole  -       ok      4b      10.77.0.9  grpc  host1       60m    -
      61m  client/anna  OpenConsole  -       ok      4a      10.77.0.8  grpc  host1       began  -
      "
    `);
    const { stdout } = await lab.cli('audit', 'list', '--filter', 'serial=4b,address=10.77.0.9', '-o', 'name');
    expect(stdout.trim().split('\n')).toHaveLength(1);
  });

  test('is empty, and the API filters', async () => {
    const day = '2026-02-28T12:00:00Z';
    const { stdout } = await lab.cli(
      'audit',
      'list',
      '--caller',
      'client/anna',
      '--target',
      'x',
      '--method',
      'Del',
      '--since',
      day,
      '--serial',
      '4A',
      '--address',
      '10.77.0.9',
    );
    expect(stdout).toBe('no audit records\n');
    expect(lab.cluster.trail.filters).toEqual([
      {
        caller: 'client/anna',
        target: 'x',
        methodPrefix: 'Del',
        since: new Date(day),
        certificateSerial: '4A',
        address: '10.77.0.9',
      },
    ]);
  });

  test('--watch follows', async () => {
    lab.cluster.trail.addAudit({ method: 'busbar.v1.VmService/StopVm', time: ago(1), changed: true });
    const command = lab.start(['audit', 'list', '--watch']);
    await command.stdout.match(/StopVm/);
    command.interrupt();
    expect((await command.ended).stdout).toMatch(/^ *AGE +CALLER +METHOD/);
  });
});
