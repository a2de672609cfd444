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

/** What still keeps the Ceph daemons of a running host from doing their work; empty when nothing does. */
export async function cephDaemonsWaiting(plan: LabPlan, host: HostPlan): Promise<string[]> {
  const init = await initPid(plan.spec.name, host.name);
  if (init === undefined || !plan.spec.ceph) return [];
  const state = async (daemon: string, prefix: string, good: readonly string[]): Promise<string[]> => {
    const answer = await ask(`/proc/${init}/root/run/ceph/ceph-${daemon}.asok`, prefix).catch((error: Error) => ({
      state: error.message,
    }));
    const { state: is } = answer as { state?: string };
    return is !== undefined && good.includes(is) ? [] : [`${daemon} is ${is ?? 'silent'}`];
  };
  return [
    ...(host.voter ? await state(`mon.${host.name}`, 'mon_status', ['leader', 'peon']) : []),
    ...(host.osd === undefined ? [] : await state(`osd.${host.osd}`, 'status', ['active'])),
  ];
}
