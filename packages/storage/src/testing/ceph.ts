// SPDX-License-Identifier: Apache-2.0
/**
 * A real Ceph cluster of one monitor, one manager and one OSD on loopback, for tests. Everything is
 * below one temporary directory; the daemons die with this process, whatever happens to it.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { controllerMonCaps } from '../rbd/access.ts';

const run = promisify(execFile);
const PROGRAMS = ['ceph-mon', 'ceph-mgr', 'ceph-osd', 'ceph', 'rbd', 'ceph-authtool', 'monmaptool', 'setpriv'];
const PREFIX = 'busbar-ceph-';

export interface MiniCeph {
  readonly dir: string;
  readonly conf: string;
  readonly pool: string;
  readonly user: string;
  /** Of `user`, who may do what Busbar's controller may, and no more. */
  readonly keyring: string;
  readonly adminKeyring: string;
  /** How long the start took, until HEALTH_OK or only warnings. */
  readonly startMs: number;
  /** Runs `ceph` as the administrator. */
  ceph(...args: string[]): Promise<string>;
  /** Runs `rbd` as Busbar's user. */
  rbd(...args: string[]): Promise<string>;
  /** Freezes the OSD: every PG stops answering, and nothing tells the monitor. */
  freezeOsd(): void;
  thawOsd(): void;
  stop(): Promise<void>;
}

function key(): string {
  // struct ceph_crypto_key: type 1 (AES), creation time, length, secret.
  const header = Buffer.alloc(12);
  header.writeUInt16LE(1, 0);
  header.writeUInt32LE(Math.floor(Date.now() / 1000), 2);
  header.writeUInt16LE(16, 10);
  return Buffer.concat([header, randomBytes(16)]).toString('base64');
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** Directories of runs that were killed before they could clean up. */
async function removeStale(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    if (!name.startsWith(PREFIX)) continue;
    const pid = name.slice(PREFIX.length).split('-')[0] ?? '';
    if (!existsSync(`/proc/${pid}`)) await rm(join(tmpdir(), name), { recursive: true, force: true });
  }
}

async function requirePrograms(): Promise<void> {
  const path = (process.env.PATH ?? '').split(':');
  const missing = PROGRAMS.filter((program) => !path.some((dir) => existsSync(join(dir, program))));
  if (missing.length === 0) return;
  throw new Error(
    `this test needs Ceph, and these programs are missing: ${missing.join(', ')}. ` +
      'On Debian: apt install ceph-mon ceph-mgr ceph-osd ceph-common (and librados2, librbd1).',
  );
}

async function until(what: string, limitMs: number, condition: () => Promise<boolean>): Promise<void> {
  const endMs = performance.now() + limitMs;
  let last: unknown;
  while (performance.now() < endMs) {
    try {
      if (await condition()) return;
    } catch (error) {
      last = error;
    }
    await delay(200);
  }
  throw new Error(`mini Ceph: ${what} did not happen within ${limitMs} ms`, { cause: last });
}

export async function startMiniCeph(options: { readonly osdBytes?: number } = {}): Promise<MiniCeph> {
  const startedAtMs = performance.now();
  await requirePrograms();
  await removeStale();
  const dir = await mkdtemp(join(tmpdir(), `${PREFIX}${process.pid}-`));
  const daemons: ChildProcess[] = [];
  const at = (...parts: string[]) => join(dir, ...parts);
  const conf = at('ceph.conf');
  const adminKeyring = at('admin.keyring');
  const user = 'busbar-controller';
  const keyring = at('user.keyring');
  const pool = 'busbar';

  const daemon = (program: string, ...args: string[]) => {
    const command = ['--pdeathsig', 'KILL', program, '-f', '--conf', conf, ...args];
    const child = spawn('setpriv', command, { stdio: 'ignore' });
    daemons.push(child);
    return child;
  };
  const stop = async () => {
    const running = daemons.filter((child) => child.exitCode === null && child.signalCode === null);
    const gone = running.map((child) => new Promise((done) => child.once('exit', done)));
    for (const child of daemons) child.kill('SIGKILL');
    await Promise.race([Promise.all(gone), delay(5000)]);
    await rm(dir, { recursive: true, force: true, maxRetries: 3 });
  };
  const tool = async (program: string, ...args: string[]): Promise<string> =>
    (await run(program, args, { timeout: 30_000, maxBuffer: 1 << 26 })).stdout;
  const ceph = (...args: string[]) =>
    tool('ceph', '--conf', conf, '--keyring', adminKeyring, '--connect-timeout', '5', ...args);

  try {
    const fsid = randomUUID();
    const osdUuid = randomUUID();
    const port = await freePort();
    const keys = { admin: key(), user: key(), mgr: key(), osd: key() };
    const entry = (name: string, secret: string, caps: string[]) =>
      [`[${name}]`, `key = ${secret}`, ...caps.map((cap) => `caps ${cap}`), ''].join('\n');
    await Promise.all(['mon', 'mgr', 'osd', 'run'].map((name) => mkdir(at(name))));
    await writeFile(
      conf,
      `[global]
fsid = ${fsid}
mon host = [v2:127.0.0.1:${port}]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
run dir = ${at('run')}
admin socket = ${at('run')}/$name.$pid.asok
log file = ${at('run')}/$name.log
crash dir = ${at('run')}
osd pool default size = 1
osd pool default min size = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon allow pool delete = true
mon warn on pool no redundancy = false
mon data avail warn = 2
mon data avail crit = 1
auth allow insecure global id reclaim = false
[mon]
mon data = ${at('mon')}
[mgr]
mgr data = ${at('mgr')}
mgr initial modules =
mgr stats period = 1
[osd]
osd data = ${at('osd')}
osd objectstore = bluestore
bluestore block size = ${options.osdBytes ?? 3 * 1024 ** 3}
bluestore block create = true
bluestore fsck on mount = false
osd memory target = 939524096
osd mon report interval = 1
osd class update on start = false
`,
    );
    const admin = entry('client.admin', keys.admin, ['mon = "allow *"', 'osd = "allow *"', 'mgr = "allow *"']);
    // A keyring takes backslashes before quotes.
    const monCaps = controllerMonCaps(pool).replaceAll('"', '\\"');
    const rbdCaps = [`mon = "${monCaps}"`, `osd = "profile rbd pool=${pool}"`, `mgr = "profile rbd pool=${pool}"`];
    await writeFile(adminKeyring, admin, { mode: 0o600 });
    await writeFile(keyring, entry(`client.${user}`, keys.user, []), { mode: 0o600 });
    await writeFile(at('mgr', 'keyring'), entry('mgr.x', keys.mgr, []), { mode: 0o600 });
    await writeFile(at('osd', 'keyring'), entry('osd.0', keys.osd, []), { mode: 0o600 });
    // The monitor takes all keys over at mkfs, which saves a dozen `ceph auth` commands.
    const initial = [
      entry('mon.', key(), ['mon = "allow *"']),
      admin,
      entry(`client.${user}`, keys.user, rbdCaps),
      entry('mgr.x', keys.mgr, ['mon = "profile mgr"', 'osd = "allow *"']),
      entry('osd.0', keys.osd, ['mon = "profile osd"', 'osd = "allow *"', 'mgr = "profile osd"']),
    ];
    await writeFile(at('initial.keyring'), initial.join('\n'), { mode: 0o600 });
    const monmap = at('monmap');
    await tool('monmaptool', '--create', '--fsid', fsid, '--addv', 'a', `[v2:127.0.0.1:${port}]`, monmap);
    const asMon = ['-i', 'a', '--conf', conf, '--monmap', monmap, '--keyring', at('initial.keyring')];
    await tool('ceph-mon', '--mkfs', ...asMon);
    daemon('ceph-mon', '-i', 'a');
    await until('a monitor quorum', 20_000, async () => (await ceph('mon', 'stat')).includes('quorum'));
    daemon('ceph-mgr', '-i', 'x');
    await ceph('osd', 'new', osdUuid, '0');
    await tool('ceph-osd', '-i', '0', '--conf', conf, '--mkfs', '--osd-uuid', osdUuid);
    const osd = daemon('ceph-osd', '-i', '0');
    await ceph('osd', 'pool', 'create', pool, '8');
    await ceph('osd', 'pool', 'application', 'enable', pool, 'rbd');
    await until('every PG active and the statistics in', 60_000, async () => {
      const status = JSON.parse(await ceph('status', '-f', 'json')) as {
        pgmap: { pgs_by_state?: { state_name: string }[]; bytes_total: number };
        mgrmap: { available: boolean };
      };
      const states = status.pgmap.pgs_by_state ?? [];
      const active = states.length > 0 && states.every((pgs) => pgs.state_name === 'active+clean');
      return active && status.mgrmap.available && status.pgmap.bytes_total > 0;
    });
    return {
      dir,
      conf,
      pool,
      user,
      keyring,
      adminKeyring,
      startMs: performance.now() - startedAtMs,
      ceph,
      rbd: (...args) => tool('rbd', '--conf', conf, '--id', user, '--keyring', keyring, '--pool', pool, ...args),
      freezeOsd: () => void osd.kill('SIGSTOP'),
      thawOsd: () => void osd.kill('SIGCONT'),
      stop,
    };
  } catch (error) {
    const log = await readFile(at('run', 'mon.a.log'), 'utf8').catch(() => '');
    await stop();
    throw new Error(`the mini Ceph cluster did not start; end of the monitor's log: ${log.slice(-1500)}`, {
      cause: error,
    });
  }
}
