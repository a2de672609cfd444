// SPDX-License-Identifier: Apache-2.0
// Real nats-servers for tests: own certificates, ports from the kernel, files in a temporary folder.
import { type ChildProcess, spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { mkdtemp, open, readFile, writeFile } from 'node:fs/promises';
import { connect as connectTcp, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createAuthority, issue, type KeyPairPem, openAuthority } from '@busbar/pki/authority';
import { identityUri } from '@busbar/pki/identity';
import { roleUri } from '@busbar/pki/role';
import { natsServerConfig } from './nats-server.ts';

export const TEST_CLUSTER = 'test';
const START_DEADLINE_MS = 20_000;

/** A test run that ends early must leave no server behind. */
const running = new Set<ChildProcess>();
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

export interface Credentials {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** Everybody who may or may not talk to NATS. */
export interface TestPki {
  /** For the server: names and addresses of this machine, no identity. */
  readonly server: Credentials;
  readonly controller: Credentials;
  readonly viewer: Credentials;
  /** An agent's certificate: of the cluster, but without a right here. */
  readonly agent: Credentials;
  /** A controller's identity from another authority. */
  readonly stranger: Credentials;
  /** A server of another address, which is also called localhost. */
  readonly misnamed: Credentials;
}

export async function makeTestPki(): Promise<TestPki> {
  const now = new Date();
  const authority = (commonName: string) => createAuthority({ commonName, now, validDays: 2 });
  const [own, other] = [await authority('cluster'), await authority('another cluster')];
  const make = async (uris: readonly string[], from: KeyPairPem = own, ip = '127.0.0.1'): Promise<Credentials> => {
    const pair = await issue(await openAuthority(from), {
      commonName: 'test',
      now,
      validDays: 1,
      uris,
      // localhost alone is the name that routes are known by; see natsServerConfig.
      ...(uris.length === 0 ? { dns: ['localhost'], ips: [ip] } : {}),
      usages: ['serverAuth', 'clientAuth'],
    });
    return { ca: own.certificatePem, cert: pair.certificatePem, key: pair.keyPem };
  };
  const cluster = TEST_CLUSTER;
  const controller = identityUri({ kind: 'controller', cluster, host: 'host1' });
  const anna = identityUri({ kind: 'client', cluster, client: 'anna' });
  return {
    server: await make([]),
    controller: await make([controller]),
    viewer: await make([anna, roleUri(cluster, 'viewer')]),
    agent: await make([identityUri({ kind: 'host', cluster, host: 'host1' })]),
    stranger: await make([controller], other),
    misnamed: await make([], own, '127.0.0.2'),
  };
}

/** What the conformance suite does to a server, wherever it runs. */
export interface NatsUnderTest {
  /** host:port, the same after a restart. */
  readonly address: string;
  kill(): Promise<void>;
  restart(): Promise<void>;
  /** Returns when it stands still. */
  freeze(): Promise<void>;
  thaw(): void;
  /** Kills it and removes its files. */
  stop(): Promise<void>;
}

/** The servers of one cluster, with routes between them. */
export async function startNats(pki: TestPki, count = 1): Promise<readonly (NatsUnderTest & { route: string })[]> {
  const folder = await mkdtemp(join(tmpdir(), 'busbar-nats-'));
  const write = (name: string, text: string) => writeFile(join(folder, name), text, { mode: 0o600 });
  await Promise.all([
    write('ca.crt', pki.server.ca),
    write('server.crt', pki.server.cert),
    write('server.key', pki.server.key),
  ]);
  const ports = await freePorts(2 * count);
  const client = (i: number) => `127.0.0.1:${ports[i]}`;
  const route = (i: number) => `localhost:${ports[count + i]}`;
  const all = Array.from({ length: count }, (_, i) => i);
  return Promise.all(
    all.map(async (i) => {
      const config = natsServerConfig({
        cluster: TEST_CLUSTER,
        host: `host${i + 1}`,
        listen: client(i),
        tls: {
          ca: join(folder, 'ca.crt'),
          certificate: join(folder, 'server.crt'),
          key: join(folder, 'server.key'),
        },
        controllers: ['host1'],
        routes: { listen: `127.0.0.1:${ports[count + i]}`, peers: all.filter((j) => j !== i).map(route) },
      });
      await write(`${i}.json`, config);
      const server = new Server(folder, i, client(i));
      await server.restart();
      return Object.assign(server, { route: route(i) });
    }),
  );
}

class Server implements NatsUnderTest {
  readonly address: string;
  readonly #folder: string;
  readonly #index: number;
  #child: ChildProcess | undefined;

  constructor(folder: string, index: number, address: string) {
    this.#folder = folder;
    this.#index = index;
    this.address = address;
  }

  async restart(): Promise<void> {
    const path = join(this.#folder, `${this.#index}.log`);
    const log = await open(path, 'a');
    const arguments_ = ['--config', join(this.#folder, `${this.#index}.json`)];
    const child = spawn('nats-server', arguments_, { stdio: ['ignore', log.fd, log.fd] });
    running.add(child);
    child.once('exit', () => running.delete(child));
    this.#child = child;
    await log.close();
    for (const endMs = performance.now() + START_DEADLINE_MS; !(await answers(this.address)); await pause()) {
      if (child.exitCode !== null || performance.now() > endMs)
        throw new Error(`nats-server does not start:\n${await readFile(path, 'utf8')}`);
    }
  }

  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await exited;
  }

  async freeze(): Promise<void> {
    const child = this.#child;
    if (child?.pid === undefined) throw new Error('nats-server does not run');
    child.kill('SIGSTOP');
    const state = async () => (await readFile(`/proc/${child.pid}/stat`, 'utf8')).replace(/^.*\) /, '').charAt(0);
    for (const endMs = performance.now() + START_DEADLINE_MS; (await state()) !== 'T'; await pause(5))
      if (performance.now() > endMs) throw new Error('nats-server does not freeze');
  }

  thaw(): void {
    this.#child?.kill('SIGCONT');
  }

  async stop(): Promise<void> {
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** The server greets whoever connects. */
export function answers(address: string): Promise<boolean> {
  const [host, port] = address.split(':');
  return new Promise((resolve) => {
    const socket = connectTcp({ host: `${host}`, port: Number(port) });
    const end = (greeted: boolean) => {
      socket.destroy();
      resolve(greeted);
    };
    socket.setTimeout(1_000, () => end(false));
    socket.once('data', () => end(true));
    socket.once('error', () => end(false));
    socket.once('close', () => end(false));
  });
}

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

function pause(durationMs = 20): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, durationMs));
}
