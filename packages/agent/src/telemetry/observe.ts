// SPDX-License-Identifier: Apache-2.0
import { type Metrics, one } from '@busbar/core/metrics';
import type { DomainReport } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { AGENT_METRICS as M } from './metrics.ts';

/** What a scrape reads from an agent as it is at that moment. */
export function observe(
  metrics: Metrics,
  agent: {
    readonly version: string;
    readonly controllers: number;
    readonly acknowledging: () => number;
    readonly leaseRemainingMs: () => number;
    readonly domains: () => readonly DomainReport[];
  },
): void {
  metrics.read(M.info, () => [{ labels: { version: agent.version }, value: 1 }]);
  metrics.read(M.leaseRemaining, () => one(agent.leaseRemainingMs() / 1000));
  metrics.read(M.controllers, () => one(agent.controllers));
  metrics.read(M.acknowledging, () => one(agent.acknowledging()));
  metrics.read(M.domains, () => {
    const found = new Map<string, number>();
    for (const { state } of agent.domains()) {
      const word = state.replace('DOMAIN_STATE_', '').toLowerCase();
      found.set(word, (found.get(word) ?? 0) + 1);
    }
    return [...found].map(([state, value]) => ({ labels: { state }, value }));
  });
}
