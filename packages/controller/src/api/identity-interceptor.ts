// SPDX-License-Identifier: Apache-2.0
import { ServerInterceptingCall, type ServerInterceptor } from '@grpc/grpc-js';

/**
 * nice-grpc's call context does not show the TLS peer, grpc-js's interceptor does. This one replaces whatever the
 * caller may have sent under the key by the URI names of the verified client certificate.
 */
export const PEER_KEY = 'busbar-peer-bin';

export const identityInterceptor: ServerInterceptor = (_method, call) =>
  new ServerInterceptingCall(call, {
    start(next) {
      next({
        onReceiveMetadata(metadata, pass) {
          metadata.remove(PEER_KEY);
          const names = call.getAuthContext().sslPeerCertificate?.subjectaltname ?? '';
          metadata.set(PEER_KEY, Buffer.from(names));
          pass(metadata);
        },
      });
    },
  });

/** The URI names of a certificate, from Node's text form "URI:spiffe://…, DNS:…". Quoted entries (Node quotes anything odd) are left out. */
export function uriNames(subjectAltName: string): readonly string[] {
  return subjectAltName
    .split(', ')
    .filter((entry) => entry.startsWith('URI:') && !entry.includes('"'))
    .map((entry) => entry.slice('URI:'.length));
}
