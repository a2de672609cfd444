// SPDX-License-Identifier: Apache-2.0
import { X509Certificate } from 'node:crypto';
import { BusbarError } from '@busbar/core/errors';
import type { TlsFeed } from '@busbar/pki/tls/source';

/**
 * The names by which the cluster's controllers are called: those of the configuration, and those in the certificate of this
 * one. A page of a stranger whose name was made to point here (DNS rebinding) calls by that name, and a browser shows its
 * client certificate along; so what a request says of its own target is compared with these and never with itself.
 */
export interface OwnNames {
  /** Of `Host` or `:authority`: null when the host in it is the cluster's own. */
  refusalOf(authority: string | undefined): BusbarError | null;
  /** Whether a page of this origin is the edge's own, called as `authority`. */
  isOwnOrigin(origin: string, authority: string | undefined, port: number): boolean;
}

/** Of what was compared already; a flood of names costs a comparison each. */
const KNOWN_MAX = 64;

export function ownNames(
  controllers: readonly { readonly host: string; readonly address: string }[],
  tls: TlsFeed,
): OwnNames {
  let names = new Set<string>();
  const known = new Map<string, boolean>();
  const read = () => {
    known.clear();
    names = new Set([
      ...controllers.flatMap(({ host, address }) => [host.toLowerCase(), hostIn(address) ?? '']),
      ...namesIn(tls.current().certificate),
    ]);
    names.delete('');
  };
  read();
  // For the life of the listener, like the feed.
  tls.onChange(read);

  function isOwn(authority: string): boolean {
    const found = known.get(authority);
    if (found !== undefined) return found;
    const own = names.has(hostIn(authority) ?? '');
    if (known.size >= KNOWN_MAX) known.clear();
    known.set(authority, own);
    return own;
  }

  return {
    refusalOf: (authority = '') => (isOwn(authority) ? null : otherHost(authority, [...names])),
    isOwnOrigin(origin, authority, port) {
      // Exactly as browsers write it: no path, no user, no port that goes without saying.
      const url = URL.canParse(origin) ? new URL(origin) : null;
      if (url?.protocol !== 'https:' || url.origin !== origin || !isOwn(url.host)) return false;
      // The page of another server on the same host is not ours. A tunnel has a port of its own and calls by it.
      return url.port === String(port) || url.host === authority?.toLowerCase();
    },
  };
}

/** The host of HOST or HOST:PORT in one spelling; null for what is neither. */
function hostIn(authority: string): string | null {
  if (!/^(?:\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::\d{1,5})?$/.test(authority)) return null;
  const text = `https://${authority}`;
  return URL.canParse(text) ? new URL(text).hostname.replace(/\.$/, '') : null;
}

function namesIn(certificate: Buffer): readonly string[] {
  return (new X509Certificate(certificate).subjectAltName ?? '').split(', ').flatMap((entry) => {
    if (entry.startsWith('DNS:')) return hostIn(entry.slice(4)) ?? [];
    if (!entry.startsWith('IP Address:')) return [];
    const address = entry.slice('IP Address:'.length);
    return hostIn(address.includes(':') ? `[${address}]` : address) ?? [];
  });
}

/** In an answer, a dozen names are enough to find the mistake. */
const NAMES_SHOWN = 12;

function otherHost(authority: string, names: readonly string[]): BusbarError {
  return new BusbarError({
    kind: 'forbidden',
    reason: 'OTHER_HOST',
    message: `the request is for ${JSON.stringify(authority.slice(0, 100))}, which is no name of this cluster's controllers`,
    hint: `call it by one of ${names.slice(0, NAMES_SHOWN).join(', ')}`,
  });
}
