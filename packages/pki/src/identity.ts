// SPDX-License-Identifier: Apache-2.0
// Who a certificate speaks for. The identity is a URI in the subject alternative name, not the common name:
// the CN is free text that TLS libraries have stopped checking, a URI SAN is matched exactly and can say
// cluster, kind and name at once.

export type Identity =
  | { readonly kind: 'controller'; readonly cluster: string; readonly host: string }
  | { readonly kind: 'host'; readonly cluster: string; readonly host: string }
  | { readonly kind: 'client'; readonly cluster: string; readonly client: string };

/** Cluster, host and client names: a DNS label, so that they need no escaping in a URI or a file name. */
const NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

export class IdentityError extends Error {
  override readonly name = 'IdentityError';
}

export function isIdentityName(name: string): boolean {
  return NAME.test(name);
}

/** The URI SAN of an identity, for example `spiffe://lab/host/host1`. */
export function identityUri(identity: Identity): string {
  const name = identity.kind === 'client' ? identity.client : identity.host;
  for (const part of [identity.cluster, name]) {
    if (!isIdentityName(part))
      throw new IdentityError(`"${part}" cannot be part of a certificate identity: want a lower-case DNS label`);
  }
  return `spiffe://${identity.cluster}/${identity.kind}/${name}`;
}

/** The identity that a URI SAN states, or undefined when it is none of ours (another cluster's is returned: the caller compares). */
export function parseIdentityUri(uri: string): Identity | undefined {
  // Matched as text, on purpose: URL parsing would decode %xx and normalise ../, and two spellings of one identity are one too many.
  const match = /^spiffe:\/\/([^/]+)\/(controller|host|client)\/([^/]+)$/.exec(uri);
  const [, cluster, kind, name] = match ?? [];
  if (cluster === undefined || kind === undefined || name === undefined) return undefined;
  if (!isIdentityName(cluster) || !isIdentityName(name)) return undefined;
  switch (kind) {
    case 'controller':
    case 'host':
      return { kind, cluster, host: name };
    case 'client':
      return { kind, cluster, client: name };
    default:
      return undefined;
  }
}
