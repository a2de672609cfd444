// SPDX-License-Identifier: Apache-2.0
// The agent's process: reads its configuration, makes the real clock, network, disk and hypervisor, and hands them to
// createAgent. Ends on SIGTERM without touching a guest: VMs go on while no agent runs, and the next one adopts them.
import { readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { sleep, systemClock } from '@busbar/core/clock/clock';
import { BusbarError, errorChain } from '@busbar/core/errors';
import type { Logger } from '@busbar/core/log';
import { systemRandom } from '@busbar/core/random';
import { lockFile } from '@busbar/pki/file-lock';
import { renewInPlace } from '@busbar/pki/tls/renewal';
import { openTlsSource } from '@busbar/pki/tls/source';
import { CertificatePurpose } from '@busbar/proto/gen/busbar/v1/certificate';
import { createLogger, endOnBug } from '@busbar/telemetry/logger';
import { metricsRegistry } from '@busbar/telemetry/registry';
import manifest from '../package.json' with { type: 'json' };
import { createAgent } from './agent.ts';
import { type AgentFile, parseAgentFile, retiredFields } from './config/config.ts';
import { openHost } from './config/host.ts';
import { readBootId } from './inventory/read.ts';
import { MemoryFile } from './reconcile/memory-file.ts';
import { GrpcDialer } from './session/grpc-dialer.ts';
import { heartbeatDialer } from './session/heartbeat-dialer.ts';
import { agentListener } from './telemetry/listener.ts';

const HELP = `busbar-agent: runs the VMs of one host of a Busbar cluster

Usage: busbar-agent --config FILE

Options:
  --config FILE  configuration, e.g. /etc/busbar/agent.yaml
  --help         this text
  --version      the version

Ends on SIGTERM; VMs go on running. Logs JSON lines to stdout.
Exit codes: 0 stopped on request, 1 failed, 2 wrong usage or configuration.
`;

const EXIT = { failed: 1, usage: 2 } as const;
/** systemd's own deadline is longer; whatever still hangs by then would not have ended anyway. */
const STOP_DEADLINE_MS = 10_000;

async function main(): Promise<void> {
  const file = configuration();
  const logger = createLogger({
    base: { service: 'busbar-agent', host: file.host },
    level: file.log?.level ?? 'info',
  });
  endOnBug(logger, EXIT.failed);
  for (const retired of retiredFields(file)) logger.warn(retired);
  await claimHost(file);
  await run(file, logger);
}

async function run(file: AgentFile, logger: Logger): Promise<void> {
  const { cluster, controllers, tls, stateDir } = file;
  const { version } = manifest;
  const source = await openTlsSource({ files: tls, clock: systemClock, logger });
  const ending = new AbortController();
  void source.run(ending.signal);
  const dialing = { cluster, controllers, loadTls: () => source.current() };
  const dialer = new GrpcDialer(dialing);
  const renewer = {
    renew: (csrPem: string, signal: AbortSignal) => dialer.renewCertificate(CertificatePurpose.AGENT, csrPem, signal),
    async prove(csrPem: string, signal: AbortSignal) {
      await dialer.renewCertificate(CertificatePurpose.AGENT, csrPem, signal, { validateOnly: true });
    },
  };
  void renewInPlace({ source, files: tls, renewer, clock: systemClock, logger }, ending.signal);
  const metrics = metricsRegistry();
  const host = await openHost(file, { clock: systemClock, logger, metrics });
  const agent = createAgent({
    clock: systemClock,
    random: systemRandom,
    logger,
    dialer,
    heartbeatDialer: heartbeatDialer(dialing),
    ...host,
    store: new MemoryFile(join(stateDir, 'agent-memory.json')),
    bootId: await readBootId(),
    version,
    config: file,
    metrics,
  });
  const listener = agentListener({ cluster, tls: source.current(), registry: metrics, health: agent.health, logger });
  source.onChange(() => listener.setTls(source.current()));
  if (file.metrics !== undefined) listener.serve(file.metrics.listen);

  let stopping = false;
  const stop = (signal: NodeJS.Signals) => {
    if (stopping) return; // process groups and wrappers deliver it twice
    stopping = true;
    ending.abort();
    logger.info({ signal }, 'agent stops; VMs go on');
    const work = agent.stop().then(() => Promise.all([host.driver?.close(), dialer.close()]));
    const ended = work.then(() => 'agent stopped');
    const overdue = sleep(systemClock, STOP_DEADLINE_MS).then(() => 'agent stopped; something hung');
    void Promise.race([ended, overdue]).then((message) => {
      logger.info({ signal }, message);
      process.exit(0);
    });
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  agent.start();
  logger.info(
    { version, role: file.role, controllers: controllers.map((controller) => controller.host) },
    'agent started',
  );
}

function configuration(): AgentFile {
  const { values } = parseArgs({
    options: { config: { type: 'string' }, help: { type: 'boolean' }, version: { type: 'boolean' } },
  });
  if (values.help === true) finish(HELP);
  if (values.version === true) finish(`busbar-agent ${manifest.version}\n`);
  if (values.config === undefined) throw usage('--config FILE is needed; see --help');
  let text: string;
  try {
    text = readFileSync(values.config, 'utf8');
  } catch (error) {
    throw usage(`the configuration cannot be read: ${errorChain(error)}`);
  }
  return parseAgentFile(text, values.config);
}

/**
 * Two agents on one host would each keep a memory of what was started. The lock is a file in the state directory, where
 * only root can write: no other user of the host can keep the agent from starting.
 */
async function claimHost({ host, stateDir }: AgentFile): Promise<void> {
  // QEMU's user has to pass through, not to read.
  await mkdir(stateDir, { recursive: true, mode: 0o711 });
  if ((await lockFile(join(stateDir, 'agent.lock'))) !== undefined) return;
  throw new BusbarError({
    kind: 'precondition',
    reason: 'AGENT_RUNS_ALREADY',
    message: `another agent of host ${host} runs here: it holds ${join(stateDir, 'agent.lock')}`,
    hint: `"fuser ${join(stateDir, 'agent.lock')}" names it; removing the file would let two run`,
  });
}

function usage(message: string): BusbarError {
  return new BusbarError({ kind: 'invalid', reason: 'USAGE', message });
}

function finish(text: string): never {
  process.stdout.write(text);
  process.exit(0);
}

main().catch((error: unknown) => {
  const isUsage = (error instanceof BusbarError && error.kind === 'invalid') || error instanceof TypeError;
  process.stderr.write(`error: ${errorChain(error)}\n`);
  if (error instanceof BusbarError && error.hint !== '') process.stderr.write(`do: ${error.hint}\n`);
  process.exit(isUsage ? EXIT.usage : EXIT.failed);
});
