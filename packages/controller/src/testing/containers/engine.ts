// SPDX-License-Identifier: Apache-2.0
// The container engine of the tests: the machine's own when one answers, else Debian's dockerd, started here.
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { systemClock } from '@busbar/core/clock/clock';
import { waitUntil } from '../../store/examine.fixture.ts';
import { ownMark, PREFIX, removeRemains, removeStale } from './remains.ts';

export interface Engine {
  /** As in DOCKER_HOST. */
  readonly address: string;
  /** In words, for people. */
  readonly what: string;
  stop(): Promise<void>;
}

const MACHINES_OWN = 'unix:///var/run/docker.sock';
/** dockerd is up in 1 s; this is for a machine that is busy with other things. */
const START_DEADLINE_MS = 60_000;
const PING_DEADLINE_MS = 2_000;
const NEEDED = ['/usr/sbin/dockerd', '/usr/bin/setpriv', '/usr/bin/unshare', '/usr/bin/tini'];

/** Finds or starts an engine. Throws with the reason: a suite that skips itself proves nothing. */
export async function findEngine(): Promise<Engine> {
  const asked = process.env.DOCKER_HOST;
  const address = asked ?? MACHINES_OWN;
  if (await answers(address)) return { address, what: `the engine at ${address}`, stop: async () => {} };
  if (asked !== undefined) throw new Error(`no container engine answers at DOCKER_HOST=${asked}`);
  const lacks = lacking();
  if (lacks.length > 0) {
    throw new Error(
      `no container engine answers at ${MACHINES_OWN}, and none can be started here without ${lacks.join(', ')} (Debian: docker.io, util-linux, tini). BUSBAR_TEST_CONTAINERS=off leaves the container tests out.`,
    );
  }
  await removeStale();
  return startEngine();
}

/** What is missing here to start an engine. */
export function lacking(): readonly string[] {
  const root = process.getuid?.() === 0 ? [] : ['root'];
  return [...root, ...NEEDED.filter((path) => !existsSync(path))];
}

/**
 * Everything of this engine lives in process and mount namespaces of its own: with their first process all of it is gone,
 * containers included, and the kernel ends that one when the test process dies, however it dies. No bridge and no packet
 * filter: the containers use the machine's network.
 */
export async function startEngine(): Promise<Engine> {
  const directory = await mkdtemp(join(tmpdir(), PREFIX));
  await writeFile(join(directory, 'owner'), ownMark());
  const address = `unix://${join(directory, 'docker.sock')}`;
  const logFile = join(directory, 'log');
  const log = openSync(logFile, 'a');
  const namespaces = ['--mount', '--pid', '--fork', '--kill-child', '--mount-proc', '--propagation', 'private'];
  const dockerd = [
    ...['--host', address, '--pidfile', join(directory, 'pid')],
    ...['--data-root', join(directory, 'data'), '--exec-root', join(directory, 'exec')],
    ...['--bridge=none', '--iptables=false', '--ip6tables=false', '--userland-proxy=false'],
    // Not systemd's: there may be none, and the group is ours to remove.
    ...['--exec-opt', 'native.cgroupdriver=cgroupfs', '--cgroup-parent', `/${basename(directory)}`],
  ];
  const child = spawn(
    '/usr/bin/setpriv',
    ['--pdeathsig', 'KILL', '/usr/bin/unshare', ...namespaces, '/usr/bin/tini', '--', '/usr/sbin/dockerd', ...dockerd],
    { stdio: ['ignore', log, log], env: { PATH: `${process.env.PATH}:/usr/sbin:/sbin` } },
  );
  closeSync(log);
  const stop = async () => {
    await ended(child);
    await removeRemains(directory);
  };
  try {
    await waitUntil(async () => {
      if (child.exitCode !== null || child.signalCode !== null) throw new Error('it ended');
      return answers(address);
    }, START_DEADLINE_MS);
  } catch (cause) {
    const said = readFileSync(logFile, 'utf8').split('\n').slice(-15).join('\n');
    await stop();
    throw new Error(`dockerd does not start here: ${(cause as Error).message}\n${said}`, { cause });
  }
  return { address, what: 'an engine of our own', stop };
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await exited;
}

function answers(address: string): Promise<boolean> {
  const url = new URL(address);
  const target =
    url.protocol === 'unix:' ? { socketPath: url.pathname } : { host: url.hostname, port: Number(url.port || 2375) };
  return new Promise((resolve) => {
    const asking = request({ ...target, path: '/_ping' }, (answer) => {
      answer.resume();
      finish(answer.statusCode === 200);
    });
    const timer = systemClock.timer(PING_DEADLINE_MS, () => finish(false));
    const finish = (result: boolean) => {
      timer[Symbol.dispose]();
      asking.destroy();
      resolve(result);
    };
    asking.on('error', () => finish(false));
    asking.end();
  });
}
