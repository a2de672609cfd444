// SPDX-License-Identifier: Apache-2.0
import { type BoundedLog, boundedLog } from '@busbar/core/bounded-log';
import type { Clock } from '@busbar/core/clock/clock';
import type { Logger } from '@busbar/core/log';
import { type Metrics, noMetrics } from '@busbar/core/metrics';
import { Pulse } from '@busbar/core/pulse';
import type { Random } from '@busbar/core/random';
import type { Seal } from '@busbar/pki/seal';
import type { SealedAuthorities } from '@busbar/pki/sealed-authorities';
import { DEFAULT_POLICY, type PlacementPolicy } from '@busbar/scheduler/model';
import type { StorageDriver } from '@busbar/storage/driver';
import type { HealthSource } from '@busbar/telemetry/health';
import { createAlarms } from './alarm/alarm.ts';
import { ALARM_SOURCES } from './alarm/table.ts';
import type { Api } from './api/call.ts';
import { apiPlaces } from './api/places.ts';
import { RequestLeases } from './api/request-leases.ts';
import { type BoundService, publicServices } from './api/services.ts';
import { AUDIT_POLICY, type AuditPolicy } from './audit/policy.ts';
import { AuditRoom } from './audit/room.ts';
import { AuditTrail } from './audit/trail.ts';
import { budgetedCommit } from './budget/commit.ts';
import { ETCD_QUOTA_BYTES, FillWatch } from './budget/fill.ts';
import { WriteBudget } from './budget/write-budget.ts';
import { type Admission, admission } from './certificate/admission.ts';
import { FirstUses } from './certificate/first-use.ts';
import { takeOverAuthorities } from './certificate/take-over.ts';
import { type EventBus, NO_BUS } from './event/bus.ts';
import { leaderFor } from './leader/leader.ts';
import { lead } from './leader/term.ts';
import { Leadership } from './leadership/leadership.ts';
import { DEFAULT_LEASE, type LeaseTimings } from './lease/granter.ts';
import { type Granting, localGranting } from './lease/granting.ts';
import { SessionRegistry } from './session/registry.ts';
import type { ClusterStore } from './store/cluster-store.ts';
import { groupCommit } from './store/group-commit.ts';
import { measuredStore } from './store/measured.ts';
import { controllerHealth } from './telemetry/health.ts';
import { CONTROLLER_METRICS } from './telemetry/metrics.ts';
import { observe } from './telemetry/observe.ts';
import { measuredStorage } from './telemetry/storage.ts';
import { ClusterView } from './view/view.ts';

/**
 * A controller, built from what it depends on: with the real store, storage, clock and a gRPC server
 * around it (main.ts), or a hundred of them in one process on virtual time (simulation).
 */
export interface ControllerDeps {
  readonly cluster: string;
  readonly host: string;
  readonly address: string;
  readonly controllers: readonly { readonly host: string; readonly address: string }[];
  readonly version: string;
  readonly store: ClusterStore;
  readonly storage: StorageDriver;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly seal: Seal;
  /** Where events go besides the store; nowhere by default. */
  readonly bus?: EventBus;
  readonly forVoters: Api['forVoters'];
  /** What `busbar cluster init` made, on a controller that was given its file. */
  readonly authorities?: SealedAuthorities;
  readonly policy?: PlacementPolicy;
  readonly audit?: AuditPolicy;
  readonly leaseTimings?: LeaseTimings;
  /** Default: etcd's own default. */
  readonly quotaBytes?: number;
  /** [in this thread, through sessions alone] */
  readonly granting?: Granting;
  /** Default: nothing is counted. */
  readonly metrics?: Metrics;
}

export interface Controller {
  readonly sessions: SessionRegistry;
  readonly services: readonly BoundService[];
  readonly leadership: Leadership;
  readonly trail: AuditTrail;
  readonly view: ClusterView;
  /** For the transports. */
  readonly admission: Admission;
  /** For the transports, too: what callers cause to be logged. */
  readonly lines: BoundedLog;
  readonly health: HealthSource;
  /** Runs until the signal aborts, then resigns and returns. */
  run(signal: AbortSignal): Promise<void>;
}

export function createController(deps: ControllerDeps): Controller {
  const { clock, random, logger, metrics = noMetrics } = deps;
  const store = measuredStore(deps.store, metrics, clock);
  const storage = measuredStorage(deps.storage, metrics, clock);
  const rounds = new Pulse(clock);
  const view = new ClusterView({ store, clock, logger });
  const lines = boundedLog({ logger, clock });
  const timings = deps.leaseTimings ?? DEFAULT_LEASE;
  const sessions = new SessionRegistry({
    controller: deps.host,
    controllers: deps.controllers.map((member) => member.host),
    timings,
    granting: deps.granting ?? localGranting({ clock, leaseTtlMs: timings.leaseTtlMs }),
    clock,
    random,
    logger,
    lines,
  });
  const leadership = new Leadership({ store, clock, random, log: logger, host: deps.host, address: deps.address });
  const audit = new AuditRoom({ view, policy: deps.audit ?? AUDIT_POLICY, clock });
  const trail = new AuditTrail({ host: deps.host, store, view, clock, random, logger, room: audit });
  const firstUses = new FirstUses({ store, view, clock, logger });
  const quotaBytes = deps.quotaBytes ?? ETCD_QUOTA_BYTES;
  const fill = new FillWatch({ store, storage, quotaBytes, clock, logger });
  const refusedWrites = metrics.counter(CONTROLLER_METRICS.refusedWrites);
  const world = {
    cluster: deps.cluster,
    host: deps.host,
    view,
    sessions,
    audit,
    storage,
    clock,
    fill: () => fill.now(),
  };
  const alarms = createAlarms(world, ALARM_SOURCES);
  const policy = deps.policy ?? DEFAULT_POLICY;
  const api: Api = {
    clusterName: deps.cluster,
    host: deps.host,
    controllers: deps.controllers,
    version: deps.version,
    view,
    store,
    storage,
    sessions,
    policy,
    audit,
    clock,
    random,
    logger,
    commit: budgetedCommit({
      commit: groupCommit(store),
      budget: new WriteBudget(clock, quotaBytes, deps.controllers.length),
      fill: () => fill.now(),
      refused: (reason) => refusedWrites.add({ reason }),
    }),
    requestLeases: new RequestLeases(store, clock),
    places: apiPlaces(deps.host),
    seal: deps.seal,
    forVoters: deps.forVoters,
    leadership,
    alarms,
  };

  observe(metrics, { version: deps.version, store, view, sessions, leadership, alarms, fill, clock });

  return {
    sessions,
    services: publicServices(api),
    leadership,
    trail,
    view,
    admission: admission(view, clock, (serial) => firstUses.note(serial)),
    lines,
    health: controllerHealth({ view, leadership, rounds, clock }),
    async run(signal) {
      let leading: Promise<void> = Promise.resolve();
      using _term = leadership.onChange((term) => {
        if (term === null) return;
        logger.info({ term: String(term.createRevision) }, 'this controller leads');
        const before = leading;
        leading = (async () => {
          // One term at a time: the former one's last step may still be ending.
          await before;
          if (term.signal.aborted) return;
          // A view that has not seen the store yet must not decide; the fence alone would let it try.
          await view.waitFor(term.createRevision, LEADER_VIEW_DEADLINE_MS);
          await lead(
            {
              cluster: deps.cluster,
              host: deps.host,
              store,
              view,
              sessions,
              storage,
              policy,
              audit,
              seal: deps.seal,
              bus: deps.bus ?? NO_BUS,
              clock,
              random,
              logger,
              metrics,
              rounds,
              alarms,
              fill: () => fill.now(),
            },
            leaderFor({ store, view, clock, random }, term, term.signal),
          );
        })().catch((error: unknown) => {
          logger.error({ err: error }, 'could not begin to lead; standing down');
          void leadership.resign();
        });
      });
      const { authorities } = deps;
      const takeOver =
        authorities === undefined ? null : takeOverAuthorities({ store, clock, logger }, authorities, signal);
      const loops = [view, leadership, trail, firstUses, fill].map((each) => each.run(signal));
      await Promise.all([...loops, takeOver]);
      await leading;
      lines[Symbol.dispose]();
    },
  };
}

/** A view that cannot catch up in this time has no usable store; another controller shall lead. */
const LEADER_VIEW_DEADLINE_MS = 10_000;
