// SPDX-License-Identifier: Apache-2.0
// A real etcd cluster for tests: on the loopback interface, with TLS and client certificates, in a temporary directory.
import { rmSync } from 'node:fs';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '@busbar/core/clock/clock';
import { createAuthority, issue, openAuthority } from '@busbar/pki/authority';
import type { TlsText } from '@busbar/pki/tls/material';
import { fixedTls } from '@busbar/pki/tls/source';
import { Member } from './member.ts';
import type { StatusResponse } from './messages.ts';
import { EtcdProcesses, type EtcdRuntime } from './test-process.ts';
import { bool, int32, int64, message, repeated, uint64 } from './wire.ts';

const COMPACT = {
  path: '/etcdserverpb.KV/Compact',
  request: message({ revision: int64(1), physical: bool(2) }),
  response: message({}),
};
const DEFRAGMENT = {
  path: '/etcdserverpb.Maintenance/Defragment',
  request: message({}),
  response: message({}),
};
const AlarmMember = message({ memberId: uint64(1), alarm: int32(2) });
const ALARM = {
  path: '/etcdserverpb.Maintenance/Alarm',
  request: message({ action: int32(1), memberId: uint64(2), alarm: int32(3) }),
  response: message({ alarms: repeated(2, AlarmMember) }),
};
const ALARM_ACTION = { list: 0, disarm: 2 } as const;

const START_DEADLINE_MS = 15_000;
const DAY_MS = 86_400_000;

export interface EtcdTestOptions {
  /** More of etcd's flags, without the dashes; the last word on each. */
  readonly flags?: Readonly<Record<string, string>>;
  /** What the members run in; processes of this machine when not given. */
  readonly runtime?: (directory: string) => EtcdRuntime;
}

interface TestMember {
  readonly name: string;
  readonly address: string;
  readonly peerUrl: string;
  readonly args: readonly string[];
}

export class EtcdTestCluster {
  readonly tls: TlsText;
  readonly runtime: EtcdRuntime;
  /** The members' data, and what a test wants to keep beside them; removed by `stop`. */
  readonly directory: string;
  readonly #members: readonly TestMember[];
  readonly #killed = new Set<number>();

  private constructor(directory: string, runtime: EtcdRuntime, tls: TlsText, members: readonly TestMember[]) {
    this.directory = directory;
    this.runtime = runtime;
    this.tls = tls;
    this.#members = members;
  }

  static async start(size: number, options: EtcdTestOptions = {}): Promise<EtcdTestCluster> {
    const directory = await mkdtemp(join(tmpdir(), 'busbar-etcd-'));
    const runtime = options.runtime?.(directory) ?? new EtcdProcesses(directory);
    const tls = await makeCertificates();
    await writeFile(join(directory, 'ca.crt'), tls.ca);
    await writeFile(join(directory, 'etcd.crt'), tls.certificate);
    await writeFile(join(directory, 'etcd.key'), tls.key, { mode: 0o600 });
    const ports = await freePorts(size * 2);
    const names = Array.from({ length: size }, (_, i) => `m${i}`);
    const peers = names.map((name, i) => `${name}=http://127.0.0.1:${ports[size + i]}`);
    const file = (name: string) => join(directory, name);
    const members = names.map((name, i): TestMember => {
      const client = `https://127.0.0.1:${ports[i]}`;
      const peer = `http://127.0.0.1:${ports[size + i]}`;
      const flags = {
        name,
        'data-dir': file(name),
        'listen-client-urls': client,
        'advertise-client-urls': client,
        'listen-peer-urls': peer,
        'initial-advertise-peer-urls': peer,
        'initial-cluster': peers.join(','),
        'cert-file': file('etcd.crt'),
        'key-file': file('etcd.key'),
        'trusted-ca-file': file('ca.crt'),
        'client-cert-auth': 'true',
        'experimental-watch-progress-notify-interval': '1s',
        'log-level': 'error',
        ...options.flags,
      };
      const args = Object.entries(flags).map(([flag, value]) => `--${flag}=${value}`);
      return { name, address: `127.0.0.1:${ports[i]}`, peerUrl: peer, args };
    });
    const cluster = new EtcdTestCluster(directory, runtime, tls, members);
    try {
      for (const index of members.keys()) await cluster.restart(index);
      await cluster.leader();
      return cluster;
    } catch (error) {
      await cluster.stop();
      throw error;
    }
  }

  get addresses(): readonly [string, ...string[]] {
    const [first = '', ...rest] = this.#members.map(({ address }) => address);
    return [first, ...rest];
  }

  /** As in etcd's flag of that name. */
  get initialCluster(): string {
    return this.#members.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(',');
  }

  peerUrl(index: number): string {
    return this.#member(index).peerUrl;
  }

  name(index: number): string {
    return this.#member(index).name;
  }

  /** The addresses with this member's first. */
  addressesFrom(index: number): readonly [string, ...string[]] {
    const own = this.address(index);
    return [own, ...this.addresses.filter((address) => address !== own)];
  }

  address(index: number): string {
    return this.#member(index).address;
  }

  /** Returns when the member certainly does nothing any more. */
  freeze(index: number): Promise<void> {
    return this.runtime.freeze(this.name(index));
  }

  thaw(index: number): Promise<void> {
    return this.runtime.thaw(this.name(index));
  }

  kill(index: number): Promise<void> {
    this.#killed.add(index);
    return this.runtime.kill(this.name(index));
  }

  /** Starts a killed member again, on its old data. */
  restart(index: number): Promise<void> {
    this.#killed.delete(index);
    const { name, args } = this.#member(index);
    return this.runtime.start(name, args);
  }

  /** Those that a test killed and, because it failed, did not restart. */
  async restartKilled(): Promise<void> {
    for (const index of [...this.#killed]) await this.restart(index);
  }

  /** Which member leads; waits until all members asked agree. */
  async leader(among: readonly number[] = [...this.#members.keys()]): Promise<number> {
    const endMs = systemClock.nowMs() + START_DEADLINE_MS;
    for (;;) {
      const statuses = await Promise.all(among.map((index) => this.#status(index)));
      const leader = among.find((_, i) => {
        const id = statuses[i]?.header?.memberId;
        return id !== undefined && statuses.every((status) => status?.leader === id);
      });
      if (leader !== undefined) return leader;
      if (systemClock.nowMs() > endMs) {
        const told = await Promise.all(
          this.#members.map(async ({ name }) => (await this.runtime.describe?.(name)) ?? name),
        );
        throw new Error(`the etcd members do not agree on a leader\n${told.join('\n')}`);
      }
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

  /** What an operator does about a full database, as docs/operations.md says it: compact, defragment each member, disarm. */
  async reclaim(revision: bigint): Promise<void> {
    await this.compact(revision);
    for (const index of this.#members.keys()) {
      const member = this.member(index);
      try {
        await member.unary(DEFRAGMENT, {}).answer;
      } finally {
        member.close();
      }
    }
    const member = this.member(0);
    try {
      const { alarms } = await member.unary(ALARM, { action: ALARM_ACTION.list }).answer;
      for (const alarm of alarms) await member.unary(ALARM, { action: ALARM_ACTION.disarm, ...alarm }).answer;
    } finally {
      member.close();
    }
  }

  /** A bare connection to one member. */
  member(index: number): Member {
    return new Member(this.address(index), fixedTls(this.tls), systemClock);
  }

  async stop(): Promise<void> {
    await this.runtime.stop();
    rmSync(this.directory, { recursive: true, force: true });
  }

  #member(index: number): TestMember {
    const found = this.#members[index];
    if (found === undefined) throw new Error(`no etcd member ${index}`);
    return found;
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

/** A fresh authority and one certificate of it for both ends. */
export async function makeCertificates(): Promise<TlsText> {
  // Of yesterday: a wall clock that is an hour slow still accepts it.
  const now = new Date(Date.now() - DAY_MS);
  const stored = await createAuthority({ commonName: 'etcd test authority', now, validDays: 3 });
  const { certificatePem, keyPem } = await issue(await openAuthority(stored), {
    commonName: 'etcd test',
    now,
    validDays: 2,
    ips: ['127.0.0.1'],
    usages: ['serverAuth', 'clientAuth'],
  });
  return { ca: Buffer.from(stored.certificatePem), certificate: Buffer.from(certificatePem), key: Buffer.from(keyPem) };
}

/**
 * Ports that nobody uses, below those that Linux gives to outgoing connections (32768 and up): a member that is killed must find
 * its port free when it comes back. All are held until the last one is known.
 */
async function freePorts(count: number): Promise<number[]> {
  const servers: Server[] = [];
  const ports: number[] = [];
  while (ports.length < count) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    const server = createServer();
    const isFree = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false));
      server.listen(port, '127.0.0.1', () => resolve(true));
    });
    if (!isFree) continue;
    servers.push(server);
    ports.push(port);
  }
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

function pause(durationMs = 50): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, durationMs));
}
