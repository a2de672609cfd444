// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import { errorChain } from '@busbar/core/errors';
import type { Logger } from '@busbar/core/log';
import type { Random } from '@busbar/core/random';
import type { Seal } from '@busbar/pki/seal';
import type { SealedAuthorities } from '@busbar/pki/sealed-authorities';
import { DEFAULT_POLICY, type PlacementPolicy } from '@busbar/scheduler/model';
import type { StorageDriver } from '@busbar/storage/driver';
import type { Api } from './api/call.ts';
import { RequestLeases } from './api/request-leases.ts';
import { type BoundService, publicServices } from './api/services.ts';
import { type Admission, admission } from './certificate/admission.ts';
import { takeOverAuthorities } from './certificate/take-over.ts';
import { leaderFor } from './leader/leader.ts';
import { lead } from './leader/term.ts';
import { Leadership } from './leadership/leadership.ts';
import { type LeaseTimings, SessionRegistry } from './session/registry.ts';
import type { ClusterStore } from './store/cluster-store.ts';
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
  readonly forVoters: Api['forVoters'];
  /** What `busbar cluster init` made, on a controller that was given its file. */
  readonly authorities?: SealedAuthorities;
  readonly policy?: PlacementPolicy;
  readonly leaseTimings?: LeaseTimings;
}

export interface Controller {
  readonly sessions: SessionRegistry;
  readonly services: readonly BoundService[];
  readonly leadership: Leadership;
  readonly view: ClusterView;
  /** For the transports. */
  readonly admission: Admission;
  /** Runs until the signal aborts, then resigns and returns. */
  run(signal: AbortSignal): Promise<void>;
}

export function createController(deps: ControllerDeps): Controller {
  const { store, clock, random, logger } = deps;
  const view = new ClusterView({ store, clock, logger });
  const sessions = new SessionRegistry({
    controller: deps.host,
    controllers: deps.controllers.map((member) => member.host),
    ...(deps.leaseTimings === undefined ? {} : { timings: deps.leaseTimings }),
    clock,
    random,
    logger,
  });
  const leadership = new Leadership({ store, clock, random, log: logger, host: deps.host, address: deps.address });
  const policy = deps.policy ?? DEFAULT_POLICY;
  const api: Api = {
    clusterName: deps.cluster,
    host: deps.host,
    controllers: deps.controllers,
    version: deps.version,
    view,
    store,
    storage: deps.storage,
    sessions,
    policy,
    clock,
    random,
    logger,
    requestLeases: new RequestLeases(store, clock),
    seal: deps.seal,
    forVoters: deps.forVoters,
    leadership,
  };

  return {
    sessions,
    services: publicServices(api),
    leadership,
    view,
    admission: admission(view, clock),
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
            { store, view, sessions, storage: deps.storage, policy, seal: deps.seal, clock, logger },
            leaderFor(store, term, term.signal),
          );
        })().catch((error: unknown) => {
          logger.error({ err: errorChain(error) }, 'could not begin to lead; standing down');
          void leadership.resign();
        });
      });
      const { authorities } = deps;
      const takeOver =
        authorities === undefined ? null : takeOverAuthorities({ store, clock, logger }, authorities, signal);
      await Promise.all([view.run(signal), leadership.run(signal), takeOver]);
      await leading;
    },
  };
}

/** A view that cannot catch up in this time has no usable store; another controller shall lead. */
const LEADER_VIEW_DEADLINE_MS = 10_000;
