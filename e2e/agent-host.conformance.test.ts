// SPDX-License-Identifier: Apache-2.0
import { link, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileDisk } from '@busbar/agent/driver/domain.fixture';
import { seededRandom } from '@busbar/core/random';
import { DesiredRun, DomainState } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { AgentHost, vmId } from './agent-host.fixture.ts';

let host: AgentHost;
beforeAll(async () => {
  host = await AgentHost.create();
});
afterAll(() => host?.destroy());

const SOON = { timeout: 60_000, interval: 20 } as const;
const state = (n: number) => host.reported(n)?.state;

describe('the agent, killed 100 times in the life of its VMs', () => {
  /**
   * Goal: an agent may die at any moment. Method: kill -9 at moments drawn from one seed, soon after its start, after it has
   * connected, after it has reported, and in the middle of starts and stops, while a leader starts and stops VMs as ours does:
   * a new epoch only once the end of the last one was reported. Judged by the kernel (QEMU processes) and libvirt's own logs.
   */
  const KILLS = Number(process.env['BUSBAR_AGENT_KILLS'] ?? 100);
  const seed = Number(process.env['BUSBAR_SEED'] ?? 20_261_124);
  const STEADY = 1;
  const BUSY = [2, 3, 4, 5];

  test(`seed ${seed}`, async ({ annotate }) => {
    const random = seededRandom(seed);
    const startedAtMs = performance.now();
    const wanted = new Map([STEADY, ...BUSY].map((n) => [n, { epoch: 1n, run: DesiredRun.RUNNING as DesiredRun }]));
    const violations: string[] = [];
    const pids = new Map<string, Set<number>>();
    const life = { starting: 0, running: 0, stopping: 0, ended: 0 };
    let over = false;
    const desire = () => host.desire([...wanted].map(([n, { epoch, run }]) => host.desired(n, epoch, run)));

    const watchKernel = async () => {
      while (!over) {
        for (const [uuid, found] of await host.qemus()) {
          if (found.length > 1) violations.push(`${uuid} has QEMUs ${found.join(', ')} at once`);
          for (const pid of found) pids.set(uuid, (pids.get(uuid) ?? new Set()).add(pid));
        }
        // A twin would live on; looking costs a walk through /proc.
        await sleep(100);
      }
    };
    const lead = async () => {
      while (!over) {
        let changed = false;
        for (const n of BUSY) {
          const vm = wanted.get(n);
          const told = host.reported(n);
          if (vm === undefined || told?.epoch !== vm.epoch) continue;
          if (told.state === DomainState.ENDED) {
            life.ended++;
            const alive = (await host.qemus()).get(vmId(n));
            if (alive !== undefined) violations.push(`VM ${n} was reported as ended while QEMU ${alive.join()} ran`);
            wanted.set(n, { epoch: vm.epoch + 1n, run: DesiredRun.RUNNING });
            changed = true;
          } else if (told.state === DomainState.RUNNING && vm.run === DesiredRun.RUNNING && random.next() < 0.05) {
            wanted.set(n, { ...vm, run: DesiredRun.POWER_OFF });
            changed = true;
          }
        }
        if (changed) desire();
        await sleep(20);
      }
    };
    const happens = async (condition: () => boolean, limitMs: number) => {
      const endMs = performance.now() + limitMs;
      while (!condition() && performance.now() < endMs) await sleep(10);
    };

    desire();
    host.startAgent();
    await expect
      .poll(() => [STEADY, ...BUSY].map(state), SOON)
      .toEqual([STEADY, ...BUSY].map(() => DomainState.RUNNING));
    const [steady] = (await host.qemus()).get(vmId(STEADY)) ?? [];
    expect(steady).toBeDefined();
    const loops = [watchKernel(), lead()];

    for (let kill = 0; kill < KILLS; kill++) {
      const instance = host.observed?.hello.agentInstanceId;
      const isNew = () => host.observed?.connected === true && host.observed.hello.agentInstanceId !== instance;
      const acts = () => BUSY.some((n) => state(n) === DomainState.STARTING || state(n) === DomainState.STOPPING);
      const moment = random.next();
      if (!host.running) host.startAgent();
      if (moment < 0.3) await sleep(random.next() * 300);
      else {
        await happens(isNew, 10_000);
        if (moment >= 0.6) await happens(() => isNew() && host.observed?.report !== null, 10_000);
        if (moment >= 0.8) await happens(acts, 500);
        // A start that a death left open is waited for (5 s) before its VM may go on: some lives are long enough.
        if (moment >= 0.98) await happens(() => BUSY.every((n) => state(n) === DomainState.RUNNING), 6500);
        await sleep(random.next() * 150);
      }
      for (const n of BUSY) {
        if (state(n) === DomainState.STARTING) life.starting++;
        else if (state(n) === DomainState.STOPPING) life.stopping++;
        else life.running++;
      }
      expect(host.stderr, 'the agent ended by itself').toBe('');
      await host.killAgent();
      // Whole after every death, or not there at all.
      await host.memory();
    }

    host.startAgent();
    const settled = () => [...wanted].map(([n, vm]) => [host.reported(n)?.epoch === vm.epoch, state(n)]);
    over = true;
    await Promise.all(loops);
    for (const [n, vm] of wanted) wanted.set(n, { ...vm, run: DesiredRun.RUNNING });
    desire();
    // One that was being stopped ends first.
    await expect
      .poll(() => {
        for (const n of BUSY) {
          const vm = wanted.get(n);
          if (vm !== undefined && host.reported(n)?.epoch === vm.epoch && state(n) === DomainState.ENDED) {
            wanted.set(n, { epoch: vm.epoch + 1n, run: DesiredRun.RUNNING });
            desire();
          }
        }
        return settled();
      }, SOON)
      .toEqual([STEADY, ...BUSY].map(() => [true, DomainState.RUNNING]));

    expect(violations).toEqual([]);
    expect((await host.qemus()).get(vmId(STEADY))).toEqual([steady]);
    await host.echo(STEADY, 'still-here');
    const memory = await host.memory();
    for (const [n, { epoch }] of wanted) {
      expect(memory?.vms.get(vmId(n) as never)).toMatchObject({ startedEpoch: epoch, highestEpoch: epoch });
      // An epoch may end before QEMU was there (the agent died between note and start), and never starts twice.
      expect(pids.get(vmId(n))?.size ?? 0).toBeLessThanOrEqual(Number(epoch));
      const log = await host.libvirtd.exec('cat', `/var/log/libvirt/qemu/lone-${n}.log`);
      const starts = log.match(/: starting up libvirt version/g)?.length ?? 0;
      expect(starts).toBeLessThanOrEqual(Number(epoch));
      expect(starts).toBeGreaterThan(0);
    }
    const epochs = BUSY.map((n) => Number(wanted.get(n)?.epoch));
    // Otherwise nothing was killed in the middle of anything.
    expect(epochs.reduce((sum, epoch) => sum + epoch)).toBeGreaterThan(KILLS / 10);
    expect(life.starting + life.stopping).toBeGreaterThan(KILLS / 5);
    const seconds = Math.round((performance.now() - startedAtMs) / 1000);
    await annotate(
      `${KILLS} kills in ${seconds} s; epochs ${epochs.join(', ')}; states when killed ${JSON.stringify(life)}`,
    );
  }, 300_000);
});

describe('a pool that other hosts write to', () => {
  const note = () => host.observed?.report?.message ?? '';
  const pool = () => join(host.libvirtd.dir, 'pool');
  const want = (n: number, epoch: bigint, file: string) =>
    host.desire([
      host.desired(n, epoch, DesiredRun.RUNNING, { disks: [fileDisk(join(pool(), file), { readOnly: true })] }),
    ]);

  test('a link, or a second name, in the place of a volume starts nothing, and the file is still root’s', async () => {
    const secret = join(host.libvirtd.dir, 'secret');
    await writeFile(secret, 'of root', { mode: 0o600 });
    await symlink(secret, join(pool(), 'linked.raw'));
    await link(join(pool(), 'guest.raw'), join(pool(), 'second.raw'));
    if (!host.running) host.startAgent();
    for (const [n, file, why] of [
      [31, 'linked.raw', /goes through the symbolic link "linked.raw"/],
      [32, 'second.raw', /has 2 names/],
      [33, '../secret', /is not in the pool's directory/],
    ] as const) {
      want(n, 1n, file);
      await expect.poll(() => state(n), SOON).toBe(DomainState.ENDED);
      expect(host.reported(n)?.message).toMatch(why);
    }
    expect([(await stat(secret)).uid, (await stat(secret)).mode & 0o777]).toEqual([0, 0o600]);
    // What the agent cannot see in time, the kernel does: nobody follows the link.
    await expect(host.libvirtd.exec('cat', join(pool(), 'linked.raw'))).rejects.toThrow(
      /Too many levels of symbolic links/,
    );
    await rm(join(pool(), 'second.raw'));
    want(34, 1n, 'guest.raw');
    await expect.poll(() => state(34), SOON).toBe(DomainState.RUNNING);
    host.desire([host.desired(34, 1n, DesiredRun.POWER_OFF)]);
    await expect.poll(() => state(34), SOON).toBe(DomainState.ENDED);
  }, 180_000);

  test('mounted so that links are followed: the host says so and starts nothing', async () => {
    const remount = (options: string) => host.libvirtd.exec('mount', '-o', `remount,bind,${options}`, pool());
    await remount('symfollow,nodev,nosuid');
    await expect.poll(note, SOON).toMatch(/mounted without nosymfollow/);
    expect(host.observed?.report?.hypervisorHealthy).toBe(false);
    want(35, 1n, 'guest.raw');
    await expect.poll(note, SOON).toMatch(/not started: lone-35: .*mounted without nosymfollow/);
    expect((await host.qemus()).has(vmId(35))).toBe(false);
    await remount('nosymfollow,nodev,nosuid');
    // The epoch was not used up: it starts by itself.
    await expect.poll(() => state(35), SOON).toBe(DomainState.RUNNING);
    await expect.poll(note, SOON).not.toMatch(/nosymfollow/);
    expect(host.observed?.report?.hypervisorHealthy).toBe(true);
    host.desire([host.desired(35, 1n, DesiredRun.POWER_OFF)]);
    await expect.poll(() => state(35), SOON).toBe(DomainState.ENDED);
  }, 180_000);
});

describe('the disk of the host is full', () => {
  const exec = (...command: string[]) => host.libvirtd.exec('sh', '-c', command.join(' '));
  /** Leaves `kib` free, or nothing at all. */
  const fill = async (dir: string, kib = 0) => {
    await exec(`dd if=/dev/zero of=${dir}/fill bs=4k 2>/dev/null || true`);
    if (kib > 0) await exec(`truncate -s -${kib}K ${dir}/fill`);
  };
  const free = (dir: string) => exec(`rm -f ${dir}/fill`);
  const message = () => host.observed?.report?.message ?? '';
  const wanted = new Map<number, ReturnType<AgentHost['desired']>>();
  const want = (n: number, epoch: bigint, spec = {}) => {
    wanted.set(n, host.desired(n, epoch, DesiredRun.RUNNING, spec));
    host.desire([...wanted.values()]);
  };
  let pid: number | undefined;
  const unharmed = async () => {
    expect((await host.qemus()).get(vmId(11))).toEqual([pid]);
    expect(host.reported(11)).toMatchObject({ epoch: 1n, state: DomainState.RUNNING });
  };

  beforeAll(async () => {
    await host.killAgent();
    for (const dir of [host.stateDir, host.logDir]) await exec(`mount -t tmpfs -o size=2m,mode=0755 tmpfs ${dir}`);
    host.startAgent();
    // The guests of the test before go: the machine's CPUs are few.
    host.desire(
      [],
      [1, 2, 3, 4, 5].map((n) => ({ vmId: vmId(n), epochMax: 1_000_000n })),
    );
    await vi.waitFor(async () => expect((await host.qemus()).size).toBe(0), SOON);
    want(11, 1n);
    await vi.waitFor(() => expect(state(11)).toBe(DomainState.RUNNING), SOON);
    [pid] = (await host.qemus()).get(vmId(11)) ?? [];
  });

  test('nothing is started without a record, the reason is told, what runs runs on; with room it goes on by itself', async () => {
    await fill(host.stateDir);
    want(12, 1n);
    await expect.poll(message, SOON).toMatch(/memory cannot be written.*ENOSPC/);
    await expect.poll(message, SOON).toMatch(/not started: lone-12/);
    await sleep(1500);
    expect((await host.qemus()).has(vmId(12))).toBe(false);
    await unharmed();
    // Nor does the next agent, which finds the record of before and not half of a new one.
    await host.killAgent();
    host.startAgent();
    await expect.poll(() => host.observed?.connected && message(), SOON).toMatch(/memory cannot be written.*ENOSPC/);
    expect((await host.qemus()).has(vmId(12))).toBe(false);
    await unharmed();
    await free(host.stateDir);
    await expect.poll(() => state(12), SOON).toBe(DomainState.RUNNING);
    await expect.poll(message, SOON).not.toMatch(/memory|ENOSPC/);
    await unharmed();
  });

  test('no room for a cloud-init disk: that start fails with the reason, others and the next one do not', async () => {
    await fill(host.stateDir, 100);
    const cloudInit = { instanceId: 'i', hostname: 'h', userData: '#cloud-config\n', networkConfig: '' };
    want(13, 1n, { cloudInit });
    await expect.poll(() => state(13), SOON).toBe(DomainState.ENDED);
    expect(host.reported(13)?.message).toMatch(
      /: the cloud-init disk could not be made: Image size \S+ exceeds free space on media \S+$/,
    );
    want(14, 1n);
    await expect.poll(() => state(14), SOON).toBe(DomainState.RUNNING);
    await free(host.stateDir);
    want(13, 2n, { cloudInit });
    await expect.poll(() => state(13), SOON).toBe(DomainState.RUNNING);
    expect(await exec(`ls -A ${host.stateDir}/seed`)).toBe(`${vmId(13)}.iso\n`);
    await unharmed();
  });

  test('no room for logs: guests start, run and answer all the same', async () => {
    await fill(host.logDir);
    want(15, 1n);
    await expect.poll(() => state(15), SOON).toBe(DomainState.RUNNING);
    await host.echo(15, 'no-log-but-alive', 20_000);
    await host.echo(11, 'me-too', 20_000);
    await free(host.logDir);
    await unharmed();
  });
});
