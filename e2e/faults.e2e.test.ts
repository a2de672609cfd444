// SPDX-License-Identifier: Apache-2.0
import {
  freezeHost,
  healHost,
  hostExec,
  killHost,
  labCeph,
  partitionHost,
  reviveHost,
  thawHost,
  waitHealthy,
} from '@busbar/deploy/lab/lab';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import {
  busbar,
  busbarOk,
  eventually,
  getVm,
  guestCounter,
  guestYaml,
  HOSTS,
  inside,
  json,
  LAB,
  qemuPid,
} from './lab.ts';
import { records } from './records.ts';

/**
 * Goal: what dies is replaced without a person, and no guest pays for it. Each test breaks one part of the real cluster, asks what a
 * user would ask, and leaves the lab healthy.
 */
const VM = 'steady-1';
let address: string;
const counter = async () => (await guestCounter(address))?.counter ?? null;
const runsNow = async (name: string) => ((await getVm(name)).status.phase === 'VM_PHASE_RUNNING' ? true : null);

async function leader(): Promise<string> {
  return eventually('a leader', 30_000, async () => {
    const result = await busbar(['cluster', 'get', '-o', 'json']);
    if (result.code !== 0) return null;
    const answer = JSON.parse(result.stdout) as { leader?: string };
    return answer.leader || null;
  });
}

beforeAll(async () => {
  address = `${inject('guestSubnet')}.41`;
  await busbarOk(['apply', '-f', '-'], { input: guestYaml({ name: VM, address, pinnedHost: 'host2' }) });
  await eventually('the guest to answer', 120_000, counter);
});

afterAll(async () => {
  await busbar(['vm', 'delete', VM, '--force']);
});

/** Runs the deed and shows that the same QEMU went on counting. */
async function unharmed(deed: () => Promise<void>): Promise<void> {
  const [pid, before, { status }] = [await qemuPid('host2', VM), (await counter()) ?? 0, await getVm(VM)];
  await deed();
  await eventually('the counter to rise', 30_000, async () => (((await counter()) ?? 0) > before + 3 ? true : null));
  expect(await qemuPid('host2', VM)).toBe(pid);
  expect((await getVm(VM)).status.epoch).toBe(status.epoch);
}

describe('the agent of a host', () => {
  it('killed -9: the guest goes on, and the next agent adopts it', async () => {
    await unharmed(async () => {
      await inside('host2', 'pkill', '-9', '-f', 'agent/src/main.ts');
      await eventually('the agent to report the VM again', 30_000, () => runsNow(VM));
    });
    // It still obeys.
    expect(await busbarOk(['vm', 'log', VM])).toContain('busbar-guest: ready');
  });

  it('its libvirtd killed -9: the guest goes on, and the agent reconnects by itself', async () => {
    await unharmed(async () => {
      await inside('host2', 'pkill', '-9', '-x', 'libvirtd');
      await eventually('libvirt to answer', 60_000, async () =>
        (await inside('host2', 'virsh', 'list', '--name')).includes(VM) ? true : null,
      );
      await eventually('host2 to be ready', 60_000, async () => {
        const host = await json<{ status: { state: string } }>(['host', 'get', 'host2']);
        return host.status.state === 'HOST_STATE_READY' ? true : null;
      });
    });
  });

  it('its native child killed -9: the guest goes on, and the child is replaced', async () => {
    await unharmed(async () => {
      await inside('host2', 'pkill', '-9', '-f', 'agent/src/libvirt/ffi/child');
      await eventually('the agent to report the VM', 30_000, () => runsNow(VM));
    });
  });
});

describe('the leader', () => {
  it.each([0, 60, 120, 250, 500, 900])(
    'killed -9 %i ms after a VM creation was accepted: the next one finishes it, once',
    async (delayMs) => {
      const name = `orphan-${delayMs}`;
      const was = await leader();
      const pid = await inside(was, 'pgrep', '-o', '-f', 'controller/src/main.ts');
      const accepted = await busbar([
        'vm',
        'create',
        name,
        '--vcpus',
        '1',
        '--memory',
        '128MiB',
        '--image',
        'busbar-guest',
        '--no-wait',
        '-o',
        'json',
      ]);
      expect(accepted.stderr).toBe('');
      await new Promise((resolve) => setTimeout(resolve, delayMs));
      await inside(was, 'kill', '-9', pid);
      const { operation } = JSON.parse(accepted.stdout) as { operation: { id: string } };
      expect((await busbar(['operation', 'wait', operation.id], { timeoutMs: 120_000 })).stderr).not.toMatch(/^error/m);
      const vm = await getVm(name);
      expect(vm.status.phase).toBe('VM_PHASE_RUNNING');
      expect(vm.status.epoch).toBe('1');
      const pids = await Promise.all(HOSTS.map((host) => qemuPid(host, name)));
      expect(pids.filter((found) => found !== '')).toHaveLength(1);
      const { volumes } = await json<{ volumes: { meta: { name: string } }[] }>(['volume', 'list']);
      expect(volumes.filter((volume) => volume.meta.name.startsWith(`${name}-`))).toHaveLength(1);
      await busbarOk(['vm', 'delete', name, '--force']);
    },
  );
});

describe('two leaders', () => {
  it('the old one, frozen in the middle of its work, writes nothing when it thaws, and follows', async () => {
    const was = await leader();
    const other = HOSTS.find((host) => host !== was) ?? '';
    const signal = (name: string) => inside(was, 'pkill', `-${name}`, '-o', '-f', 'controller/src/main.ts');
    const ended = async () =>
      Number(await inside(was, 'grep', '-c', 'no longer the leader', '/var/log/busbar/controller/current'));
    const [before, endedBefore] = [await records(other), await ended()];
    const create = ['vm', 'create', 'between-1', '--vcpus', '1', '--memory', '128MiB', '--image', 'busbar-guest'];
    expect((await busbar([...create, '--no-wait'])).code).toBe(0);
    await signal('STOP');
    let settled: ReadonlyMap<string, string>;
    try {
      await eventually('another leader', 30_000, async () => {
        const now = (await records(other)).get('busbar/leader');
        return now !== undefined && now !== before.get('busbar/leader') ? now : null;
      });
      // Asked of the store: the frozen one must not be able to delay the answer.
      settled = await eventually('the creation to end, and the records to rest', 60_000, async () => {
        const one = await records(other);
        await pause(1_000);
        const two = await records(other);
        const done = [...two.values()].some(
          (value) => /CreateVm/.test(value) && /"OPERATION_STATE_SUCCEEDED"/.test(value) && /between-1/.test(value),
        );
        return done && JSON.stringify([...one]) === JSON.stringify([...two]) ? two : null;
      });
    } finally {
      await signal('CONT');
    }
    await eventually('the old leader to see that its term is over', 15_000, async () =>
      (await ended()) > endedBefore ? true : null,
    );
    await pause(2_000);
    expect([...(await records(other))]).toEqual([...settled]);
    const vm = await getVm('between-1');
    expect([vm.status.phase, vm.status.epoch]).toEqual(['VM_PHASE_RUNNING', '1']);
    expect((await Promise.all(HOSTS.map((host) => qemuPid(host, 'between-1')))).filter(Boolean)).toHaveLength(1);
    expect(await leader()).not.toBe(was);
    await busbarOk(['vm', 'delete', 'between-1', '--force']);
  });
});

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

describe('etcd without a quorum', () => {
  it('refuses within 5 s with a clear error, leaves nothing half done, and harms no guest', async () => {
    const [volume, request] = ['nobody', '7f0c4f5e-2a57-4c0d-9e0b-6d3a1f2b8c11'];
    const create = ['volume', 'create', volume, '--size', '1MiB', '--request-id', request];
    const before = await busbarOk(['volume', 'list', '-o', 'json']);
    let told = '';
    await unharmed(async () => {
      const stop = (host: string, signal: string) => inside(host, 'pkill', `-${signal}`, '-x', 'etcd');
      await Promise.all([stop('host1', 'STOP'), stop('host3', 'STOP')]);
      try {
        const began = performance.now();
        const refused = await busbar([...create, '--timeout', '20s']);
        const tookMs = performance.now() - began;
        expect(refused.code).toBe(5);
        expect(refused.stderr).toMatch(/cluster store|quorum/);
        // The one member that is left may have taken the write and still carry it through: then nobody may be told "refused".
        told = refused.stderr;
        expect(tookMs).toBeLessThan(6_500); // 5 s, and the start of the command itself on a busy machine
        const cluster = await busbar(['cluster', 'get', '-o', 'json']);
        expect(cluster.code).toBe(0);
        expect((JSON.parse(cluster.stdout) as { store: { healthy?: boolean } }).store.healthy ?? false).toBe(false);
      } finally {
        await Promise.all([stop('host1', 'CONT'), stop('host3', 'CONT')]);
      }
      await eventually('the API to answer again', 60_000, async () =>
        (await busbar(['volume', 'list'])).code === 0 ? true : null,
      );
      await leader();
    });
    const names = (text: string) => [...text.matchAll(/"name": ?"([^"]*)"/g)].map((match) => match[1]);
    const after = names(await busbarOk(['volume', 'list', '-o', 'json']));
    if (after.includes(volume)) expect(told).toContain('STORE_OUTCOME_UNKNOWN');
    else expect(after).toEqual(names(before));
    if (told.includes('STORE_OUTCOME_UNKNOWN')) expect(told).toContain(`--request-id ${request}`);
    // What the user is told to do: the same request again. It ends with one volume, whatever became of the first.
    await busbarOk(create);
    await busbarOk(['volume', 'delete', volume]);
    expect(names(await busbarOk(['volume', 'list', '-o', 'json']))).toEqual(names(before));
  });
});

describe('a Ceph whose placement groups are inactive', () => {
  it('ends the call with the reason, and agents and API stay responsive', async () => {
    const stop = (host: string, signal: string) => inside(host, 'pkill', `-${signal}`, '-x', 'ceph-osd');
    await Promise.all([stop('host1', 'STOP'), stop('host3', 'STOP')]);
    try {
      const accepted = await busbar(['volume', 'create', 'stuck', '--size', '8MiB', '--no-wait', '-o', 'json']);
      const { operation } = JSON.parse(accepted.stdout) as { operation: { id: string } };
      const told = await eventually('the operation to tell the reason', 60_000, async () => {
        const now = await json<{ message?: string }>(['operation', 'get', operation.id]);
        return /retrying/.test(now.message ?? '') ? (now.message ?? '') : null;
      });
      expect(told).toMatch(/storage|pool|Ceph|OSD|osd/);
      const began = performance.now();
      await busbarOk(['host', 'list']);
      expect(performance.now() - began).toBeLessThan(3_000);
      const hosts = await json<{ hosts: { status: { state: string } }[] }>(['host', 'list']);
      expect(hosts.hosts.map((host) => host.status.state)).toEqual([
        'HOST_STATE_READY',
        'HOST_STATE_READY',
        'HOST_STATE_READY',
      ]);
      await busbarOk(['operation', 'cancel', operation.id, '--no-wait']);
      await Promise.all([stop('host1', 'CONT'), stop('host3', 'CONT')]);
      await eventually('the operation to end', 120_000, async () => {
        const now = await json<{ state: string }>(['operation', 'get', operation.id]);
        return ['OPERATION_STATE_CANCELLED', 'OPERATION_STATE_SUCCEEDED'].includes(now.state) ? true : null;
      });
    } finally {
      await Promise.all([stop('host1', 'CONT'), stop('host3', 'CONT')]);
    }
    await waitHealthy(LAB);
    await eventually('the guest to go on', 60_000, counter);
    await busbar(['volume', 'delete', 'stuck']);
  });
});

describe('a VM whose QEMU does not start', () => {
  it("tells QEMU's reason, and stays stopped", async () => {
    // The pool loses the disk behind Busbar's back: QEMU cannot open it.
    await busbarOk(['apply', '-f', '-'], { input: guestYaml({ name: 'broken-1', runPolicy: 'stopped' }) });
    const vm = await getVm('broken-1');
    const data = vm.status.disks.find((disk) => disk.name === 'data');
    await labCeph(LAB, ['osd', 'pool', 'stats']); // the admin's door works
    await inside(
      'host1',
      'rbd',
      '--id',
      'busbar-controller',
      '--keyring',
      '/etc/busbar/ceph/busbar-controller.keyring',
      'rm',
      `busbar/volume.${data?.volume.id}`,
    );
    const started = await busbar(['vm', 'start', 'broken-1']);
    expect(started.code).toBe(1);
    expect(started.stderr).toMatch(/did not start/);
    expect(started.stderr).toMatch(/No such file|error reading header|rbd/i);
    const after = await getVm('broken-1');
    expect(after.status.message).toMatch(/No such file|error reading header|rbd/i);
    await busbarOk(['vm', 'delete', 'broken-1', '--force']);
  });
});

describe('a host', () => {
  it('that loses its power and is revived is ready again without a person; its VM starts with a new epoch', async () => {
    await busbarOk(['apply', '-f', '-'], { input: guestYaml({ name: 'returns-1', pinnedHost: 'host3' }) });
    const before = await json<{ status: { bootId: string } }>(['host', 'get', 'host3']);
    const { epoch } = (await getVm('returns-1')).status;
    await killHost(LAB, 'host3');
    await eventually('host3 to be unreachable', 60_000, async () => {
      const host = await json<{ status: { state: string } }>(['host', 'get', 'host3']);
      return host.status.state === 'HOST_STATE_UNREACHABLE' ? true : null;
    });
    await eventually('its VM to be unknown', 30_000, async () =>
      (await getVm('returns-1')).status.phase === 'VM_PHASE_UNKNOWN' ? true : null,
    );
    await reviveHost(LAB, 'host3', { healthy: true });
    await eventually('host3 to be ready', 60_000, async () => {
      const host = await json<{ status: { state: string; bootId: string } }>(['host', 'get', 'host3']);
      return host.status.state === 'HOST_STATE_READY' && host.status.bootId !== before.status.bootId ? true : null;
    });
    await eventually('its VM to run again', 60_000, async () => {
      const { status } = await getVm('returns-1');
      return status.phase === 'VM_PHASE_RUNNING' && Number(status.epoch) > Number(epoch) ? true : null;
    });
    await busbarOk(['vm', 'delete', 'returns-1', '--force']);
  });

  it('frozen for ten seconds loses its lease and nothing else', async () => {
    const pid = await qemuPid('host2', VM);
    await freezeHost(LAB, 'host2');
    try {
      await eventually('host2 to be unreachable', 30_000, async () => {
        const host = await json<{ status: { state: string } }>(['host', 'get', 'host2']);
        return host.status.state === 'HOST_STATE_UNREACHABLE' ? true : null;
      });
    } finally {
      await thawHost(LAB, 'host2');
    }
    await eventually('the VM to be known again', 60_000, () => runsNow(VM));
    expect(await qemuPid('host2', VM)).toBe(pid);
    await waitHealthy(LAB);
  });

  it('cut off the management network is unreachable, its guest counts on, and it comes back when healed', async () => {
    await unharmed(async () => {
      await partitionHost(LAB, 'host2', ['management']);
      try {
        await eventually('host2 to be unreachable', 60_000, async () => {
          const result = await busbar(['host', 'get', 'host2', '-o', 'json']);
          return result.code === 0 && result.stdout.includes('HOST_STATE_UNREACHABLE') ? true : null;
        });
        const own = await hostExec(LAB, 'host2', ['virsh', 'list', '--name'], { mayFail: true });
        expect(own.stdout).toContain(VM);
      } finally {
        await healHost(LAB, 'host2');
      }
      await eventually('the VM to be known again', 60_000, () => runsNow(VM));
    });
    await waitHealthy(LAB);
  });
});
