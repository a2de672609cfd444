// SPDX-License-Identifier: Apache-2.0
// What a client may do. A client certificate carries its role as a URI of its own beside the identity
// (`spiffe://CLUSTER/role/ROLE`), so that who somebody is and what they may do can be matched apart: NATS grants
// subscriptions by the role's URI, the audit record names the identity.
import { isIdentityName } from './identity.ts';

/** Each role includes the ones before it. */
export const ROLES = ['viewer', 'operator', 'admin'] as const;
export type Role = (typeof ROLES)[number];

export function isRole(word: string): word is Role {
  return (ROLES as readonly string[]).includes(word);
}

export function includesRole(held: Role, needed: Role): boolean {
  return ROLES.indexOf(held) >= ROLES.indexOf(needed);
}

export function roleUri(cluster: string, role: Role): string {
  return `spiffe://${cluster}/role/${role}`;
}

/** The role that a URI states for this cluster, or undefined. Matched as text, as identities are. */
export function parseRoleUri(uri: string, cluster: string): Role | undefined {
  const [, of, role = ''] = /^spiffe:\/\/([^/]+)\/role\/([^/]+)$/.exec(uri) ?? [];
  return of === cluster && isIdentityName(cluster) && isRole(role) ? role : undefined;
}
