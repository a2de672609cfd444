// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import type { BootId } from '@busbar/core/ids';
import { type Logger, withFields } from '@busbar/core/log';
import { type Metrics, noMetrics } from '@busbar/core/metrics';
import { Pulse } from '@busbar/core/pulse';
import type { Random } from '@busbar/core/random';
import type { HostReport } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { type HostInventory, HostRole } from '@busbar/proto/gen/busbar/v1/host';
import type { HealthSource } from '@busbar/telemetry/health';
import { AttachStreams } from './attach/attach.ts';
import type { HostDriver } from './driver/host-driver.ts';
import { Lease } from './lease/lease.ts';
import { LeaseWatch } from './lease/watch.ts';
import { NO_POSITION } from './reconcile/desired.ts';
import type { MemoryStore } from './reconcile/memory.ts';
import { type Picture, Reconciler } from './reconcile/reconciler.ts';
import { ControllerSession } from './session/controller-session.ts';
import { InventoryWatch } from './session/inventory-watch.ts';
import type { ControllerDialer, SessionDialer } from './session/link.ts';
import { measuredDriver, measuredMemory } from './telemetry/drivers.ts';
import { agentHealth } from './telemetry/health.ts';
import { AGENT_METRICS as M } from './telemetry/metrics.ts';
import { observe } from './telemetry/observe.ts';

/** A report is due this often even if nothing changed; the protocol says so. */
const REPORT_EVERY_MS = 5000;
/** Notes beyond this many help nobody and would grow the report without bound. */
const NOTES_LIMIT = 10;

export interface AgentConfig {
  readonly host: string;
  readonly managementAddress: string;
  readonly storageAddress: string;
  readonly controllers: readonly { readonly host: string; readonly address: string }[];
}

export interface AgentDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly dialer: ControllerDialer;
  /** Connections for heartbeats alone. Undefined: they go through the sessions, as with controllers of an older version. */
  readonly heartbeatDialer?: SessionDialer;
  /** Undefined on a witness. The agent starts it; whoever made it closes it. */
  readonly driver: HostDriver | undefined;
  /** Where a witness has its inventory from; a hypervisor's comes from its driver. */
  readonly readInventory?: () => Promise<HostInventory>;
  readonly store: MemoryStore;
  readonly bootId: BootId;
  readonly version: string;
  readonly config: AgentConfig;
  /** Default: nothing is counted. */
  readonly metrics?: Metrics;
}

export interface Agent {
  start(): void;
  /** Nothing is sent and no driver call begun after the call; resolves when all loops have ended. Guests are not touched. */
  stop(): Promise<void>;
  /** Milliseconds left on the lease. */
  leaseRemainingMs(): number;
  /** What it would report now; undefined until domains were listed once. */
  report(): HostReport | undefined;
  readonly health: HealthSource;
}

/**
 * One host's agent. It has no I/O of its own: time, chance, network, hypervisor and disk come in, so
 * that a whole cluster of agents runs in one process on virtual time.
 *
 * Who owns what: each ControllerSession its link; Lease what the controllers acknowledged;
 * Reconciler the VMs and the memory; this file only wires them and makes the reports.
 */
export function createAgent(deps: AgentDeps): Agent {
  const { clock, random, logger, dialer, config, bootId, metrics = noMetrics } = deps;
  const driver = deps.driver && measuredDriver(deps.driver, metrics, clock);
  const pulse = new Pulse(clock);
  const losses = metrics.counter(M.leaseLosses);
  const controllers = config.controllers.map((controller) => controller.host);
  const instanceId = random.uuid();
  const lease = new Lease(controllers);
  const attach = new AttachStreams({ clock, logger, dialer, driver });
  let sequence = 0n;
  let reportTimer: Disposable | undefined;

  const leaseWatch = new LeaseWatch(clock, lease, (held) => {
    if (!held) losses.add({});
    logger[held ? 'info' : 'warn']({ held }, held ? 'lease held' : 'lease ended');
    // Isolation policies are NOT acted on yet: when they are, it begins here, with what onLease (lease/isolation.ts) says.
    reconciler?.wake();
    markReport();
  });

  const reconciler =
    driver &&
    new Reconciler({
      clock,
      logger,
      driver,
      store: measuredMemory(deps.store, metrics, clock),
      metrics,
      bootId,
      noLease: () => (leaseWatch.remainingMs() > 0 ? '' : NO_LEASE),
      onChange: markReport,
    });

  const inventory = new InventoryWatch({
    clock,
    logger,
    read: async () => {
      const read = driver ? () => driver.inventory() : deps.readInventory;
      if (read === undefined) throw new Error('this host has no source for its inventory');
      const { managementAddress, storageAddress } = config;
      return withAgentVersion({ ...(await read()), managementAddress, storageAddress }, deps.version);
    },
    isComplete: (found) => driver === undefined || found.versions?.libvirt !== '',
    onChange: () => {
      for (const session of sessions) session.mark('inventory');
    },
  });

  const role = driver ? HostRole.HYPERVISOR : HostRole.WITNESS;
  const sources = {
    hello: { host: config.host, bootId, role, agentVersion: deps.version, agentInstanceId: instanceId },
    inventory: () => inventory.inventory,
    report,
  };
  const sessions = config.controllers.map(
    (controller) =>
      new ControllerSession({
        clock,
        random,
        dialer,
        logger,
        controller,
        controllers,
        lease,
        sources,
        pulse,
        metrics,
        onAcknowledged: () => leaseWatch.check(),
        onDesired: (state) => reconciler?.accept(state),
        onStoreMark: (revision) => reconciler?.remember(revision),
        onAttach: (order) => attach.open(controller.address, order),
      }),
  );

  // Heartbeats go both ways, and either counts: through the session with a controller, and to a thread of that controller
  // which answers while the rest of it is busy.
  const { heartbeatDialer } = deps;
  const beats =
    heartbeatDialer === undefined
      ? []
      : config.controllers.map(
          (controller) =>
            new ControllerSession({
              clock,
              random,
              dialer: heartbeatDialer,
              logger: withFields(logger, { connection: 'heartbeats' }),
              controller,
              controllers,
              lease,
              sources: { hello: sources.hello, inventory: () => undefined, report: () => undefined },
              pulse,
              metrics,
              onAcknowledged: () => leaseWatch.check(),
              onDesired: () => {},
              onAttach: () => {},
              onStoreMark: () => {},
            }),
        );

  function markReport(): void {
    for (const session of sessions) session.mark('report');
  }

  function reportRegularly(): void {
    markReport();
    reportTimer = clock.timer(REPORT_EVERY_MS, reportRegularly);
  }

  function report(): HostReport | undefined {
    const picture = reconciler ? reconciler.picture() : WITNESS;
    if (picture === undefined) return undefined;
    const remainingMs = leaseWatch.remainingMs();
    const problems = sessions.map((session, index) => ({ problem: session.problem, host: controllers[index] }));
    const notes = [
      remainingMs > 0 ? '' : NO_LEASE,
      ...picture.notes,
      ...problems.map(({ problem, host }) => problem && `controller ${host}: ${problem}`),
    ];
    sequence++;
    return {
      sequence,
      bootId,
      accepted: picture.accepted,
      storeRevision: picture.storeRevision,
      domains: [...picture.domains],
      leaseRemainingMs: Math.floor(remainingMs),
      hypervisorHealthy: picture.healthy,
      message: [...new Set(notes)]
        .filter((note) => note !== '')
        .slice(0, NOTES_LIMIT)
        .join('; '),
    };
  }

  const acknowledging = () =>
    sessions.filter((session, index) => session.problem === '' || beats[index]?.problem === '').length;
  const leaseRemainingMs = () => leaseWatch.remainingMs();
  observe(metrics, {
    version: deps.version,
    controllers: controllers.length,
    acknowledging,
    leaseRemainingMs,
    domains: () => (reconciler?.picture() ?? WITNESS).domains,
  });

  return {
    health: agentHealth({
      reconciler: reconciler?.pulse,
      sessions: pulse,
      readiness: () => ({
        controllers: controllers.length,
        acknowledging: acknowledging(),
        leaseHeld: leaseRemainingMs() > 0,
        hypervisor: reconciler?.hypervisorProblem ?? '',
        hasInventory: inventory.inventory !== undefined,
      }),
    }),
    start() {
      driver?.start();
      reconciler?.start();
      inventory.start();
      for (const session of [...sessions, ...beats]) session.start();
      reportRegularly();
    },
    async stop() {
      reportTimer?.[Symbol.dispose]();
      leaseWatch.stop();
      inventory.stop();
      for (const session of [...sessions, ...beats]) session.stop();
      await Promise.all([attach.stop(), reconciler?.stop()]);
    },
    leaseRemainingMs,
    report,
  };
}

const NO_LEASE = 'this host has no lease: a majority of controllers does not acknowledge its heartbeats';

const WITNESS: Picture = { accepted: NO_POSITION, storeRevision: 0n, domains: [], healthy: true, notes: [] };

function withAgentVersion(inventory: HostInventory, agent: string): HostInventory {
  const { versions } = inventory;
  return versions === undefined ? inventory : { ...inventory, versions: { ...versions, agent } };
}
