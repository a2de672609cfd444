// SPDX-License-Identifier: Apache-2.0
import { ServerInterceptingCall, type ServerInterceptor } from '@grpc/grpc-js';

/**
 * nice-grpc's call context does not show the TLS peer, grpc-js's interceptor does. This one replaces whatever the
 * caller may have sent under the key by what is of the verified client certificate.
 */
export const PEER_KEY = 'busbar-peer-bin';

export const identityInterceptor: ServerInterceptor = (_method, call) =>
  new ServerInterceptingCall(call, {
    start(next) {
      next({
        onReceiveMetadata(metadata, pass) {
          metadata.remove(PEER_KEY);
          const { serialNumber, subjectaltname, valid_from, valid_to } = call.getAuthContext().sslPeerCertificate ?? {};
          metadata.set(PEER_KEY, Buffer.from(JSON.stringify({ serialNumber, subjectaltname, valid_from, valid_to })));
          pass(metadata);
        },
      });
    },
  });
