// SPDX-License-Identifier: Apache-2.0
import type { DescMessage } from '@bufbuild/protobuf';
import type { AnyMethod, Pipeline } from '../api/pipeline.ts';
import type { CallGuard, MethodDefinition } from '../api/service.ts';
import type { BoundService } from '../api/services.ts';
import { type Limits, limitsOf } from '../bounds/limits.ts';
import type { Registry } from '../bounds/registry.ts';

interface Common {
  readonly admit: ReturnType<Pipeline['admit']>;
  readonly guard: CallGuard | undefined;
  readonly limits: Limits;
  readonly rpc: MethodDefinition;
  readonly requestType: DescMessage;
  readonly responseType: DescMessage;
}

/** What a path leads to. A handler is only to be had behind the pipeline. */
export type Route =
  | (Common & { readonly kind: 'unary'; readonly run: ReturnType<Pipeline['unary']> })
  | (Common & {
      readonly kind: 'events';
      readonly run: ReturnType<Pipeline['stream']>;
      /** It is a watch: the request says after which revision. */
      readonly resumes: boolean;
    })
  /** A stream from the caller, which HTTP/1.1 cannot carry. */
  | { readonly kind: 'grpc-only' };

export function routesOf(
  services: readonly BoundService[],
  registry: Registry,
  gate: Pipeline,
): ReadonlyMap<string, Route> {
  const routes = new Map<string, Route>();
  for (const { definition, methods } of services) {
    for (const [key, rpc] of Object.entries(definition.methods)) {
      const method = methods[key];
      if (method === undefined) throw new Error(`${definition.fullName} does not serve ${key}`);
      routes.set(`/${definition.fullName}/${rpc.name}`, route(definition.fullName, rpc, method));
    }
  }
  return routes;

  function route(service: string, rpc: MethodDefinition, method: AnyMethod): Route {
    if (rpc.requestStream) return { kind: 'grpc-only' };
    // buf's lint makes these names a rule.
    const named = (suffix: string) => registry(`${service.replace(/\.[^.]*$/, '')}.${rpc.name}${suffix}`);
    const common = {
      admit: gate.admit(service, rpc, method),
      guard: method.guard,
      limits: limitsOf(method.schema, method.bytesMax),
      rpc,
      requestType: named('Request'),
      responseType: named('Response'),
    };
    if (!rpc.responseStream) return { ...common, kind: 'unary', run: gate.unary(service, rpc, method) };
    const resumes = common.requestType.fields.some(({ name }) => name === 'revision');
    return { ...common, kind: 'events', run: gate.stream(service, rpc, method), resumes };
  }
}
