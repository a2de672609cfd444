// SPDX-License-Identifier: Apache-2.0
// grpc-js's credentials over certificates that may be replaced: each handshake takes what is there when it begins, and
// connections that are open stay as they are. The library marks this interface experimental; its stable one takes one
// pair for good (docs/adr/0023).
import type { TlsFeed } from '@busbar/pki/tls/source';
import { type ChannelCredentials, experimental, type ServerCredentials } from '@grpc/grpc-js';

/** Whoever connects has to show a certificate of the authority. */
export function serverCredentials(feed: TlsFeed): ServerCredentials {
  const provider = providerOf(feed);
  return experimental.createCertificateProviderServerCredentials(provider, provider, true);
}

export function channelCredentials(feed: TlsFeed): ChannelCredentials {
  const provider = providerOf(feed);
  return experimental.createCertificateProviderChannelCredentials(provider, provider);
}

function providerOf(feed: TlsFeed): experimental.CertificateProvider {
  const listeners = new Map<object, Disposable>();
  const add = (listener: object, tell: () => void) => {
    listeners.set(listener, feed.onChange(tell));
    // Not at once: the server begins to listen to its credentials only after they began to listen to us.
    queueMicrotask(() => {
      if (listeners.has(listener)) tell();
    });
  };
  const remove = (listener: object) => {
    listeners.get(listener)?.[Symbol.dispose]();
    listeners.delete(listener);
  };
  return {
    addCaCertificateListener: (listener) => add(listener, () => listener({ caCertificate: feed.current().ca })),
    removeCaCertificateListener: remove,
    addIdentityCertificateListener: (listener) =>
      add(listener, () => {
        const { certificate, key } = feed.current();
        listener({ certificate, privateKey: key });
      }),
    removeIdentityCertificateListener: remove,
  };
}
