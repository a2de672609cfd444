// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import type { Logger } from '@busbar/core/log';
import { StoreRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import type { Leader } from '../leader/leader.ts';
import { putRecord, recordKey } from '../records/kinds.ts';
import type { SessionRegistry } from '../session/registry.ts';
import type { ClusterStore, StoreHistory } from '../store/cluster-store.ts';
import { absent, unchanged } from '../view/table.ts';
import type { ClusterView } from '../view/view.ts';
import {
  behindMessage,
  HISTORY_ID,
  type HostWord,
  historyRecord,
  historySigns,
  logLead,
  reportSigns,
} from './behind.ts';

/**
 * Reconciler of the record `store/history`, and the leader's brake: until the store has been looked at in this term, and
 * while it is known to have gone back in time, nothing starts. What shows it (behind.ts) is recorded at the first
 * sight, so that it stays true when the host that showed it is silent again; only adoption clears it.
 *
 * Races: the write is fenced and compares the record, so of two leaders one writes. A leader that was deposed may see signs
 * that are none (its view stands still): it cannot record them.
 */

/** A restored store that nothing else shows must be no further back than this: then it is no loss of records either. */
const MARK_EVERY_MS = 10_000;

export class StoreGuard {
  readonly #deps: GuardDeps;
  #history: StoreHistory | null = null;
  #held = 'the leader has not yet looked at the history of the cluster store';
  #markedMs = Number.NEGATIVE_INFINITY;

  constructor(deps: GuardDeps) {
    this.#deps = deps;
  }

  /** Why nothing may start now; empty when VMs may. */
  get held(): string {
    return this.#held;
  }

  /** What agents are told now: terms and revisions of this store, above all that were told before it was restored. */
  position(): { readonly term: bigint; readonly generation: bigint } {
    const { view, leader } = this.#deps;
    const offset = historyRecord(view)?.record.positionOffset ?? 0n;
    return { term: leader.term + offset, generation: view.revision + offset };
  }

  /** Throws when the store does not answer: then what was held stays held. */
  async look(): Promise<void> {
    const { view, store } = this.#deps;
    if (this.#history === null) {
      const history = nearer(await store.history(), await store.history());
      // A member that lags shows a former state; the next round asks again.
      if (history.revision < (historyRecord(view)?.modRevision ?? 0n)) return;
      this.#history = history;
    }
    if (this.#doubt() !== '') {
      this.#held = this.#doubt();
      await this.#record();
    }
    this.#held = behindMessage(view) || this.#doubt();
    if (this.#held === '') this.#mark();
  }

  /** Why what is recorded does not settle whether the store went back in time; empty when it does. */
  #doubt(): string {
    const entry = historyRecord(this.#deps.view);
    if (entry === undefined) return 'the history of the cluster store is not recorded yet';
    if (entry.record.behindSince !== undefined) return '';
    return this.#signs().length === 0 ? '' : 'the cluster store seems to have gone back in time';
  }

  /** For adoption, which records it: from then on this history is the one. */
  async history(): Promise<StoreHistory> {
    this.#history = await this.#deps.store.history();
    return this.#history;
  }

  #signs(): readonly string[] {
    const { view, sessions } = this.#deps;
    const own = this.#history === null ? [] : historySigns(historyRecord(view)?.record, this.#history);
    return [...own, ...reportSigns(connectedWords(sessions), view, this.position())];
  }

  /** Makes the record, or notes in it that the store went back in time. */
  async #record(): Promise<void> {
    const { view, clock, leader, logger } = this.#deps;
    const history = this.#history;
    if (history === null) return;
    // Reports can only be newer than the view by what was written meanwhile.
    await view.fresh();
    const entry = historyRecord(view);
    const signs = this.#signs();
    if (entry !== undefined && (signs.length === 0 || entry.record.behindSince !== undefined)) return;
    const former = entry?.record ?? StoreRecord.fromPartial({ clusterId: history.clusterId });
    const next: StoreRecord =
      signs.length === 0
        ? { ...former, logLead: logLead(history) }
        : { ...former, behindSince: clock.wallTime(), signs: [...signs] };
    if (signs.length > 0) logger.error({ signs }, 'the cluster store went back in time: nothing starts until adopted');
    const compare = [entry === undefined ? absent(recordKey('store', HISTORY_ID)) : unchanged('store', entry)];
    const result = await leader.txn({ compare, writes: [putRecord('store', HISTORY_ID, next)] });
    await view.waitFor(result.revision);
  }

  #mark(): void {
    const { sessions, clock } = this.#deps;
    const nowMs = clock.nowMs();
    if (nowMs - this.#markedMs < MARK_EVERY_MS) return;
    this.#markedMs = nowMs;
    sessions.markStore(this.position().generation);
  }
}

interface GuardDeps {
  readonly view: ClusterView;
  readonly store: Pick<ClusterStore, 'history'>;
  readonly sessions: SessionRegistry;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly leader: Leader;
}

/** Of two reads, the one that entries came between less: what is not one read must not look like another history. */
function nearer(a: StoreHistory, b: StoreHistory): StoreHistory {
  return logLead(a) < logLead(b) ? a : b;
}

/** What hosts say that are there now. One that left has said it while it was there. */
export function connectedWords(sessions: SessionRegistry): readonly HostWord[] {
  return sessions.hosts().flatMap((host) => {
    const seen = sessions.observed(host);
    return seen?.connected && seen.report !== null ? [{ host, report: seen.report }] : [];
  });
}
