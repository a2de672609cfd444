// SPDX-License-Identifier: Apache-2.0
import { parseIdentityUri } from '@busbar/pki/identity';
import { parseRoleUri } from '@busbar/pki/role';
import type { Caller } from './call.ts';

/**
 * Who a verified client certificate speaks for, from its URI names; null when it is no client's of this cluster. The
 * transport has checked the chain. Exactly one identity and one role: a certificate with two is nobody's, because
 * whoever made it has made a mistake, and guessing which was meant would grant something.
 */
export function callerOf(uris: readonly string[], cluster: string): Caller | null {
  const identities = uris.flatMap((uri) => parseIdentityUri(uri) ?? []);
  const roles = uris.flatMap((uri) => parseRoleUri(uri, cluster) ?? []);
  const [identity] = identities;
  const [role] = roles;
  if (identities.length !== 1 || roles.length !== 1 || role === undefined) return null;
  if (identity?.kind !== 'client' || identity.cluster !== cluster) return null;
  return { name: `client/${identity.client}`, role };
}

/** The host whose agent a verified client certificate belongs to; null when it is no agent's of this cluster. */
export function agentHostOf(uris: readonly string[], cluster: string): string | null {
  const identities = uris.flatMap((uri) => parseIdentityUri(uri) ?? []);
  const [identity] = identities;
  return identities.length === 1 && identity?.kind === 'host' && identity.cluster === cluster ? identity.host : null;
}
