// SPDX-License-Identifier: Apache-2.0
import { type Clock, sleep, withDeadline } from '@busbar/core/clock/clock';
import type { Logger } from '@busbar/core/log';
import { type Metrics, noMetrics } from '@busbar/core/metrics';
import { Pulse } from '@busbar/core/pulse';
import type { Random } from '@busbar/core/random';
import type { Seal } from '@busbar/pki/seal';
import { DesiredState } from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { PlacementPolicy } from '@busbar/scheduler/model';
import type { StorageDriver } from '@busbar/storage/driver';
import type { Alarms } from '../alarm/alarm.ts';
import { AlarmReconciler } from '../alarm/reconcile.ts';
import type { AuditRoom } from '../audit/room.ts';
import { compactRegularly } from '../budget/compaction.ts';
import { type Fill, UNKNOWN_FILL } from '../budget/fill.ts';
import { ADOPT_SAGA, adoptSaga } from '../cluster/adopt/saga.ts';
import { StoreGuard } from '../cluster/guard.ts';
import type { EventBus } from '../event/bus.ts';
import { putEvent } from '../event/outbox.ts';
import { publishEvents } from '../event/publish.ts';
import { HostReconciler } from '../host/reconcile.ts';
import { DELETE_IMAGE } from '../image/sagas.ts';
import { SagaRunner } from '../operation/runner.ts';
import type { Saga } from '../operation/saga.ts';
import type { SessionRegistry } from '../session/registry.ts';
import type { ClusterStore } from '../store/cluster-store.ts';
import { type ClusterView, PULSE_KEY } from '../view/view.ts';
import { VmAccess } from '../vm/access.ts';
import { type CloudInitOpened, cloudInitReader } from '../vm/cloud-init.ts';
import { desiredFor } from '../vm/desired.ts';
import { VmReconciler } from '../vm/reconcile.ts';
import { CREATE_VM, DELETE_VM, RESTART_VM, START_VM, STOP_VM } from '../vm/sagas.ts';
import { CREATE_VOLUME, DELETE_VOLUME, RESIZE_VOLUME } from '../volume/sagas.ts';
import { CleanUp } from './clean-up.ts';
import { leaderChanged, leaderEventId } from './events.ts';
import type { Leader } from './leader.ts';
import { newPace } from './pace.ts';
import { roundMeter } from './rounds.ts';

/**
 * Everything that the controller does alone, and only the leader: this list is the table of contents.
 * Each round looks at the world as it is now; what woke it does not matter, and what failed is tried in the next.
 */
export const SAGAS: readonly Saga[] = [
  CREATE_VM,
  DELETE_VM,
  START_VM,
  STOP_VM,
  RESTART_VM,
  CREATE_VOLUME,
  RESIZE_VOLUME,
  DELETE_VOLUME,
  DELETE_IMAGE,
];

/** A round at least this often, for what only time changes: pauses, silent hosts, retries. */
const TICK_MS = 500;
/** Leftovers in pool and store do no harm meanwhile. */
const CLEAN_UP_EVERY_MS = 60_000;
/** What a controller grants the work of its ended term before it begins another. */
const TERM_END_MS = 5_000;

export interface TermDeps {
  readonly cluster: string;
  readonly host: string;
  readonly store: ClusterStore;
  readonly view: ClusterView;
  readonly sessions: SessionRegistry;
  readonly storage: StorageDriver;
  readonly policy: PlacementPolicy;
  readonly audit: Pick<AuditRoom, 'expired'>;
  readonly bus: EventBus;
  readonly seal: Seal;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly alarms: Alarms;
  /** Default: unknown. */
  readonly fill?: () => Fill;
  /** Default: nothing is counted. */
  readonly metrics?: Metrics;
  /** Beats with each round. */
  readonly rounds?: Pulse;
}

/** Leads until the leader's signal aborts. */
export async function lead(deps: TermDeps, leader: Leader): Promise<void> {
  const { view, sessions, clock, logger, metrics = noMetrics, rounds = new Pulse(clock) } = deps;
  const meter = roundMeter(metrics, clock);
  const guard = new StoreGuard({ ...deps, leader });
  const adoption = adoptSaga({ ...deps, leader, history: () => guard.history() });
  const runner = new SagaRunner({ ...deps, sagas: [...SAGAS, adoption], leader });
  const hosts = new HostReconciler({ ...deps, leader });
  const held = () => guard.held;
  const vms = new VmReconciler({ ...deps, leader, held });
  // While the store is behind, what it says is under way may have ended long ago.
  const mayRun = (saga: string) => saga === ADOPT_SAGA || guard.held === '';
  const alarms = new AlarmReconciler({ ...deps, leader });
  const pace = newPace();
  let announced = false;
  const cloudInitOf = cloudInitReader(deps.seal, logger);
  let bell: { pending: boolean; ring: () => void } = { pending: true, ring: () => {} };
  const wake = () => {
    bell.pending = true;
    bell.ring();
  };
  const access = new VmAccess(deps, leader.signal, wake);
  using _events = publishEvents(deps);
  using _changes = view.changes.onFlush(wake);
  using _reports = sessions.onChange(wake);
  leader.signal.addEventListener('abort', wake, { once: true });
  const { fill = () => UNKNOWN_FILL } = deps;
  const cleaning = Promise.all([
    cleanUpRegularly(deps, leader, held),
    compactRegularly({ ...deps, fill, leader, pulseKey: PULSE_KEY }),
  ]);
  try {
    for (;;) {
      // The change that woke it is some caller's, whose answer goes out first.
      await clock.turn();
      if (leader.signal.aborted) break;
      bell.pending = false;
      const beganMs = clock.nowMs();
      rounds.beat();
      try {
        if (!announced) announced = await announce(deps, leader);
        await meter.time('all', async () => {
          await meter.time('store', () => guard.look());
          await meter.time('hosts', () => hosts.reconcile());
          await meter.time('vms', () => vms.reconcile());
          await meter.time('publish', () => publish(deps, guard, cloudInitOf, access));
          if (guard.held === '') access.takeBack();
          await meter.time('sagas', () => runner.tick(wake, mayRun));
          await meter.time('alarms', () => alarms.reconcile());
        });
      } catch (error) {
        if (!leader.signal.aborted) {
          meter.failed();
          logger.warn({ err: error }, 'leader round failed; the next one tries again');
        }
      }
      const restMs = pace.rest(beganMs, clock.nowMs());
      if (restMs > 0) await sleep(clock, restMs, leader.signal).catch(() => {});
      if (!bell.pending) {
        await new Promise<void>((resolve) => {
          const timer = clock.timer(TICK_MS, resolve);
          bell = {
            pending: false,
            ring: () => {
              timer[Symbol.dispose]();
              resolve();
            },
          };
        });
      }
    }
  } finally {
    rounds.rest();
    sessions.clearDesired();
    // So that this controller's next term does not repeat what is still running. What hangs in the pool is not worth a
    // cluster without a leader: it is idempotent, and its writes are fenced.
    const last = () => Promise.all([cleaning, runner.settled()]);
    await withDeadline(clock, TERM_END_MS, "the term's last work", last).catch((error: unknown) => {
      logger.warn({ err: error }, 'leadership ended while work on the pool is still under way');
    });
  }
}

async function announce(deps: TermDeps, leader: Leader): Promise<boolean> {
  const event = leaderChanged(deps.cluster, deps.host, leader.term);
  const write = putEvent(deps, event, leaderEventId(leader.term));
  return (await leader.txn({ compare: [], writes: [write] })).succeeded;
}

/** Tells each connected host what it shall run, when that changed or the host has not been told in this term. */
function publish(deps: TermDeps, guard: StoreGuard, cloudInitOf: CloudInitOpened, access: VmAccess): void {
  const { view, sessions, storage } = deps;
  const position = guard.position();
  for (const host of sessions.hosts()) {
    const seen = sessions.observed(host);
    const desired = desiredFor(host, position, view, seen, storage, cloudInitOf, access.of, guard.held);
    const former = sessions.published(host);
    if (former !== null && contentOf(former) === contentOf(desired)) continue;
    sessions.publish(host, desired);
  }
}

function contentOf(desired: DesiredState): string {
  return JSON.stringify(DesiredState.toJSON({ ...desired, position: undefined }));
}

/** Not while the store is behind: what it does not know may be in use. */
async function cleanUpRegularly(deps: TermDeps, leader: Leader, held: () => string): Promise<void> {
  const cleanUp = new CleanUp(deps, leader);
  while (!leader.signal.aborted) {
    await sleep(deps.clock, CLEAN_UP_EVERY_MS, leader.signal).catch(() => {});
    if (leader.signal.aborted) return;
    if (held() !== '') continue;
    await cleanUp.round().catch((error: unknown) => {
      deps.logger.warn({ err: error }, 'clean-up failed; tried again in a minute');
    });
  }
}
