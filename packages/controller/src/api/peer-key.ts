// SPDX-License-Identifier: Apache-2.0
import type { Metadata, ServerInterceptingCallInterface } from '@grpc/grpc-js';
import type { Peer } from './authenticate.ts';

/**
 * nice-grpc's call context does not show the TLS peer, grpc-js's interceptor does: what is of the verified client
 * certificate goes into the metadata, in place of whatever the caller may have sent under the key.
 */
export const PEER_KEY = 'busbar-peer-bin';

/** Returns what `peerText` will. */
export function showPeer(metadata: Metadata, call: ServerInterceptingCallInterface): string {
  const peer = peerOf(call);
  metadata.remove(PEER_KEY);
  metadata.set(PEER_KEY, peer);
  return peer.toString();
}

/** What `showPeer` put there, as the text of a `Peer`. */
export function peerText(metadata: { get(key: string): string | Uint8Array | undefined }): string | null {
  const bytes = metadata.get(PEER_KEY);
  return bytes === undefined || typeof bytes === 'string' ? null : Buffer.from(bytes).toString();
}

/**
 * A connection proves its certificate once, in the handshake (HTTP/2 forbids renegotiation, RFC 9113 9.2.1), and asking
 * Node for it costs as much as a tenth of a call.
 */
const peers = new WeakMap<object, Buffer>();

function peerOf(call: ServerInterceptingCallInterface): Buffer {
  const session = sessionOf(call);
  const known = session === null ? undefined : peers.get(session);
  if (known !== undefined) return known;
  const { serialNumber, subjectaltname, valid_from, valid_to } = call.getAuthContext().sslPeerCertificate ?? {};
  const peer = Buffer.from(JSON.stringify({ serialNumber, subjectaltname, valid_from, valid_to } as Peer));
  if (session !== null) peers.set(session, peer);
  return peer;
}

/** Of grpc-js's own call below the interceptors, which does not show it; without it the certificate is asked for each time. */
function sessionOf(call: object): object | null {
  let inner = call as { readonly nextCall?: object; readonly stream?: { readonly session?: object | null } };
  while (inner.nextCall !== undefined) inner = inner.nextCall;
  return inner.stream?.session ?? null;
}
