// SPDX-License-Identifier: Apache-2.0
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { openLab } from '@busbar/deploy/lab/lab';
import { pkiDir } from '@busbar/deploy/lab/paths';
import { NATS_PORT } from '@busbar/deploy/lab/render-host';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { busbar, busbarOk, eventually, getVm, guestYaml, HOSTS, inside, json, LAB } from './lab.ts';

/**
 * Goal: a subscriber with a viewer's certificate hears what happens; without NATS the cluster does not notice, and the
 * API's watch misses nothing; who asked for what is on record.
 */
const VM = 'told-1';
const heard: { readonly subject: string; readonly reason: string }[] = [];
const watched: { readonly id: string; readonly reason: string; readonly message: string }[] = [];
let nats: NatsConnection;
let watch: ReturnType<typeof spawn>;

beforeAll(async () => {
  const plan = await openLab(LAB);
  const pki = (file: string) => readFileSync(join(pkiDir(LAB), file), 'utf8');
  nats = await connect({
    servers: plan.hosts.map((host) => `${host.management}:${NATS_PORT}`),
    tls: { ca: pki('ca.crt'), cert: pki('viewer.crt'), key: pki('viewer.key') },
    maxReconnectAttempts: -1,
    reconnectTimeWait: 100,
  });
  nats.subscribe(`busbar.${LAB}.event.vm.>`, {
    callback: (_, message) => {
      const { reason, subject } = message.json<{ reason: string; subject: { name: string } }>();
      if (subject.name === VM) heard.push({ subject: message.subject, reason });
    },
  });
  await nats.flush();
  const bin = createRequire(createRequire(import.meta.url).resolve('@busbar/deploy/demo/busbar')).resolve(
    '@busbar/cli/bin',
  );
  const arguments_ = ['--context', LAB, 'event', 'list', '--watch', '--subject', `vm/${VM}`, '-o', 'json'];
  watch = spawn(process.execPath, [bin, ...arguments_], { stdio: ['ignore', 'pipe', 'inherit'] });
  let rest = '';
  watch.stdout?.on('data', (bytes: Buffer) => {
    const lines = (rest + bytes.toString()).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      const { event } = JSON.parse(line) as { event?: (typeof watched)[number] };
      if (event !== undefined) watched.push(event);
    }
  });
});

afterAll(async () => {
  watch?.kill();
  await nats?.close();
  for (const host of HOSTS) await inside(host, 'sv', 'up', 'nats');
  await busbar(['vm', 'delete', VM, '--force']);
});

const hears = (reason: string) =>
  eventually(`${reason} over NATS`, 30_000, async () => (heard.some((each) => each.reason === reason) ? true : null));
const sees = (...reasons: string[]) =>
  eventually(`${reasons.join(', ')} in the watch`, 30_000, async () =>
    watched.slice(-reasons.length).every((event, i) => event.reason === reasons[i]) ? true : null,
  );

describe('events', () => {
  it('reach a subscriber and a watcher', async () => {
    await busbarOk(['apply', '-f', '-'], { input: guestYaml({ name: VM, pinnedHost: 'host2' }) });
    await hears('VM_STARTED');
    const { meta } = await getVm(VM);
    expect(heard.find(({ reason }) => reason === 'VM_STARTED')?.subject).toBe(
      `busbar.${LAB}.event.vm.${meta.id}.VM_STARTED`,
    );
    await eventually('VM_STARTED in the watch', 10_000, async () =>
      watched.some(({ reason }) => reason === 'VM_STARTED') ? true : null,
    );
  });

  it('all NATS servers stopped: API and VMs do not notice, and the watch has all; back: they flow again', async () => {
    for (const host of HOSTS) await inside(host, 'sv', 'down', 'nats');
    await eventually('the subscriber to notice', 20_000, async () =>
      (await nats.rtt().catch(() => null)) === null ? true : null,
    );
    heard.length = 0;
    const startMs = performance.now();
    await busbarOk(['vm', 'stop', VM, '--force']);
    // A forced stop takes a second, a CLI half of one; what waits for NATS would wait for its deadlines.
    expect(performance.now() - startMs).toBeLessThan(10_000);
    await sees('VM_STOPPING', 'VM_STOPPED', 'OPERATION_SUCCEEDED');
    expect(heard).toEqual([]);
    for (const host of HOSTS) await inside(host, 'sv', 'up', 'nats');
    await eventually('the subscriber to be back', 30_000, async () => nats.rtt().catch(() => null));
    await busbarOk(['vm', 'start', VM]);
    await hears('VM_STARTED');
    expect(new Set(watched.map(({ id }) => id)).size).toBe(watched.length);
  });

  it('who asked for what is on record, refusals included, each once', async () => {
    await busbar(['vm', 'console', VM], { input: '\n', timeoutMs: 5_000 });
    expect((await busbar(['vm', 'create', VM, '--vcpus', '1', '--memory', '64MiB'])).code).toBe(4);
    const calls = await eventually('the refusal on record', 10_000, async () => {
      const { auditRecords } = await json<{
        auditRecords: { method: string; caller: string; role: string; changed?: boolean; reason?: string }[];
      }>(['audit', 'list', '--target', VM]);
      return auditRecords[0]?.reason === undefined ? null : auditRecords;
    });
    expect(calls.map(({ method, changed, reason }) => [method.split('/')[1], changed ?? reason ?? false])).toEqual([
      ['CreateVm', 'VM_NAME_TAKEN'],
      // Its end, and its beginning.
      ['OpenConsole', false],
      ['OpenConsole', false],
      ['StartVm', true],
      ['StopVm', true],
      ['CreateVm', true],
    ]);
    for (const call of calls) expect(call).toMatchObject({ caller: 'client/admin', role: 'admin' });
  });
});
