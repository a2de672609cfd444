// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import type { BoundedLog } from '@busbar/core/bounded-log';
import type { Clock } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import type { Logger } from '@busbar/core/log';
import { type Metrics, noMetrics } from '@busbar/core/metrics';
import type { TlsFeed } from '@busbar/pki/tls/source';
import { DESCRIPTORS } from '@busbar/proto/files';
import { AgentServiceDefinition } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { type CallContext, createServer, ServerError, type ServiceImplementation } from 'nice-grpc';
import { HealthDefinition, HealthServiceImpl, HealthState } from 'nice-grpc-server-health';
import { ServerReflection, ServerReflectionService } from 'nice-grpc-server-reflection';
import type { AuditTrail } from '../audit/trail.ts';
import { type Limits, limitsOf } from '../bounds/limits.ts';
import { openRegistry } from '../bounds/registry.ts';
import { wireShapes } from '../bounds/scan-wire.ts';
import type { Admission } from '../certificate/admission.ts';
import { AGENT_LIMITS } from '../session/bounds.ts';
import type { SessionRegistry } from '../session/registry.ts';
import { serverCredentials } from '../tls/credentials.ts';
import { grpcArrival } from './arrival.ts';
import {
  agentHostOf,
  type PresentedCertificate,
  type Recognise,
  type Recognised,
  recognition,
} from './authenticate.ts';
import { peerText } from './base-call.ts';
import { CONNECTION_LIMITS, type ConnectionCounts, type ConnectionLimits, guardConnections } from './connections.ts';
import { endHttp2Connections } from './end-connections.ts';
import { type Entrance, entranceInterceptor } from './entrance-interceptor.ts';
import { newIntake } from './intake.ts';
import { listeningServer } from './listening-server.ts';
import { measuredPipeline } from './measured.ts';
import { ownNames } from './own-names.ts';
import { pipeline } from './pipeline.ts';
import { boundingRequests, type RequestBounds, requestTypeName } from './request-bounds.ts';
import { screenOf } from './screen.ts';
import type { MethodDefinition } from './service.ts';
import type { BoundService } from './services.ts';
import { encodingOnce } from './shared-messages.ts';
import { sideServices } from './side-services.ts';
import { ERROR_TRAILER, statusOf } from './status.ts';
import { untilEnded } from './until-ended.ts';

/**
 * The gRPC transport: TLS with client certificates, identities from their URI names, and the pipeline in
 * front of every handler. Agents reach only the agent service, clients only the others.
 */
export interface GrpcServer {
  listen(address: string): Promise<number>;
  connections(): ConnectionCounts;
  /** Ends running calls and stops listening. */
  close(): void;
}

/** Keepalive: a dropped link is noticed after 15 s; clients may ping as often as every 5 s (the default would be 5 min). */
const CHANNEL_OPTIONS = {
  // Bookkeeping of every call, for a service that is not offered.
  'grpc.enable_channelz': 0,
  'grpc.keepalive_time_ms': 10_000,
  'grpc.keepalive_timeout_ms': 5_000,
  'grpc.keepalive_permit_without_calls': 1,
  'grpc.http2.min_time_between_pings_ms': 5_000,
  'grpc.http2.min_ping_interval_without_data_ms': 5_000,
  // Calls of one connection at the same time; the default is 2^32. An agent has two dozen open, a client with all its
  // watches and consoles some hundred; one that leaks streams must not take the controller's memory.
  // For the same reason a stream's window stays HTTP/2's 64 KiB, also for imports (6 MB/s over a line of 10 ms): Node holds
  // back streams that nobody reads, never a connection, and with 1 MiB a thousand streams took 1.3 GB.
  'grpc.max_concurrent_streams': 1_000,
  // Who has nothing under way can connect again; the place is for others.
  'grpc.max_connection_idle_ms': 600_000,
  // Of services that say nothing of their requests, which are health and reflection: a name.
  'grpc.max_receive_message_length': 4 * 1024,
};

export function grpcServer(deps: {
  readonly cluster: string;
  /** Who may be meant by the name in a request, besides whom the certificate names. */
  readonly controllers?: readonly { readonly host: string; readonly address: string }[];
  readonly services: readonly BoundService[];
  readonly sessions: SessionRegistry;
  readonly trail: AuditTrail;
  readonly admission: Admission;
  readonly tls: TlsFeed;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly lines?: BoundedLog;
  /** Default: nothing is counted. */
  readonly metrics?: Metrics;
  readonly limits?: ConnectionLimits;
}): GrpcServer {
  const { clock, logger } = deps;
  const recognise = recognition(deps.cluster);
  const screen = screenOf({
    names: ownNames(deps.controllers ?? [], deps.tls),
    recognise,
    admission: deps.admission,
    asking: new Set([...deps.services.map(({ definition }) => definition.fullName), AgentServiceDefinition.fullName]),
  });
  const entrances = new Map<string, Entrance>();
  const interceptors = [entranceInterceptor(newIntake(clock), screen, entrances)];
  const options = { ...CHANNEL_OPTIONS, interceptors };
  // nice-grpc hands its options to grpc-js's Server, which also takes interceptors; only its type does not say so.
  const server = createServer(options as unknown as Parameters<typeof createServer>[0]);
  const { metrics = noMetrics } = deps;
  const recognised = (context: CallContext) => recognise(peerText(context.metadata));
  const gate = measuredPipeline(pipeline(deps), 'grpc', { metrics, clock });
  // Nobody gets here without a certificate, so nobody joins here.
  const services = deps.services.filter(({ methods }) =>
    Object.values(methods).every((method) => method.access !== 'join'),
  );

  const registry = openRegistry();
  const shapeOf = wireShapes();
  const boundsOf = (service: string, rpc: MethodDefinition, limits: Limits): RequestBounds => ({
    limits,
    shape: shapeOf(registry(requestTypeName(service, rpc.name))),
  });
  for (const { definition, methods } of services) {
    const bounds: Record<string, RequestBounds> = {};
    const implementation: Record<string, unknown> = {};
    for (const [key, method] of Object.entries(methods)) {
      const rpc = definition.methods[key];
      if (rpc === undefined) throw new Error(`${definition.fullName} has no method ${key}`);
      const bound = boundsOf(definition.fullName, rpc, limitsOf(method.schema, method.bytesMax));
      bounds[key] = bound;
      const admit = gate.admit(definition.fullName, rpc, method);
      entrances.set(`/${definition.fullName}/${rpc.name}`, {
        admit: (peer, address) => admit(recognise(peer).caller, grpcArrival(address)),
        bounds: bound,
      });
      if (rpc.requestStream || rpc.responseStream) {
        const run = gate.stream(definition.fullName, rpc, method);
        implementation[key] = (request: unknown, context: CallContext) =>
          translated(run(request, recognised(context).caller, context.signal, grpcArrival(context.peer)), context);
      } else {
        const run = gate.unary(definition.fullName, rpc, method);
        implementation[key] = async (request: unknown, context: CallContext) => {
          try {
            return await run(request, recognised(context).caller, context.signal, grpcArrival(context.peer));
          } catch (error) {
            throw toServerError(error, context);
          }
        };
      }
    }
    const bounded = boundingRequests(definition, (key) => bounds[key] as RequestBounds);
    server.add(encodingOnce(bounded) as never, implementation as never);
  }

  const agent: ServiceImplementation<typeof AgentServiceDefinition> = {
    session: (incoming, context) =>
      agentStream(context, { ...deps, recognise }, (host, signal) =>
        deps.sessions.session(host, addressOf(context.peer), incoming, signal),
      ),
    attach: (incoming, context) =>
      agentStream(context, { ...deps, recognise }, (host) => deps.sessions.attached(host, incoming)),
  };
  const { fullName } = AgentServiceDefinition;
  const agentBounds: Record<string, RequestBounds> = {};
  for (const [key, rpc] of Object.entries(AgentServiceDefinition.methods)) {
    const bounds = boundsOf(fullName, rpc, AGENT_LIMITS[key as keyof typeof AGENT_LIMITS]);
    agentBounds[key] = bounds;
    entrances.set(`/${fullName}/${rpc.name}`, { admit: (peer) => void agentOf(recognise(peer), deps), bounds });
  }
  const boundedAgent = boundingRequests(AgentServiceDefinition, (key) => agentBounds[key] as RequestBounds);
  server.add(boundedAgent, agent);

  const health = HealthState();
  const side = sideServices((context) => recognised(context).caller);
  const healthService = HealthServiceImpl(health);
  const reflection = ServerReflection(
    readFileSync(DESCRIPTORS),
    services.map((service) => service.definition.fullName),
  );
  const watch: typeof healthService.watch = (request, context) =>
    translated(side.placed(healthService.watch, request, context), context);
  const serverReflectionInfo: typeof reflection.serverReflectionInfo = (request, context) =>
    translated(side.placed(reflection.serverReflectionInfo, request, context), context);
  server.add(HealthDefinition, { ...healthService, watch });
  server.add(ServerReflectionService, { ...reflection, serverReflectionInfo });

  let connections = (): ConnectionCounts => ({ open: 0, unproven: 0, turnedAway: 0 });
  return {
    async listen(address) {
      const [port, listener] = await listeningServer(() => server.listen(address, serverCredentials(deps.tls)));
      const limits = deps.limits ?? CONNECTION_LIMITS;
      endHttp2Connections(listener, deps);
      connections = guardConnections(listener, { listener: 'grpc', clock, logger, limits });
      health.setStatus('healthy');
      return port;
    },
    connections: () => connections(),
    close: () => server.forceShutdown(),
  };
}

async function* translated<T>(stream: AsyncIterable<T>, context: CallContext): AsyncIterable<T> {
  try {
    yield* stream;
  } catch (error) {
    throw toServerError(error, context);
  }
}

function toServerError(error: unknown, context: CallContext): ServerError {
  const status = statusOf(error);
  context.trailer.set(ERROR_TRAILER, status.info);
  return new ServerError(status.code, status.message);
}

/** Without the port: "10.0.0.1:5000", "[::1]:5000" and, as Node writes it, "::1:5000". */
function addressOf(peer: string): string {
  return peer
    .slice(0, peer.lastIndexOf(':'))
    .replace(/^\[|\]$/g, '')
    .replace(/^::ffff:/, '');
}

/**
 * A stream of an agent: its certificate counts when it begins, and is not revoked while it lasts. Time does not end it (ADR
 * 0048): a lease hangs on it, and neither a wall clock nor a renewal that fails may end the leases of a plant.
 */
async function* agentStream<T>(
  context: CallContext,
  deps: { readonly cluster: string; readonly admission: Admission; readonly recognise: Recognise },
  open: (host: string, signal: AbortSignal) => AsyncIterable<T>,
): AsyncIterable<T> {
  try {
    const { host, certificate } = agentOf(deps.recognise(peerText(context.metadata)), deps);
    yield* untilEnded(
      (told) => deps.admission.onRevoked(certificate, told),
      context.signal,
      (signal) => open(host, signal),
    );
  } catch (error) {
    throw toServerError(error, context);
  }
}

/** The host whose agent calls, or the refusal. */
function agentOf(
  { certificate }: Recognised,
  deps: { readonly cluster: string; readonly admission: Admission },
): { readonly host: string; readonly certificate: PresentedCertificate } {
  const host = agentHostOf(certificate, deps.cluster);
  if (certificate === null || host === null) {
    throw new BusbarError({
      kind: 'forbidden',
      reason: 'HOST_CERTIFICATE_REQUIRED',
      message: 'this service is for the agents of hosts; the client certificate is not one of a host of this cluster',
    });
  }
  deps.admission.checkAgent(certificate);
  return { host, certificate };
}
