// SPDX-License-Identifier: Apache-2.0

import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { bootSectorDisk } from '@busbar/agent/driver/boot-sector.fixture';
import { fileDisk, testSpec } from '@busbar/agent/driver/domain.fixture';
import { PrivateLibvirtd } from '@busbar/agent/libvirt/private-libvirtd.fixture';
import { decode } from '@busbar/agent/reconcile/memory-file';
import { type GrpcServer, grpcServer } from '@busbar/controller/api/grpc-server';
import type { AuditTrail } from '@busbar/controller/audit/trail';
import { DEFAULT_LEASE } from '@busbar/controller/lease/granter';
import { localGranting } from '@busbar/controller/lease/granting';
import { SessionRegistry } from '@busbar/controller/session/registry';
import { ADMIT_ALL } from '@busbar/controller/testing/callers';
import { systemClock } from '@busbar/core/clock/clock';
import { silentLogger } from '@busbar/core/log';
import { systemRandom } from '@busbar/core/random';
import { createAuthority, issue, openAuthority } from '@busbar/pki/authority';
import { identityUri } from '@busbar/pki/identity';
import { fixedTls } from '@busbar/pki/tls/source';
import {
  AttachKind,
  DesiredRun,
  type DesiredVm,
  type DomainReport,
  type DomainSpec,
} from '@busbar/proto/gen/busbar/agent/v1/agent';
import { IsolationPolicy } from '@busbar/proto/gen/busbar/v1/vm';

const CLUSTER = 'lone';
const HOST = 'host2';
const CONTROLLER = 'host1';

export const vmId = (n: number) => `6695eb01-f6a4-4304-89ab-${n.toString(16).padStart(12, '0')}`;

/**
 * A whole host without a cluster: the agent's real process, its native child, a libvirtd and QEMUs in namespaces of their
 * own, and the one controller whose word it takes, played by the test through the controller's own session registry.
 */
export class AgentHost {
  readonly libvirtd: PrivateLibvirtd;
  readonly registry: SessionRegistry;
  readonly #server: GrpcServer;
  readonly #configFile: string;
  #agent: ChildProcess | null = null;
  #generation = 0n;
  /** The agent's last words on stderr: why it ended when nobody killed it. */
  stderr = '';

  private constructor(libvirtd: PrivateLibvirtd, registry: SessionRegistry, server: GrpcServer, configFile: string) {
    this.libvirtd = libvirtd;
    this.registry = registry;
    this.#server = server;
    this.#configFile = configFile;
  }

  static async create(): Promise<AgentHost> {
    const libvirtd = await PrivateLibvirtd.create();
    const { dir, uri } = libvirtd;
    // One of 16,000 networks that nobody routes (RFC 2544), by our process id: tests run side by side.
    const block = (process.pid % 16_000) * 4;
    const at = (n: number) => `198.18.${block >> 8}.${(block & 255) + n}`;
    await libvirtd.cable(at(1), at(2));
    const now = new Date();
    const authority = await openAuthority(await createAuthority({ commonName: CLUSTER, now, validDays: 2 }));
    const own = { now, validDays: 1, usages: ['serverAuth', 'clientAuth'] as const };
    const controller = identityUri({ kind: 'controller', cluster: CLUSTER, host: CONTROLLER });
    const server = await issue(authority, { ...own, commonName: CONTROLLER, dns: [CONTROLLER], uris: [controller] });
    const agent = identityUri({ kind: 'host', cluster: CLUSTER, host: HOST });
    const client = await issue(authority, { ...own, commonName: HOST, dns: [HOST], uris: [agent] });
    await mkdir(join(dir, 'pki'));
    const pki = async (name: string, text: string) => {
      await writeFile(join(dir, 'pki', name), text, { mode: 0o600 });
      return join(dir, 'pki', name);
    };
    const tls = {
      ca: await pki('ca.pem', authority.certificatePem),
      certificate: await pki('agent.pem', client.certificatePem),
      key: await pki('agent.key', client.keyPem),
    };
    const registry = new SessionRegistry({
      controller: CONTROLLER,
      controllers: [CONTROLLER],
      granting: localGranting({
        clock: systemClock,
        leaseTtlMs: DEFAULT_LEASE.leaseTtlMs,
        startedAtMs: Number.NEGATIVE_INFINITY,
      }),
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger,
    });
    const grpc = grpcServer({
      cluster: CLUSTER,
      services: [],
      sessions: registry,
      trail: { note() {} } as unknown as AuditTrail,
      admission: ADMIT_ALL,
      tls: fixedTls({
        ca: Buffer.from(authority.certificatePem),
        certificate: Buffer.from(server.certificatePem),
        key: Buffer.from(server.keyPem),
      }),
      clock: systemClock,
      logger: silentLogger,
    });
    const port = await grpc.listen(`${at(1)}:0`);
    // A pool is mounted like this, or the host is degraded and starts nothing.
    const pool = join(dir, 'pool');
    await mkdir(pool);
    await writeFile(join(pool, 'guest.raw'), bootSectorDisk());
    await libvirtd.exec('mount', '--bind', pool, pool);
    await libvirtd.exec('mount', '-o', 'remount,bind,nosymfollow,nodev,nosuid', pool);
    const config = {
      cluster: CLUSTER,
      host: HOST,
      role: 'hypervisor',
      managementAddress: at(2),
      storageAddress: at(2),
      controllers: [{ host: CONTROLLER, address: `${at(1)}:${port}` }],
      tls,
      libvirt: { uri },
      storage: { driver: 'dir', path: pool },
      stateDir: join(dir, 'agent'),
      runDir: join(dir, 'r'),
      logDir: join(dir, 'serial'),
    };
    const configFile = join(dir, 'agent.yaml');
    await writeFile(configFile, JSON.stringify(config));
    await mkdir(config.stateDir);
    await mkdir(config.logDir);
    return new AgentHost(libvirtd, registry, grpc, configFile);
  }

  get stateDir(): string {
    return join(this.libvirtd.dir, 'agent');
  }

  get logDir(): string {
    return join(this.libvirtd.dir, 'serial');
  }

  get running(): boolean {
    return this.#agent !== null && this.#agent.exitCode === null && this.#agent.signalCode === null;
  }

  startAgent(): void {
    const main = fileURLToPath(import.meta.resolve('@busbar/agent/main'));
    // Compiled code is kept, as a service that was started before has it in a bundle: an agent is up in half the time.
    const env = { NODE_COMPILE_CACHE: join(this.libvirtd.dir, 'compiled') };
    const agent = this.libvirtd.spawn(process.execPath, [main, '--config', this.#configFile], env);
    agent.stdout?.resume();
    this.stderr = '';
    agent.stderr?.on('data', (chunk: Buffer) => {
      this.stderr = `${this.stderr}${chunk.toString()}`.slice(-4096);
    });
    this.#agent = agent;
  }

  async killAgent(): Promise<void> {
    const agent = this.#agent;
    this.#agent = null;
    if (agent === null) return;
    const gone = once(agent, 'exit');
    agent.kill('SIGKILL');
    await gone;
  }

  /** Sends a newer desired state than all before, as the leader. */
  desire(vms: readonly DesiredVm[], destroy: readonly { vmId: string; epochMax: bigint }[] = []): void {
    this.#generation++;
    const position = { term: 1n, generation: this.#generation };
    this.registry.publish(HOST, { position, vms: [...vms], destroy: [...destroy], bootId: '', noStart: '' });
  }

  desired(n: number, epoch: bigint, run: DesiredRun = DesiredRun.RUNNING, spec: Partial<DomainSpec> = {}): DesiredVm {
    const disks = [fileDisk(join(this.libvirtd.dir, 'pool', 'guest.raw'), { readOnly: true })];
    return {
      vmId: vmId(n),
      name: `lone-${n}`,
      epoch,
      run,
      shutdownTimeoutMs: 30_000,
      domain: testSpec({ disks, ...spec }),
      isolationPolicy: IsolationPolicy.KEEP_RUNNING,
      bootId: '',
    };
  }

  get observed() {
    return this.registry.observed(HOST);
  }

  reported(n: number): DomainReport | undefined {
    return this.observed?.report?.domains.find((domain) => domain.vmId === vmId(n));
  }

  /** Types a word to a guest, which echoes it, and waits for the echo: it lives. */
  async echo(n: number, word: string, deadlineMs = 10_000): Promise<void> {
    const signal = AbortSignal.timeout(deadlineMs);
    async function* type() {
      yield Buffer.from(word);
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
    }
    const order = {
      vmId: vmId(n),
      kind: AttachKind.CONSOLE,
      tailBytes: 0n,
      follow: false,
      caller: 'client/anna',
      role: 'operator',
    };
    let seen = '';
    for await (const chunk of await this.registry.attach(HOST, order, type(), signal)) {
      seen += Buffer.from(chunk).toString('latin1');
      if (seen.includes(word)) return;
    }
    throw new Error(`guest ${n} does not echo ${word}: ${JSON.stringify(seen)}`);
  }

  /** What the agent has on disk; undefined before it wrote for the first time, throws when it is corrupt. */
  async memory() {
    try {
      return decode(await readFile(join(this.stateDir, 'agent-memory.json'), 'utf8'));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
  }

  /** Process ids of the QEMUs by VM. */
  async qemus(): Promise<ReadonlyMap<string, readonly number[]>> {
    const found = new Map<string, number[]>();
    for (const pid of await this.libvirtd.qemus()) {
      const argv = await readFile(`/proc/${pid}/cmdline`, 'latin1').catch(() => '');
      const uuid = /\0-uuid\0([^\0]+)\0/.exec(argv)?.[1];
      if (uuid !== undefined) found.set(uuid, [...(found.get(uuid) ?? []), pid]);
    }
    return found;
  }

  async destroy(): Promise<void> {
    await this.killAgent();
    this.#server.close();
    await this.libvirtd.destroy();
  }
}
