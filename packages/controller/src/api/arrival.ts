// SPDX-License-Identifier: Apache-2.0

/** How a call came in, as its transport saw it. What the caller says of itself has no part in it. */
export interface Arrival {
  /** "internal": this controller asks itself, for a certificate of its own. */
  readonly transport: 'grpc' | 'https' | 'internal';
  /** IP address of the other end, in its usual spelling; '' inside the controller. */
  readonly address: string;
  /** The same for all calls that share a connection; '' where that is not known. */
  readonly connection: string;
}

export const INSIDE: Arrival = { transport: 'internal', address: '', connection: '' };

/** An IPv6 address of 45 characters and the name of an interface (fe80::1%eth0), which has 15 at most. */
export const ADDRESS_MAX = 61;

/**
 * A socket that listens on "::" shows IPv4 peers as ::ffff:10.0.0.1. One machine has one spelling, or records of it could not
 * be found and its allowance would be doubled.
 */
export function plainAddress(remote: string | undefined): string {
  return (remote ?? '').replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, '').slice(0, ADDRESS_MAX);
}

/** Of a peer as grpc-js tells it: "10.0.0.1:4711", "::1:4711", or "unknown" once the connection is gone. */
export function grpcArrival(peer: string): Arrival {
  const end = peer.lastIndexOf(':');
  return { transport: 'grpc', address: end < 0 ? '' : plainAddress(peer.slice(0, end)), connection: peer };
}

export function httpsArrival(socket: { readonly remoteAddress?: string | undefined }): Arrival {
  return { transport: 'https', address: plainAddress(socket.remoteAddress), connection: '' };
}
