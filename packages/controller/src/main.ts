// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { systemClock } from '@busbar/core/clock/clock';
import { BusbarError, errorChain } from '@busbar/core/errors';
import { systemRandom } from '@busbar/core/random';
import { openStorage } from '@busbar/storage/open';
import { pino } from 'pino';
import { grpcServer } from './api/grpc-server.ts';
import { parseControllerFile } from './config/config.ts';
import { createController } from './controller.ts';
import { edgeServer } from './edge/server.ts';
import { openSeal } from './pki/seal.ts';
import { EtcdStore } from './store/etcd.ts';
import { VERSION } from './version.ts';

const HELP = `busbar-controller ${VERSION}: the controller of a Busbar cluster, one per voting host

usage: busbar-controller --config /etc/busbar/controller.yaml

Logs JSON lines on stdout. SIGTERM ends it cleanly: it gives leadership up first. Guests do not notice.
`;

/** A clean end takes milliseconds; a frozen store must not hold up a reboot. */
const SHUTDOWN_LIMIT_MS = 5_000;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { config: { type: 'string' }, help: { type: 'boolean' }, version: { type: 'boolean' } },
  });
  if (values.help) return void process.stdout.write(HELP);
  if (values.version) return void process.stdout.write(`${VERSION}\n`);
  if (values.config === undefined) throw new Error('--config FILE is missing; see --help');

  const config = parseControllerFile(readFileSync(values.config, 'utf8'), values.config);
  const logger = pino({
    base: { service: 'busbar-controller', controller: config.host },
    timestamp: pino.stdTimeFunctions.isoTime,
  });
  mkdirSync(config.stateDir, { recursive: true, mode: 0o700 });
  const files = (tls: { ca: string; certificate: string; key: string }) => ({
    ca: readFileSync(tls.ca),
    certificate: readFileSync(tls.certificate),
    key: readFileSync(tls.key),
  });
  const [first, ...others] = config.etcd.endpoints.map((endpoint) => endpoint.replace(/^https:\/\//, ''));
  const etcdTls = files(config.etcd.tls);
  const store = new EtcdStore({
    members: [first as string, ...others],
    tls: { ca: etcdTls.ca, cert: etcdTls.certificate, key: etcdTls.key },
    clock: systemClock,
    log: logger,
  });
  const storage = openStorage(config.storage, { clock: systemClock, logger });
  const self = config.controllers.find((member) => member.host === config.host);
  const controller = createController({
    cluster: config.cluster,
    host: config.host,
    address: self?.address ?? config.listen,
    controllers: config.controllers,
    version: VERSION,
    store,
    storage,
    clock: systemClock,
    random: systemRandom,
    logger,
    seal: openSeal(readFileSync(config.sealKeyFile)),
  });
  const transport = {
    cluster: config.cluster,
    services: controller.services,
    tls: files(config.tls),
    clock: systemClock,
    logger,
  };
  const server = grpcServer({ ...transport, sessions: controller.sessions });
  const edge = config.edge === undefined ? null : edgeServer(transport);
  const stop = new AbortController();
  for (const name of ['SIGTERM', 'SIGINT'] as const) {
    process.once(name, () => {
      logger.info({ signal: name }, 'stopping');
      stop.abort();
      setTimeout(() => process.exit(1), SHUTDOWN_LIMIT_MS).unref();
    });
  }
  const running = controller.run(stop.signal);
  await server.listen(config.listen);
  if (config.edge !== undefined) await edge?.listen(config.edge.listen);
  logger.info(
    { version: VERSION, listen: config.listen, edge: config.edge?.listen, cluster: config.cluster },
    'controller started',
  );
  await running;
  server.close();
  edge?.close();
  await Promise.all([storage.close(), store.close()]);
  logger.info({}, 'controller stopped');
}

process.on('unhandledRejection', (error) => {
  // A bug: nothing in here may be left unawaited. The service manager starts a fresh controller.
  process.stdout.write(
    `${JSON.stringify({ level: 60, service: 'busbar-controller', err: errorChain(error), msg: 'unhandled rejection' })}\n`,
  );
  process.exit(70);
});

main().catch((error: unknown) => {
  process.stderr.write(`busbar-controller: ${errorChain(error)}\n`);
  // 2 as for every program that was called wrongly: a supervisor need not try again.
  process.exit(error instanceof BusbarError && error.kind === 'invalid' ? 2 : 1);
});
