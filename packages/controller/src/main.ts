// SPDX-License-Identifier: Apache-2.0
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { systemClock } from '@busbar/core/clock/clock';
import { BusbarError, errorChain } from '@busbar/core/errors';
import { leaseAddressOf } from '@busbar/core/lease-port';
import { systemRandom } from '@busbar/core/random';
import { replaceFile } from '@busbar/pki/files';
import { openSeal } from '@busbar/pki/seal';
import { parseSealedAuthorities, type SealedAuthorities } from '@busbar/pki/sealed-authorities';
import type { TlsFiles } from '@busbar/pki/tls/files';
import { renewInPlace } from '@busbar/pki/tls/renewal';
import { openTlsSource } from '@busbar/pki/tls/source';
import { CertificatePurpose } from '@busbar/proto/gen/busbar/v1/certificate';
import { openStorage } from '@busbar/storage/open';
import { createLogger, endOnBug } from '@busbar/telemetry/logger';
import { metricsRegistry } from '@busbar/telemetry/registry';
import { grpcServer } from './api/grpc-server.ts';
import { pipeline } from './api/pipeline.ts';
import { keepEtcdRevocations } from './certificate/etcd-revocations.ts';
import { auditPolicy, parseControllerFile, placementPolicy } from './config/config.ts';
import { createController } from './controller.ts';
import { edgeServer } from './edge/server.ts';
import { NO_BUS } from './event/bus.ts';
import { natsBus } from './event/nats.ts';
import { tellCertificates } from './heartbeats/certificates.ts';
import { threadGranting } from './heartbeats/thread-granting.ts';
import { welcomeOf } from './session/registry.ts';
import { EtcdStore } from './store/etcd.ts';
import { controllerListener } from './telemetry/listener.ts';
import { ownRenewer } from './tls/renewer.ts';
import { VERSION } from './version.ts';

const HELP = `busbar-controller ${VERSION}: the controller of a Busbar cluster, one per voting host

usage: busbar-controller --config /etc/busbar/controller.yaml

Logs JSON lines on stdout. SIGTERM ends it cleanly: it gives leadership up first. Guests do not notice.
`;

/** A clean end takes milliseconds; a frozen store must not hold up a reboot. */
const SHUTDOWN_LIMIT_MS = 5_000;
const EXIT_BUG = 70;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { config: { type: 'string' }, help: { type: 'boolean' }, version: { type: 'boolean' } },
  });
  if (values.help) return void process.stdout.write(HELP);
  if (values.version) return void process.stdout.write(`${VERSION}\n`);
  if (values.config === undefined) throw new Error('--config FILE is missing; see --help');

  const config = parseControllerFile(readFileSync(values.config, 'utf8'), values.config);
  const base = { service: 'busbar-controller', controller: config.host };
  const logger = createLogger({ base, level: config.log?.level ?? 'info' });
  endOnBug(logger, EXIT_BUG);
  const metrics = metricsRegistry();
  mkdirSync(config.stateDir, { recursive: true, mode: 0o700 });
  const open = (files: TlsFiles) => openTlsSource({ files, clock: systemClock, logger });
  const [tls, etcdTls] = await Promise.all([open(config.tls), open(config.etcd.tls)]);
  const [first, ...others] = config.etcd.endpoints.map((endpoint) => endpoint.replace(/^https:\/\//, ''));
  const store = new EtcdStore({
    members: [first as string, ...others],
    tls: etcdTls,
    clock: systemClock,
    log: logger,
  });
  const storage = openStorage(config.storage, { clock: systemClock, logger, metrics });
  const bus =
    config.nats === undefined
      ? NO_BUS
      : natsBus({
          cluster: config.cluster,
          servers: config.nats.servers.map((server) => server.replace(/^tls:\/\//, '')),
          name: `busbar-controller ${config.host}`,
          tls: () => {
            const { ca, certificate, key } = tls.current();
            return { ca: ca.toString(), cert: certificate.toString(), key: key.toString() };
          },
          clock: systemClock,
          random: systemRandom,
          logger,
        });
  const self = config.controllers.find((member) => member.host === config.host);
  const sealKey = readFileSync(config.sealKeyFile);
  const seal = openSeal(sealKey);
  const authorities = readAuthorities(config.authoritiesFile);
  const members = config.controllers.map((member) => member.host);
  const welcome = welcomeOf({ controller: config.host, controllers: members });
  const granting = threadGranting({
    cluster: config.cluster,
    welcome,
    address: leaseAddressOf(config.listen),
    tls,
    clock: systemClock,
    logger,
    // Sessions without a granter would be of use to nobody; the next controller begins as one that was just started.
    onDeath: (why) => {
      logger.error({ err: why }, 'heartbeats are not answered any more: the controller ends');
      process.exit(EXIT_BUG);
    },
  });
  const controller = createController({
    cluster: config.cluster,
    host: config.host,
    address: self?.address ?? config.listen,
    controllers: config.controllers,
    version: VERSION,
    store,
    storage,
    bus,
    clock: systemClock,
    random: systemRandom,
    logger,
    seal,
    policy: placementPolicy(config),
    audit: auditPolicy(config),
    granting,
    forVoters: { sealKey, etcdEndpoints: config.etcd.endpoints },
    ...(authorities === undefined ? {} : { authorities }),
    ...(config.etcd.quotaBytes === undefined ? {} : { quotaBytes: config.etcd.quotaBytes }),
    metrics,
  });
  const transport = {
    cluster: config.cluster,
    controllers: config.controllers,
    services: controller.services,
    trail: controller.trail,
    admission: controller.admission,
    lines: controller.lines,
    tls,
    clock: systemClock,
    logger,
    metrics,
  };
  const server = grpcServer({ ...transport, sessions: controller.sessions });
  const edge = config.edge === undefined ? null : edgeServer(transport);
  const listener = controllerListener({
    cluster: config.cluster,
    tls: tls.current(),
    registry: metrics,
    controller,
    logger,
  });
  using _renewed = tls.onChange(() => listener.setTls(tls.current()));
  const stop = new AbortController();
  for (const name of ['SIGTERM', 'SIGINT'] as const) {
    process.once(name, () => {
      logger.info({ signal: name }, 'stopping');
      stop.abort();
      setTimeout(() => process.exit(1), SHUTDOWN_LIMIT_MS).unref();
    });
  }
  const { trail, admission, lines } = controller;
  const gate = pipeline({ logger, trail, admission, lines, clock: systemClock });
  const { memberTls, revocationsFile } = config.etcd;
  for (const [source, files, purpose] of [
    [tls, config.tls, CertificatePurpose.CONTROLLER],
    [etcdTls, config.etcd.tls, CertificatePurpose.ETCD_CLIENT],
    ...(memberTls === undefined ? [] : [[await open(memberTls), memberTls, CertificatePurpose.ETCD] as const]),
  ] as const) {
    void source.run(stop.signal);
    const renewer = ownRenewer(
      { cluster: config.cluster, services: controller.services, gate, identity: tls },
      purpose,
    );
    void renewInPlace({ source, files, renewer, clock: systemClock, logger }, stop.signal);
  }
  using _certificates = tellCertificates(controller.view, (news) => granting.tell(news));
  const running = controller.run(stop.signal);
  if (revocationsFile !== undefined) {
    const write = (list: Uint8Array) => replaceFile(revocationsFile, list);
    const deps = { view: controller.view, seal, clock: systemClock, logger, write };
    void keepEtcdRevocations(deps, stop.signal);
  }
  if (config.metrics !== undefined) listener.serve(config.metrics.listen);
  const heartbeats = await granting.listening;
  await server.listen(config.listen);
  if (config.edge !== undefined) await edge?.listen(config.edge.listen);
  logger.info(
    { version: VERSION, listen: config.listen, heartbeats, edge: config.edge?.listen, cluster: config.cluster },
    'controller started',
  );
  await running;
  listener.close();
  server.close();
  edge?.close();
  await Promise.all([granting.close(), bus.close(), storage.close(), store.close()]);
  logger.info({}, 'controller stopped');
}

/** Gone is as good as taken over: whoever has put it away shall not have to change the configuration. */
function readAuthorities(file: string | undefined): SealedAuthorities | undefined {
  return file !== undefined && existsSync(file) ? parseSealedAuthorities(readFileSync(file, 'utf8'), file) : undefined;
}

main().catch((error: unknown) => {
  process.stderr.write(`busbar-controller: ${errorChain(error)}\n`);
  // 2 as for every program that was called wrongly: a supervisor need not try again.
  process.exit(error instanceof BusbarError && error.kind === 'invalid' ? 2 : 1);
});
