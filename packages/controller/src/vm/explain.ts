// SPDX-License-Identifier: Apache-2.0
import type { VmRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import {
  type ExplainPlacementResponse,
  type PlacementAdvice,
  PlacementAdviceKind,
} from '@busbar/proto/gen/busbar/v1/vm';
import { type Advice, adviceFor } from '@busbar/scheduler/advice/advice';
import { createPlanner } from '@busbar/scheduler/planner';
import type { Api } from '../api/call.ts';
import { behindMessage } from '../cluster/behind.ts';
import type { Entry } from '../view/table.ts';
import { presentPlacement } from './placed.ts';
import { presentVerdict, snapshotOf } from './placement.ts';
import { requestOf } from './request.ts';

/** Every host's verdict on a VM, as if it were on none, and what would make room when no host fits. */
export function explainPlacement(api: Api, entry: Entry<VmRecord>): ExplainPlacementResponse {
  const planner = createPlanner(snapshotOf(api.view, api.policy));
  const vm = requestOf(entry.record, api.view);
  const decided = planner.decide(vm);
  return {
    preview: {
      host: decided.ok ? decided.value.host : '',
      verdicts: planner.explain(vm).map(presentVerdict),
      placement: decided.ok ? presentPlacement(decided.value) : undefined,
    },
    current: api.view.tables['vm-status'].get(entry.id)?.record.placement,
    held: behindMessage(api.view),
    advice: decided.ok ? [] : adviceFor(planner, vm).map(presentAdvice),
  };
}

function presentAdvice(advice: Advice): PlacementAdvice {
  const common = {
    vm: '',
    host: '',
    toHost: '',
    vcpus: 0,
    memoryBytes: 0n,
    placement: presentPlacement(advice.placement),
  };
  switch (advice.kind) {
    case 'move': {
      const { vm, from, to } = advice;
      return { ...common, kind: PlacementAdviceKind.MOVE, vm: vm.name, host: from, toHost: to.host };
    }
    case 'stop':
      return { ...common, kind: PlacementAdviceKind.STOP, vm: advice.vm.name, host: advice.host };
    case 'resize': {
      const { vcpus, memoryMib } = advice;
      return { ...common, kind: PlacementAdviceKind.RESIZE, vcpus, memoryBytes: BigInt(memoryMib) * 1024n ** 2n };
    }
  }
}
