// SPDX-License-Identifier: Apache-2.0
import type {
  AttachRequest,
  AttachResponse,
  SessionRequest,
  SessionResponse,
} from '@busbar/proto/gen/busbar/agent/v1/agent';

/** Opens streams of sessions' messages. */
export interface SessionDialer {
  /** Opens a session stream. `outgoing` is read until it ends or the link breaks; the returned iterable ends or throws then. */
  session(
    address: string,
    outgoing: AsyncIterable<SessionRequest>,
    signal: AbortSignal,
  ): AsyncIterable<SessionResponse>;
}

/** How the agent reaches one controller; gRPC in production, memory in simulation. */
export interface ControllerDialer extends SessionDialer {
  /** Opens a byte stream for a ticket. */
  attach(address: string, outgoing: AsyncIterable<AttachRequest>, signal: AbortSignal): AsyncIterable<AttachResponse>;
  close(): Promise<void>;
}
