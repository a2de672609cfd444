// SPDX-License-Identifier: Apache-2.0
import { type Identity, parseIdentityUri } from '@busbar/pki/identity';
import { canonicalSerial } from '@busbar/pki/purpose';
import { parseRoleUri } from '@busbar/pki/role';
import type { Caller } from './call.ts';

/** What a transport knows of a client certificate whose chain it has verified. */
export interface PresentedCertificate {
  /** In the canonical spelling. */
  readonly serial: string;
  readonly uris: readonly string[];
  readonly ips: readonly string[];
  readonly notBefore: Date;
  readonly notAfter: Date;
}

/** The part of Node's PeerCertificate that counts. */
export interface Peer {
  readonly serialNumber?: string;
  readonly subjectaltname?: string | undefined;
  readonly valid_from?: string;
  readonly valid_to?: string;
}

/** From what TLS says of the peer, for every transport; null when it showed no certificate. */
export function presented(peer: Peer | null | undefined): PresentedCertificate | null {
  const [notBefore, notAfter] = [new Date(peer?.valid_from ?? ''), new Date(peer?.valid_to ?? '')];
  if (!peer?.serialNumber || Number.isNaN(notBefore.getTime()) || Number.isNaN(notAfter.getTime())) return null;
  const names = peer.subjectaltname ?? '';
  return {
    serial: canonicalSerial(peer.serialNumber),
    uris: namesOf(names, 'URI:'),
    ips: namesOf(names, 'IP Address:'),
    notBefore,
    notAfter,
  };
}

/** The names of one type, from Node's text form "URI:spiffe://…, DNS:…". Quoted entries (Node quotes anything odd) are left out. */
function namesOf(subjectAltName: string, type: 'URI:' | 'IP Address:'): readonly string[] {
  return subjectAltName
    .split(', ')
    .filter((entry) => entry.startsWith(type) && !entry.includes('"'))
    .map((entry) => entry.slice(type.length));
}

/**
 * Who a verified certificate speaks for; null when it is nobody of this cluster. Exactly one identity, and for a client
 * exactly one role: a certificate with two is nobody's, because whoever made it has made a mistake, and guessing which
 * was meant would grant something. Whether it still counts (revoked, expired) is asked by the pipeline, for every call.
 */
export function callerOf(certificate: PresentedCertificate | null, cluster: string): Caller | null {
  if (certificate === null) return null;
  const identity = identityOf(certificate, cluster);
  const roles = certificate.uris.flatMap((uri) => parseRoleUri(uri, cluster) ?? []);
  const [role] = roles;
  switch (identity?.kind) {
    case 'client':
      if (roles.length !== 1 || role === undefined) return null;
      return { name: `client/${identity.client}`, role, certificate };
    case 'host':
    case 'controller':
      // Machines have no role: they may renew their certificate, no more. With one, somebody made a mistake.
      return roles.length > 0 ? null : { name: `${identity.kind}/${identity.host}`, role: null, certificate };
    case undefined:
      return null;
  }
}

export interface Recognised {
  readonly certificate: PresentedCertificate | null;
  readonly caller: Caller | null;
}
/** From the JSON of a Peer. */
export type Recognise = (peer: string | null) => Recognised;

/** As many certificates as call within minutes; whoever is forgotten is looked at again. */
const RECOGNISED_MAX = 256;
const NOBODY_KNOWN: Recognised = { certificate: null, caller: null };

/** The same few certificates call again and again, and what they say does not change: it is looked at once. */
export function recognition(cluster: string): Recognise {
  const known = new Map<string, Recognised>();
  return (peer) => {
    if (peer === null) return NOBODY_KNOWN;
    let found = known.get(peer);
    if (found === undefined) {
      const certificate = presented(JSON.parse(peer) as Peer);
      found = { certificate, caller: callerOf(certificate, cluster) };
      if (known.size >= RECOGNISED_MAX) known.clear();
      known.set(peer, found);
    }
    return found;
  };
}

/** The host whose agent a verified certificate belongs to; null when it is no agent's of this cluster. */
export function agentHostOf(certificate: PresentedCertificate | null, cluster: string): string | null {
  const identity = certificate === null ? null : identityOf(certificate, cluster);
  return identity?.kind === 'host' ? identity.host : null;
}

function identityOf(certificate: PresentedCertificate, cluster: string): Identity | null {
  const identities = certificate.uris.flatMap((uri) => parseIdentityUri(uri) ?? []);
  const [identity] = identities;
  return identities.length === 1 && identity?.cluster === cluster ? identity : null;
}
