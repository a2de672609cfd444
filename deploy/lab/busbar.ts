// SPDX-License-Identifier: Apache-2.0
// What the cluster itself says of its hosts, asked as a user would. Whoever runs the next command right after a lab
// command wants the answer to be "ready".
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { addContext, labContext } from './context.ts';
import { findDaemons } from './host-files.ts';
import { hostRoot, labDir } from './paths.ts';
import type { HostPlan, LabPlan } from './plan.ts';
import { writeAtomically } from './registry.ts';
import { run, until } from './run.ts';

const ANSWER_TIMEOUT_MS = 10_000;
const EVERY_MS = 500;

interface Host {
  readonly meta?: { readonly name?: string };
  readonly status?: { readonly state?: string; readonly bootId?: string; readonly message?: string };
}

/** Which of these hosts are not ready in their present life, and why. Pure. */
export function unready(hosts: readonly Host[], bootIds: ReadonlyMap<string, string>): string[] {
  return [...bootIds].flatMap(([name, bootId]) => {
    const status = hosts.find((host) => host.meta?.name === name)?.status;
    if (status === undefined) return [`${name} has not joined`];
    // Before the controllers notice that a host is gone, they still call its former life ready.
    if (status.bootId !== bootId) return [`${name} has not reported since it booted`];
    if (status.state === 'HOST_STATE_READY') return [];
    const state = (status.state ?? 'unknown').replace('HOST_STATE_', '').toLowerCase();
    return [`${name} is ${state}${status.message ? `: ${status.message}` : ''}`];
  });
}

/** Waits until Busbar calls these hosts ready. Returns false when the lab runs no controllers or agents that could. */
export async function waitForReady(plan: LabPlan, hosts: readonly HostPlan[], timeoutMs: number): Promise<boolean> {
  const daemons = await findDaemons();
  if (!daemons.controller || !daemons.agent) return false;
  const lab = plan.spec.name;
  // A file of our own: the user's may be another's, who made the lab with another $BUSBAR_CONFIG.
  const config = join(labDir(lab), 'context.yaml');
  await writeAtomically(config, addContext('', lab, labContext(plan)), 0o600);
  const bin = createRequire(import.meta.url).resolve('@busbar/cli/bin');
  const bootIds = new Map<string, string>();
  for (const host of hosts)
    bootIds.set(host.name, (await readFile(hostRoot(lab, host.name, '/boot_id'), 'utf8')).trim());
  await until(
    `Busbar calling ${hosts.map((host) => host.name).join(', ')} ready`,
    async () => {
      const answer = await run([daemons.node, bin, '--context', lab, 'host', 'list', '-o', 'json'], {
        env: { BUSBAR_CONFIG: config },
        mayFail: true,
        timeoutMs: ANSWER_TIMEOUT_MS,
      }).catch((error: Error) => ({ code: 1, stdout: '', stderr: error.message }));
      if (answer.code !== 0) return { waiting: answer.stderr.trim() };
      const waiting = unready((JSON.parse(answer.stdout) as { hosts?: Host[] }).hosts ?? [], bootIds);
      return waiting.length === 0 ? { value: undefined } : { waiting: waiting.join(', ') };
    },
    { timeoutMs, everyMs: EVERY_MS },
  );
  return true;
}
