// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import { type Metrics, timed } from '@busbar/core/metrics';
import { Status } from 'nice-grpc-common';
import { CONTROLLER_METRICS as M } from '../telemetry/metrics.ts';
import type { Pipeline } from './pipeline.ts';
import type { MethodDefinition } from './service.ts';
import { statusOf } from './status.ts';

/** As the pipeline's own record has it: whoever stops listening has ended the stream. */
const HUNG_UP = new BusbarError({ kind: 'cancelled', reason: 'CALLER_GONE', message: 'the caller ended the stream' });

/** The pipeline of one transport, counted and timed; refused calls too, since whoever is refused a thousand times is news. */
export function measuredPipeline(
  gate: Pipeline,
  transport: string,
  { metrics, clock }: { readonly metrics: Metrics; readonly clock: Clock },
): Pipeline {
  const requests = metrics.counter(M.apiRequests);
  const seconds = metrics.histogram(M.apiSeconds);
  const streams = new Map<string, number>();
  let inFlight = 0;
  metrics.read(M.apiInFlight, () => [{ labels: { transport }, value: inFlight }]);
  metrics.read(M.apiStreams, () => [...streams].map(([method, value]) => ({ labels: { method, transport }, value })));
  const count = (method: string, error: unknown) => {
    const code = error === null ? Status.OK : statusOf(error).code;
    requests.add({ method, transport, code: Status[code] });
  };

  return {
    admit: (service, definition, handler) => {
      const method = nameOf(service, definition);
      const admit = gate.admit(service, definition, handler);
      return (caller, arrival) => {
        try {
          admit(caller, arrival);
        } catch (error) {
          count(method, error);
          throw error;
        }
      };
    },
    unary: (service, definition, handler) => {
      const method = nameOf(service, definition);
      const handle = gate.unary(service, definition, handler);
      return (request, caller, signal, arrival) => {
        inFlight++;
        return timed(
          clock,
          () => handle(request, caller, signal, arrival),
          (took, error) => {
            inFlight--;
            seconds.observe({ method, transport }, took);
            count(method, error);
          },
        );
      };
    },
    stream: (service, definition, handler) => {
      const method = nameOf(service, definition);
      const handle = gate.stream(service, definition, handler);
      return async function* (request, caller, signal, arrival) {
        streams.set(method, (streams.get(method) ?? 0) + 1);
        let outcome: unknown = HUNG_UP;
        try {
          yield* handle(request, caller, signal, arrival);
          outcome = null;
        } catch (error) {
          outcome = error;
          throw error;
        } finally {
          streams.set(method, (streams.get(method) ?? 1) - 1);
          count(method, outcome);
        }
      };
    },
  };
}

function nameOf(service: string, definition: MethodDefinition): string {
  return `${service}/${definition.name}`;
}
