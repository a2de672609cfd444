// SPDX-License-Identifier: Apache-2.0
// What a Ceph daemon says of itself, over its admin socket. The cluster's status is an opinion that lags: it calls an
// OSD "up" for half a minute after its host lost power, so "healthy again" must be asked of the daemon that came back.
import { connect } from 'node:net';
import { initPid } from './host.ts';
import type { HostPlan, LabPlan } from './plan.ts';

const TIMEOUT_MS = 3000;

/** The command as JSON, ended by a zero byte; the answer is its length in four bytes, then the text. */
async function ask(socketPath: string, prefix: string): Promise<unknown> {
  return await new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    const socket = connect(socketPath);
    const timer = setTimeout(() => socket.destroy(new Error('no answer')), TIMEOUT_MS);
    socket.on('connect', () => socket.write(`${JSON.stringify({ prefix, format: 'json' })}\0`));
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.on('error', reject);
    socket.on('close', () => {
      clearTimeout(timer);
      try {
        resolve(JSON.parse(Buffer.concat(chunks).subarray(4).toString()));
      } catch (cause) {
        reject(new Error(`${prefix}: the answer is no JSON`, { cause }));
      }
    });
  });
}

async function daemonWaiting(
  plan: LabPlan,
  host: HostPlan,
  daemon: string,
  prefix: string,
  good: readonly string[],
): Promise<string[]> {
  const init = await initPid(plan.spec.name, host.name);
  if (init === undefined) return [`${host.name} is off`];
  const answer = await ask(`/proc/${init}/root/run/ceph/ceph-${daemon}.asok`, prefix).catch((error: Error) => ({
    state: error.message,
  }));
  const { state } = answer as { state?: string };
  return state !== undefined && good.includes(state) ? [] : [`${daemon} is ${state ?? 'silent'}`];
}

const monitorWaiting = async (plan: LabPlan, host: HostPlan): Promise<string[]> =>
  await daemonWaiting(plan, host, `mon.${host.name}`, 'mon_status', ['leader', 'peon']);

/** Monitors outside the quorum, and why; empty when there is none. */
export async function monitorsWaiting(plan: LabPlan): Promise<string[]> {
  return (await Promise.all(plan.voters.map(async (host) => await monitorWaiting(plan, host)))).flat();
}

/** What still keeps the Ceph daemons of a running host from doing their work; empty when nothing does, or the host is off. */
export async function cephDaemonsWaiting(plan: LabPlan, host: HostPlan): Promise<string[]> {
  if (!plan.spec.ceph || (await initPid(plan.spec.name, host.name)) === undefined) return [];
  return [
    ...(host.voter ? await monitorWaiting(plan, host) : []),
    ...(host.osd === undefined ? [] : await daemonWaiting(plan, host, `osd.${host.osd}`, 'status', ['active'])),
  ];
}
