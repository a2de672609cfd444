// SPDX-License-Identifier: Apache-2.0
// Real etcd processes for tests: on the loopback interface, with TLS and client certificates, in a
// temporary directory. Nothing of it outlives the test process.
import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, constants, rmSync } from 'node:fs';
import { mkdtemp, open, readdir, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '@busbar/core/clock/clock';
import { createAuthority, issue, openAuthority } from '@busbar/pki/authority';
import type { TlsText } from '@busbar/pki/tls/material';
import { fixedTls } from '@busbar/pki/tls/source';
import { Member } from './member.ts';
import type { StatusResponse } from './messages.ts';
import { bool, int64, message } from './wire.ts';

const COMPACT = {
  path: '/etcdserverpb.KV/Compact',
  request: message({ revision: int64(1), physical: bool(2) }),
  response: message({}),
};

const START_DEADLINE_MS = 15_000;
const running = new Set<ChildProcess>();
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

interface Process {
  readonly name: string;
  readonly address: string;
  readonly args: readonly string[];
  child: ChildProcess | undefined;
}

export class EtcdTestCluster {
  readonly tls: TlsText;
  readonly #directory: string;
  readonly #processes: readonly Process[];

  private constructor(directory: string, tls: TlsText, processes: readonly Process[]) {
    this.#directory = directory;
    this.tls = tls;
    this.#processes = processes;
  }

  static async start(size: number): Promise<EtcdTestCluster> {
    const etcd = findProgram('etcd');
    // A conformance suite that skips itself proves nothing: it fails.
    if (etcd === null) {
      throw new Error(
        'etcd is not installed, but the conformance suite needs it (Debian: apt-get install etcd-server)',
      );
    }
    // The kernel ends etcd even when the test process is killed; elsewhere the exit handler has to do.
    const setpriv = findProgram('setpriv');
    const command = setpriv === null ? [etcd] : [setpriv, '--pdeathsig', 'KILL', etcd];
    const directory = await mkdtemp(join(tmpdir(), 'busbar-etcd-'));
    const tls = await makeCertificates();
    await writeFile(join(directory, 'ca.crt'), tls.ca);
    await writeFile(join(directory, 'etcd.crt'), tls.certificate);
    await writeFile(join(directory, 'etcd.key'), tls.key, { mode: 0o600 });
    const ports = await freePorts(size * 2);
    const names = Array.from({ length: size }, (_, i) => `m${i}`);
    const peers = names.map((name, i) => `${name}=http://127.0.0.1:${ports[size + i]}`);
    const file = (name: string) => join(directory, name);
    const processes = names.map((name, i): Process => {
      const client = `https://127.0.0.1:${ports[i]}`;
      const peer = `http://127.0.0.1:${ports[size + i]}`;
      const args = [
        ['name', name],
        ['data-dir', file(name)],
        ['listen-client-urls', client],
        ['advertise-client-urls', client],
        ['listen-peer-urls', peer],
        ['initial-advertise-peer-urls', peer],
        ['initial-cluster', peers.join(',')],
        ['cert-file', file('etcd.crt')],
        ['key-file', file('etcd.key')],
        ['trusted-ca-file', file('ca.crt')],
        ['client-cert-auth', 'true'],
        ['experimental-watch-progress-notify-interval', '1s'],
        ['log-level', 'error'],
      ].map(([flag, value]) => `--${flag}=${value}`);
      return { name, address: `127.0.0.1:${ports[i]}`, args: [...command, ...args], child: undefined };
    });
    const cluster = new EtcdTestCluster(directory, tls, processes);
    try {
      for (const index of processes.keys()) await cluster.#spawn(index);
      await cluster.leader();
      return cluster;
    } catch (error) {
      await cluster.stop();
      throw error;
    }
  }

  get addresses(): readonly [string, ...string[]] {
    const [first = '', ...rest] = this.#processes.map(({ address }) => address);
    return [first, ...rest];
  }

  /** The addresses with this member's first. */
  addressesFrom(index: number): readonly [string, ...string[]] {
    const own = this.address(index);
    return [own, ...this.addresses.filter((address) => address !== own)];
  }

  address(index: number): string {
    return this.#process(index).address;
  }

  /** Returns when the kernel has stopped every thread: on a busy machine that takes a while. */
  async freeze(index: number): Promise<void> {
    const { child } = this.#process(index);
    if (child?.pid === undefined) throw new Error(`etcd member ${index} does not run`);
    child.kill('SIGSTOP');
    const tasks = `/proc/${child.pid}/task`;
    const running = async () => {
      const states = await Promise.all(
        (await readdir(tasks)).map((task) => readFile(join(tasks, task, 'stat'), 'utf8').catch(() => ') T')),
      );
      return states.some((stat) => !stat.slice(stat.lastIndexOf(')')).startsWith(') T'));
    };
    for (const endMs = systemClock.nowMs() + START_DEADLINE_MS; await running(); await pause(1)) {
      if (systemClock.nowMs() > endMs) throw new Error(`etcd member ${index} does not freeze`);
    }
  }

  thaw(index: number): void {
    this.#process(index).child?.kill('SIGCONT');
  }

  async kill(index: number): Promise<void> {
    const { child } = this.#process(index);
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await exited;
  }

  /** Starts a killed member again, on its old data. */
  async restart(index: number): Promise<void> {
    await this.#spawn(index);
  }

  /** Which member leads; waits until all members asked agree. */
  async leader(among: readonly number[] = [...this.#processes.keys()]): Promise<number> {
    const endMs = systemClock.nowMs() + START_DEADLINE_MS;
    for (;;) {
      const statuses = await Promise.all(among.map((index) => this.#status(index)));
      const leader = among.find((_, i) => {
        const id = statuses[i]?.header?.memberId;
        return id !== undefined && statuses.every((status) => status?.leader === id);
      });
      if (leader !== undefined) return leader;
      if (systemClock.nowMs() > endMs) throw new Error('the etcd members do not agree on a leader');
      await pause();
    }
  }

  async compact(revision: bigint, through = 0): Promise<void> {
    const member = this.member(through);
    try {
      await member.unary(COMPACT, { revision, physical: true }).answer;
    } finally {
      member.close();
    }
  }

  /** A bare connection to one member. */
  member(index: number): Member {
    return new Member(this.address(index), fixedTls(this.tls), systemClock);
  }

  async stop(): Promise<void> {
    await Promise.all(this.#processes.map((_, index) => this.kill(index)));
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #process(index: number): Process {
    const found = this.#processes[index];
    if (found === undefined) throw new Error(`no etcd member ${index}`);
    return found;
  }

  async #spawn(index: number): Promise<void> {
    const target = this.#process(index);
    const log = await open(join(this.#directory, `${target.name}.log`), 'a');
    try {
      const [program = '', ...args] = target.args;
      const child = spawn(program, args, { stdio: ['ignore', log.fd, log.fd], env: { PATH: process.env.PATH } });
      running.add(child);
      child.once('exit', () => running.delete(child));
      child.once('error', () => running.delete(child));
      target.child = child;
    } finally {
      await log.close();
    }
  }

  async #status(index: number): Promise<StatusResponse | undefined> {
    const member = this.member(index);
    try {
      return await member.probe();
    } catch {
      return undefined;
    } finally {
      member.close();
    }
  }
}

function findProgram(name: string): string | null {
  for (const directory of (process.env.PATH ?? '').split(':')) {
    const program = join(directory, name);
    try {
      accessSync(program, constants.X_OK);
      return program;
    } catch {
      // Not here.
    }
  }
  return null;
}

/** A fresh authority and one certificate of it for both ends. */
export async function makeCertificates(): Promise<TlsText> {
  const now = new Date();
  const stored = await createAuthority({ commonName: 'etcd test authority', now, validDays: 2 });
  const { certificatePem, keyPem } = await issue(await openAuthority(stored), {
    commonName: 'etcd test',
    now,
    validDays: 1,
    ips: ['127.0.0.1'],
    usages: ['serverAuth', 'clientAuth'],
  });
  return { ca: Buffer.from(stored.certificatePem), certificate: Buffer.from(certificatePem), key: Buffer.from(keyPem) };
}

/** Asks the kernel for ports that nobody uses; all are held until the last one is known. */
async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer();
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      return server;
    }),
  );
  const ports = servers.map((server) => {
    const address = server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  });
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

function pause(durationMs = 50): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, durationMs));
}
