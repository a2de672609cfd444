// SPDX-License-Identifier: Apache-2.0
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '@busbar/core/clock/clock';
import type { BootId, Epoch, VmId } from '@busbar/core/ids';
import { silentLogger } from '@busbar/core/log';
import { systemRandom } from '@busbar/core/random';
import { DomainState } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { vmId } from '../agent.fixture.ts';
import { type Agent, createAgent } from '../agent.ts';
import { metadataElement } from '../domain/metadata.ts';
import { element, serialize } from '../domain/xml.ts';
import { InMemoryStore } from '../reconcile/memory.ts';
import { ScriptedCluster } from '../session/scripted-cluster.fixture.ts';
import { LibvirtHostDriver } from './driver.ts';

/**
 * 500 domains of libvirt's own test driver, which runs inside the native child and needs neither root nor QEMU: the real
 * library, the real child and its protocol, the real agent and clock; the domains alone are make-believe.
 */
const COUNT = 500;
const SOON = { timeout: 30_000, interval: 20 } as const;

let folder: string;
let driver: LibvirtHostDriver;
let agent: Agent | undefined;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'busbar-many-'));
  const domains = Array.from({ length: COUNT }, (_, i) => domainXml(vmId(i + 1), `vm-${i + 1}`));
  const foreign = domainXml(vmId(COUNT + 1), 'foreign').replace(/<metadata>[\s\S]*<\/metadata>/, '');
  await writeFile(join(folder, 'node.xml'), `<node>${[...domains, foreign].join('')}</node>`);
  driver = new LibvirtHostDriver(
    { uri: `test://${join(folder, 'node.xml')}`, stateDir: folder, runDir: folder, logDir: folder, rbd: null },
    { clock: systemClock, logger: silentLogger, qemuLogDir: folder },
  );
});
afterAll(async () => {
  await agent?.stop();
  await driver?.close();
  await rm(folder, { recursive: true, force: true });
});

function domainXml(uuid: VmId, name: string): string {
  return serialize(
    element(
      'domain',
      { type: 'test' },
      element('name', {}, name),
      element('uuid', {}, uuid),
      element('metadata', {}, metadataElement({ vmId: uuid, name, epoch: 7n as Epoch, specRevision: 1n })),
      element('memory', { unit: 'MiB' }, 64),
      element('vcpu', {}, 1),
      element('os', {}, element('type', {}, 'hvm')),
    ),
  );
}

test('an agent adopts them, reports them, and keeps its lease; a listing stays cheap', async ({ annotate }) => {
  const cluster = new ScriptedCluster(systemClock);
  agent = createAgent({
    clock: systemClock,
    random: systemRandom,
    logger: silentLogger,
    dialer: cluster,
    driver,
    store: new InMemoryStore(),
    bootId: 'boot' as BootId,
    version: '0.0.0',
    config: { host: 'h1', managementAddress: '10.0.0.1', storageAddress: '10.1.0.1', controllers: cluster.config },
  });
  agent.start();
  await vi.waitFor(() => expect(agent?.leaseRemainingMs()).toBeGreaterThan(0), SOON);
  let leastMs = Number.POSITIVE_INFINITY;
  const watch = setInterval(() => {
    leastMs = Math.min(leastMs, agent?.leaseRemainingMs() ?? 0);
  }, 20);
  try {
    await vi.waitFor(() => expect(cluster.leader.report?.domains).toHaveLength(COUNT), SOON);
    const { domains } = cluster.leader.report ?? { domains: [] };
    expect(domains.every(({ epoch, state }) => epoch === 7n && state === DomainState.RUNNING)).toBe(true);
    // What is not ours is not reported.
    expect(domains.some((domain) => domain.vmId === vmId(COUNT + 1))).toBe(false);

    // The first listing asks for all metadata, the next ones for states alone.
    const startedAtMs = performance.now();
    for (let n = 0; n < 5; n++) expect(await driver.listDomains()).toHaveLength(COUNT);
    const listMs = (performance.now() - startedAtMs) / 5;
    await annotate(
      `a listing of ${COUNT} domains takes ${listMs.toFixed(1)} ms; least of the lease ${Math.round(leastMs)} ms`,
    );
    // Every 5 s, within a deadline of 15 s: a tenth of the period, on a machine that is busy.
    expect(listMs).toBeLessThan(500);
    // Heartbeats every 250 ms, 2250 ms of lease: it never came near its end.
    expect(leastMs).toBeGreaterThan(500);
  } finally {
    clearInterval(watch);
  }
});
