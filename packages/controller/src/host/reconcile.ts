// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import type { Logger } from '@busbar/core/log';
import type { HostStatusRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { HostState } from '@busbar/proto/gen/busbar/v1/host';
import { isTransient, type Leader } from '../leader/leader.ts';
import { nameKey, putRecord, recordKey } from '../records/kinds.ts';
import type { SessionRegistry } from '../session/registry.ts';
import type { Write } from '../store/cluster-store.ts';
import { absent, unchanged } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';
import { planHost } from './plan.ts';
import { NEW_HOST_SPEC } from './spec.ts';

/**
 * A host chooses what it says and when, and each record holds its whole inventory: one that changes its mind all the time
 * must not fill etcd. What leaves the state as it is, and what makes the host ready, is each written at most this often;
 * bad news always at once.
 */
const WRITE_EVERY_MS = 10_000;

/** Reconciler of all hosts. Makes HostRecords of hosts that it hears for the first time, and owns every HostStatusRecord. */
export class HostReconciler {
  readonly #view: ClusterView;
  readonly #sessions: SessionRegistry;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #leader: Leader;
  readonly #leaderSinceMs: number;
  /** When each host's record was last written, by what the write was for. A new leader begins anew. */
  readonly #written = new Map<string, number>();

  constructor(deps: {
    readonly view: ClusterView;
    readonly sessions: SessionRegistry;
    readonly clock: Clock;
    readonly logger: Logger;
    readonly leader: Leader;
  }) {
    this.#view = deps.view;
    this.#sessions = deps.sessions;
    this.#clock = deps.clock;
    this.#log = deps.logger;
    this.#leader = deps.leader;
    this.#leaderSinceMs = deps.clock.nowMs();
  }

  async reconcile(): Promise<void> {
    const known = new Set([...this.#view.tables.host.ids(), ...this.#sessions.hosts()]);
    for (const id of [...known].sort()) {
      try {
        await this.#one(id);
      } catch (error) {
        // One host's strange record must not keep the leader from the others, nor from the VMs.
        if (isTransient(error)) throw error;
        this.#log.error({ host: id, err: error }, 'host cannot be recorded');
      }
    }
  }

  async #one(id: string): Promise<void> {
    const host = this.#view.tables.host.get(id);
    const status = this.#view.tables['host-status'].get(id);
    const now = { nowMs: this.#clock.nowMs(), leaderSinceMs: this.#leaderSinceMs };
    const next = planHost(status?.record, this.#sessions.observed(id), now);
    const budget = next === null ? null : budgetOf(id, status?.record, next);
    const tooSoon =
      budget !== null && now.nowMs - (this.#written.get(budget) ?? Number.NEGATIVE_INFINITY) < WRITE_EVERY_MS;
    const put = tooSoon ? null : next;
    if (put === null && host !== undefined) return;
    const compare = [status === undefined ? absent(recordKey('host-status', id)) : unchanged('host-status', status)];
    const writes: Write[] = put === null ? [] : [putRecord('host-status', id, put)];
    if (host === undefined) {
      const wallTime = this.#clock.wallTime();
      compare.push(absent(recordKey('host', id)));
      writes.push(
        putRecord('host', id, {
          meta: { id, name: id, labels: {}, createTime: wallTime, updateTime: wallTime, deleting: false },
          spec: NEW_HOST_SPEC,
        }),
        { kind: 'put', key: nameKey('host', id), value: id },
      );
    }
    const result = await this.#leader.txn({ compare, writes });
    if (!result.succeeded) return;
    if (put !== null && budget !== null) this.#written.set(budget, now.nowMs);
    if (put !== null && put.state !== status?.record.state) {
      this.#log.info(
        { host: id, from: status?.record.state ?? 'new', to: put.state, reason: put.message },
        'host changes state',
      );
    }
    await this.#view.waitFor(result.revision);
  }
}

/** What a write counts against; null for bad news, which waits for nothing and is followed by good news before it comes again. */
function budgetOf(id: string, status: HostStatusRecord | undefined, next: HostStatusRecord): string | null {
  if (next.state === status?.state) return `${id}/same`;
  return next.state === HostState.READY ? `${id}/ready` : null;
}
