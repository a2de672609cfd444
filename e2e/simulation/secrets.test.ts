// SPDX-License-Identifier: Apache-2.0
import { ROOT } from '@busbar/controller/records/kinds';
import type { Revision } from '@busbar/core/ids';
import { seededRandom } from '@busbar/core/random';
import {
  CreateVmRequest,
  type CreateVmResponse,
  type GetVmResponse,
  UpdateVmRequest,
} from '@busbar/proto/gen/busbar/v1/vm';
import { expect, it } from 'vitest';
import { World } from './world.ts';

/**
 * Goal: a password in a VM's cloud-init data reaches the guest, and nothing that is kept or read by others.
 * Method: a marker goes through creation, refusals of many kinds, update, restart, a change of leader and deletion, while
 * every value that was ever written to the store and every line of every log is collected.
 */
const MARKER = 'correct-horse-battery';
const IN_BASE64 = Buffer.from(MARKER).toString('base64').slice(1, -4);
const userData = `#cloud-config\npassword: ${MARKER}\n`;

it('a password in cloud-init data is in no key or value of the store, at any time, and in no line of a log', async () => {
  const world = new World({ seed: 3 });
  const written: string[] = [];
  const observer = world.truth.client({ clock: world.clock, random: seededRandom(1) });
  const end = new AbortController();
  const observing = (async () => {
    for await (const batch of observer.watch(ROOT, 0n as Revision, end.signal)) {
      if (batch.kind === 'compacted') throw new Error('the observer missed something');
      if (batch.kind === 'events')
        for (const event of batch.events)
          written.push(event.kind === 'put' ? `${event.kv.key} ${event.kv.value}` : event.key);
    }
  })();

  await world.until(() => world.leaderName() !== null, 20_000, 'a leader');
  const leader = world.leaderName() ?? '';
  const survivor = world.liveControllers().find((name) => name !== leader) ?? '';
  const statuses = () => world.controller(survivor).view.tables['host-status'].sorted();
  await world.until(
    () => statuses().filter((s) => s.record.state === 'HOST_STATE_READY').length === 3,
    20_000,
    'hosts',
  );
  const call = <T>(method: string, request: unknown) =>
    world.settled(world.call<T>(survivor, 'VmService', method, request), 10_000, method);

  const spec = { cpu: { vcpus: 1 }, memoryBytes: 1024n ** 3n, cloudInit: { userData, networkConfig: MARKER } };
  const good = CreateVmRequest.fromPartial({ name: 'scada-1', requestId: 'one', spec });
  const wrong: object[] = [
    { ...good, name: MARKER.toUpperCase() }, // not a secret: shows that a refusal is in the answer, but in no log
    { ...good, spec: { ...good.spec, memoryBytes: 7n } },
    {
      ...good,
      spec: { ...good.spec, cloudInit: { userData: userData.repeat(9_999), networkConfig: '', redacted: false } },
    },
    { ...good, spec: { ...good.spec, cloudInit: { userData, networkConfig: '', redacted: true } } },
    { ...good, spec: { ...good.spec, cloudInit: { userData: [userData], networkConfig: { userData } } } },
    { ...good, spec: { ...good.spec, nics: [{ name: 'lan', network: 'no-such-network' }] } },
    { ...good, spec: { ...good.spec, memoryBytes: 1024n ** 4n } }, // valid, and fits on no host
  ];
  for (const request of wrong) {
    const error = await call('createVm', request).then(
      () => new Error('it was accepted'),
      (e: unknown) => e as Error & { reason?: string },
    );
    expect(error).toHaveProperty('reason');
    expect(JSON.stringify(error) + String(error)).not.toContain(MARKER);
  }

  const created = await call<CreateVmResponse>('createVm', good);
  const id = created.vm?.meta?.id ?? '';
  await world.until(() => world.runningOn(id).length === 1, 60_000, 'the VM runs');
  await call(
    'updateVm',
    UpdateVmRequest.fromPartial({
      vm: id,
      spec: { cloudInit: { userData: `${userData}#2` } },
      updateMask: ['spec.cloudInit'],
    }),
  );
  await call('restartVm', { vm: id, force: true, validateOnly: false, requestId: 'two' });
  const domains = () =>
    world.hosts.flatMap((host) => host.machine.domains.filter((d) => d.vmId === id && d.state === 'running'));
  await world.until(() => domains().some((domain) => domain.epoch === 2n), 60_000, 'the second epoch runs');
  // It is not that nobody got it: the guest has it, and whoever may open the guest's console is told.
  expect(domains()[0]?.spec.cloudInit?.userData).toBe(`${userData}#2`);
  const told = await call<GetVmResponse>('getVm', { vm: id });
  expect(told.vm?.spec?.cloudInit?.userData).toBe(`${userData}#2`);

  world.killController(leader);
  await world.until(() => world.leaderName() !== null, 20_000, 'another leader');
  await call('deleteVm', { vm: id, revision: 0n, force: true, validateOnly: false, requestId: 'three' });
  await world.until(() => world.controller(survivor).view.tables.vm.get(id) === undefined, 60_000, 'the VM is gone');
  await world.clock.advance(1_000);
  end.abort();
  await observing;

  expect(written.some((line) => line.includes(`vm/${id} `) && line.includes('sealed.1.'))).toBe(true);
  expect(world.log.length).toBeGreaterThan(20);
  const memories = JSON.stringify(
    await Promise.all(world.hosts.map((host) => host.memory.load())),
    (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value instanceof Map ? [...value] : value),
  );
  const kept = [...written, ...world.log, ...world.trace, memories];
  expect(kept.filter((line) => line.includes(MARKER) || line.includes(IN_BASE64))).toEqual([]);
});
