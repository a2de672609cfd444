// SPDX-License-Identifier: Apache-2.0
/**
 * What attacks share. They go to the lab's own addresses only, are bounded in count and time, and leave the lab healthy:
 * after each file every host is ready.
 */
import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { join } from 'node:path';
import { busbarOk, type CommandResult, busbar as run } from '@busbar/deploy/demo/busbar';
import { eventually } from '@busbar/deploy/demo/guest-http';
import { hostExec, openLab } from '@busbar/deploy/lab/lab';
import { hostRoot, pkiDir } from '@busbar/deploy/lab/paths';
import { EDGE_PORT, findHost } from '@busbar/deploy/lab/plan';
import type { RunResult } from '@busbar/deploy/lab/run';

export { eventually, guestCounter } from '@busbar/deploy/demo/guest-http';

/** Hypervisors host1 (a voter) and host2 (no vote), witnesses witness1 and witness2 (voters), disks in Ceph. */
export const LAB = 'test-attack';
export const VOTERS = ['witness1', 'witness2', 'host1'] as const;
/** A hypervisor that holds no key of a voter. */
export const VOTELESS = 'host2';
export const EVERY_HOST = [...VOTERS, VOTELESS] as const;

export interface KeyPair {
  readonly cert: Buffer;
  readonly key: Buffer;
}

/** The lab's client of a role. */
export function clientOf(role: 'viewer' | 'operator' | 'admin'): KeyPair {
  return { cert: readFileSync(join(pkiDir(LAB), `${role}.crt`)), key: readFileSync(join(pkiDir(LAB), `${role}.key`)) };
}

/** A pair of files in a host's /etc/busbar/pki, e.g. "agent". */
export function hostPair(host: string, name: string): KeyPair {
  const file = (ending: string) => readFileSync(hostRoot(LAB, host, `/etc/busbar/pki/${name}.${ending}`));
  return { cert: file('crt'), key: file('key') };
}

export const authority = (): Buffer => readFileSync(join(pkiDir(LAB), 'ca.crt'));

export async function addressOf(host: string): Promise<string> {
  return findHost(await openLab(LAB), host).management;
}

/** Runs a program inside a host, as root unless it says otherwise; its exit code does not matter. */
export function inside(host: string, ...argv: string[]): Promise<RunResult> {
  return hostExec(LAB, host, argv, { mayFail: true });
}

/** The `busbar` command as the lab's admin. */
export function busbar(args: readonly string[], options: { readonly input?: string } = {}): Promise<CommandResult> {
  return run(LAB, args, options);
}

export async function json<T>(args: readonly string[]): Promise<T> {
  return JSON.parse(await busbarOk(LAB, [...args, '-o', 'json'])) as T;
}

export interface Answer {
  readonly status: number;
  readonly body: string;
  readonly ms: number;
}

/** One POST to the JSON edge of a host's controller; null: the connection ended without an answer. */
export function post(
  address: string,
  path: string,
  body: string | Buffer,
  options: {
    readonly as?: KeyPair;
    readonly headers?: Readonly<Record<string, string>>;
    readonly agent?: Agent;
    readonly timeoutMs?: number;
  } = {},
): Promise<Answer | null> {
  return new Promise((resolve) => {
    const beganMs = performance.now();
    const outgoing = request(
      {
        ...options.as,
        host: address,
        port: EDGE_PORT,
        path,
        method: 'POST',
        ca: authority(),
        agent: options.agent ?? new Agent({ keepAlive: false }),
        // Attackers do not mind whom they talk to; the chain is checked.
        checkServerIdentity: () => undefined,
        timeout: options.timeoutMs ?? 20_000,
        headers: { 'content-type': 'application/json', ...options.headers },
      },
      (incoming) => {
        const chunks: Buffer[] = [];
        incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
        const end = () =>
          resolve({
            status: incoming.statusCode ?? 0,
            body: Buffer.concat(chunks).toString(),
            ms: performance.now() - beganMs,
          });
        incoming.on('end', end);
        incoming.on('error', end);
      },
    );
    outgoing.on('timeout', () => outgoing.destroy());
    outgoing.on('error', () => resolve(null));
    outgoing.end(body);
  });
}

export async function untilReady(count: number = EVERY_HOST.length): Promise<void> {
  await eventually(`${count} hosts ready`, 60_000, async () => {
    const { hosts } = await json<{ hosts: { status: { state: string } }[] }>(['host', 'list']);
    return hosts.filter((host) => host.status.state === 'HOST_STATE_READY').length === count ? true : null;
  });
}
