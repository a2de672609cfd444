// SPDX-License-Identifier: Apache-2.0
// Makes the lab's Ceph cluster. Keys and monitor map are made beforehand, so that monitors, managers and OSDs start
// at once and only the OSD numbers and the pool are left for commands.
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { monitorsWaiting } from './ceph-socket.ts';
import { createSetupCgroups } from './cgroup.ts';
import { cephDir, hostRoot, JOIN_CGROUPS } from './paths.ts';
import type { HostPlan, LabPlan } from './plan.ts';
import {
  CONTROLLER_USER,
  cephEntities,
  cephxSecret,
  monitorAddresses,
  POOL,
  renderCephConf,
  renderKeyring,
} from './render-ceph.ts';
import { CommandError, type RunOptions, type RunResult, run, until } from './run.ts';

/** Runs `ceph` as the administrator, from the root namespace, whose key never enters a host. */
export function cephArgv(lab: string, program: string, args: readonly string[]): string[] {
  return [program, '-c', join(cephDir(lab), 'admin.conf'), '--name', 'client.admin', ...args];
}

export async function ceph(lab: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  return await run(await inSetup(lab, cephArgv(lab, 'ceph', ['--connect-timeout', '5', ...args])), {
    timeoutMs: 30_000,
    ...options,
  });
}

/** In the lab's cgroup, so that it does not outlive the lab when this process is killed. */
async function inSetup(lab: string, argv: readonly string[]): Promise<string[]> {
  return ['/bin/sh', JOIN_CGROUPS, ...(await createSetupCgroups(lab)), '--', ...argv];
}

/** Everything before the first daemon: keys, monitor map, and the data directories of monitors and OSDs. */
export async function installCeph(plan: LabPlan): Promise<void> {
  const lab = plan.spec.name;
  const directory = cephDir(lab);
  await mkdir(directory, { recursive: true });
  const conf = join(directory, 'ceph.conf');
  await writeFile(conf, renderCephConf(plan));
  await writeFile(
    join(directory, 'admin.conf'),
    `${renderCephConf(plan)}\n[client.admin]\nkeyring = ${join(directory, 'admin.keyring')}\n`,
  );
  const created = Math.floor(Date.now() / 1000);
  const entries = cephEntities(plan).map((entity) => ({ ...entity, secret: cephxSecret(randomBytes(16), created) }));
  const secretOf = (name: string): string => {
    const entry = entries.find((candidate) => candidate.name === name);
    if (entry === undefined) throw new Error(`no key for ${name}`);
    return entry.secret;
  };
  const keyring = async (file: string, name: string): Promise<void> => {
    await mkdir(join(file, '..'), { recursive: true });
    await writeFile(file, renderKeyring([{ name, secret: secretOf(name) }]), { mode: 0o600 });
  };
  const all = join(directory, 'all.keyring');
  await writeFile(all, renderKeyring(entries), { mode: 0o600 });
  await keyring(join(directory, 'admin.keyring'), 'client.admin');
  const monmap = join(directory, 'monmap');
  const members = plan.voters.flatMap((host) => ['--addv', host.name, monitorAddresses(host)]);
  await run([
    'monmaptool',
    '--create',
    '--clobber',
    '--fsid',
    plan.spec.fsid,
    '--enable-all-features',
    ...members,
    monmap,
  ]);

  const make = async (argv: readonly string[]): Promise<void> => void (await run(await inSetup(lab, argv)));
  const work = plan.hosts.map(async (host) => {
    const root = (path: string): string => hostRoot(lab, host.name, path);
    const controllers = `/etc/busbar/ceph/${CONTROLLER_USER}.keyring`;
    if (host.voter) await keyring(root(controllers), `client.${CONTROLLER_USER}`);
    if (host.mgr) await keyring(root(`/var/lib/ceph/mgr/ceph-${host.name}/keyring`), `mgr.${host.name}`);
    if (host.voter) {
      const data = root(`/var/lib/ceph/mon/ceph-${host.name}`);
      await mkdir(data, { recursive: true });
      await make([
        'ceph-mon',
        '--mkfs',
        '-c',
        conf,
        '-i',
        host.name,
        '--mon-data',
        data,
        '--monmap',
        monmap,
        '--keyring',
        all,
      ]);
    }
    if (host.osd !== undefined) {
      const data = root(`/var/lib/ceph/osd/ceph-${host.osd}`);
      const uuid = randomUUID();
      await mkdir(data, { recursive: true });
      await keyring(join(data, 'keyring'), `osd.${host.osd}`);
      await make([
        'ceph-osd',
        '--mkfs',
        '-c',
        conf,
        '-i',
        String(host.osd),
        '--osd-data',
        data,
        '--osd-uuid',
        uuid,
        '--no-mon-config',
        '--keyring',
        join(data, 'keyring'),
      ]);
    }
  });
  // All have ended, well or not, before anybody clears up under them.
  const failed = (await Promise.allSettled(work)).find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}

interface Status {
  readonly health: {
    readonly status: string;
    readonly checks: Readonly<Record<string, { readonly summary: { readonly message: string } }>>;
  };
  readonly quorum_names: readonly string[];
  readonly osdmap: { readonly num_osds: number; readonly num_up_osds: number; readonly num_in_osds: number };
  readonly mgrmap?: { readonly available?: boolean };
}

export interface CephHealth {
  /** HEALTH_OK, HEALTH_WARN, HEALTH_ERR, or UNREACHABLE. */
  readonly health: string;
  readonly checks: readonly string[];
  readonly monsInQuorum: readonly string[];
  readonly osdsUp: number;
  readonly osds: number;
}

export async function cephHealth(lab: string): Promise<CephHealth> {
  const answer = await ceph(lab, ['status', '--format', 'json'], { mayFail: true, timeoutMs: 10_000 }).catch(
    (error: Error) => ({ code: 1, stdout: '', stderr: error.message }),
  );
  if (answer.code !== 0) {
    return {
      health: 'UNREACHABLE',
      checks: [answer.stderr.trim().split('\n').at(-1) ?? ''],
      monsInQuorum: [],
      osdsUp: 0,
      osds: 0,
    };
  }
  return readStatus(answer.stdout);
}

export function readStatus(json: string): CephHealth {
  const status = JSON.parse(json) as Status;
  return {
    health: status.health.status,
    checks: Object.entries(status.health.checks).map(([code, check]) => `${code}: ${check.summary.message}`),
    monsInQuorum: [...status.quorum_names].sort(),
    osdsUp: status.osdmap.num_up_osds,
    osds: status.osdmap.num_osds,
  };
}

/**
 * What has to be asked of the running monitors. Each `ceph` costs half a second of Python, so nothing here asks twice
 * what an admin socket tells for free. The pool comes last: where it exists, all else does.
 */
export async function createOsdsAndPool(plan: LabPlan, progress: (line: string) => void): Promise<void> {
  const lab = plan.spec.name;
  const osds = plan.hosts.filter((host): host is HostPlan & { osd: number } => host.osd !== undefined);
  await until(
    'Ceph monitors forming a quorum',
    async () => {
      const waiting = await monitorsWaiting(plan);
      return waiting.length === 0 ? { value: undefined } : { waiting: waiting.join(', ') };
    },
    { timeoutMs: 90_000 },
  );
  progress('Ceph monitors have a quorum');
  const pools = JSON.parse((await ceph(lab, ['osd', 'pool', 'ls', '--format', 'json'])).stdout) as string[];
  if (!pools.includes(POOL)) {
    // In order: the monitors give out numbers one after the other, and a gap is not a number they give.
    for (const host of osds) {
      const uuid = (await readFile(hostRoot(lab, host.name, `/var/lib/ceph/osd/ceph-${host.osd}/fsid`), 'utf8')).trim();
      await command(lab, ['osd', 'new', uuid, String(host.osd)]);
    }
    await command(lab, ['osd', 'pool', 'create', POOL, '32', '32', 'replicated']);
  }
  // Needs active placement groups, hence running OSDs; also enables the application "rbd".
  await run(await inSetup(lab, cephArgv(lab, 'rbd', ['pool', 'init', POOL])), { timeoutMs: 90_000 });
  progress(`Ceph has ${osds.length} OSDs, and its pool "${POOL}" takes writes`);
}

/** EAGAIN: the monitors are at the same record already, with an OSD that is booting for example. */
async function command(lab: string, args: readonly string[]): Promise<void> {
  await until(
    `ceph ${args.join(' ')}`,
    async () => {
      const answer = await ceph(lab, args, { mayFail: true });
      if (answer.code === 0) return { value: undefined };
      if (!answer.stderr.includes('EAGAIN')) throw new CommandError(['ceph', ...args], `exit ${answer.code}`, answer);
      return { waiting: answer.stderr.trim() };
    },
    { timeoutMs: 30_000, everyMs: 100 },
  );
}

export async function waitForHealth(lab: string, timeoutMs: number): Promise<void> {
  await until(
    'Ceph becoming HEALTH_OK',
    async () => {
      const health = await cephHealth(lab);
      return health.health === 'HEALTH_OK' && health.osdsUp === health.osds
        ? { value: undefined }
        : {
            waiting: `it says ${health.health}: ${health.checks.join('; ')} (${health.osdsUp} of ${health.osds} OSDs up)`,
          };
    },
    { timeoutMs, everyMs: 500 },
  );
}
