// SPDX-License-Identifier: Apache-2.0
import type { Metadata, ServerInterceptingCallInterface } from '@grpc/grpc-js';
import type { Peer } from './authenticate.ts';

/**
 * nice-grpc's call context does not show the TLS peer, grpc-js's interceptor does: what is of the verified client
 * certificate goes into the metadata, in place of whatever the caller may have sent under the key.
 */
export const PEER_KEY = 'busbar-peer-bin';

export function showPeer(metadata: Metadata, call: ServerInterceptingCallInterface): string {
  const peer = peerOf(call);
  metadata.remove(PEER_KEY);
  metadata.set(PEER_KEY, peer.bytes);
  return peer.text;
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
const peers = new WeakMap<object, ShownPeer>();

interface ShownPeer {
  readonly text: string;
  readonly bytes: Buffer;
}

function peerOf(call: ServerInterceptingCallInterface): ShownPeer {
  const session = sessionOf(call);
  const known = session === null ? undefined : peers.get(session);
  if (known !== undefined) return known;
  const { serialNumber, subjectaltname, valid_from, valid_to } = call.getAuthContext().sslPeerCertificate ?? {};
  const text = JSON.stringify({ serialNumber, subjectaltname, valid_from, valid_to } as Peer);
  const peer = { text, bytes: Buffer.from(text) };
  if (session !== null) peers.set(session, peer);
  return peer;
}

/** Without it the certificate is asked for each time. */
function sessionOf(call: object): object | null {
  return baseOf(call).stream?.session ?? null;
}

/**
 * How long a message of this call may be. grpc-js has one limit for all methods; each call has a decoder with a copy of it, which
 * refuses a message when it has read its length, before the message itself; and another copy for what is compressed.
 */
export function limitMessages(call: object, bytesMax: number): void {
  const base = baseOf(call);
  base.maxReceiveMessageSize = bytesMax;
  const { decoder } = base;
  decoder.maxReadMessageLength = bytesMax;
  const write = decoder.write.bind(decoder);
  decoder.write = (data) => {
    try {
      return write(data);
    } catch {
      // Its message becomes the status.
      throw new Error(`REQUEST_TOO_LARGE: a message is larger than ${bytesMax} bytes, the most that this call takes`);
    }
  };
}

/** grpc-js's own call below the interceptors, which does not show what is in it. */
interface BaseCall {
  readonly nextCall?: BaseCall;
  readonly stream?: { readonly session?: object | null };
  readonly decoder: { maxReadMessageLength: number; write(data: Uint8Array): unknown };
  maxReceiveMessageSize: number;
}

function baseOf(call: object): BaseCall {
  let inner = call as BaseCall;
  while (inner.nextCall !== undefined) inner = inner.nextCall;
  return inner;
}
