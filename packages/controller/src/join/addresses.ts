// SPDX-License-Identifier: Apache-2.0
// The addresses of a host that is to join. Pure. An admin writes them into its token (ADR 0048): what a host says of itself,
// in a request or in its inventory, gets no address certified.
import { isIP } from 'node:net';
import { BusbarError } from '@busbar/core/errors';
import { isValid } from '../certificate/plan.ts';
import type { ClusterView } from '../view/view.ts';

export const ADDRESSES_MAX = 8;
export const ADDRESS_RULE = 'an IP address of the host in a network: not loopback, multicast or unspecified';

/** One spelling for each address, or the same one would be two hosts'; null for what no host may have. */
export function canonicalAddress(text: string): string | null {
  if (isIP(text) === 0 || text.includes('%')) return null;
  let address = text;
  if (isIP(text) === 6) {
    const short = new URL(`http://[${text}]`).hostname.slice(1, -1);
    // IPv4 in the form of IPv6: the same address to every socket.
    const [, high, low] = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(short) ?? [];
    if (high === undefined || low === undefined) return /^(::1?$|ff)/.test(short) ? null : short;
    const [a, b] = [Number.parseInt(high, 16), Number.parseInt(low, 16)];
    address = `${a >> 8}.${a & 255}.${b >> 8}.${b & 255}`;
  }
  const first = Number(address.split('.', 1)[0]);
  return first === 0 || first === 127 || first >= 224 ? null : address;
}

export interface Taken {
  readonly address: string;
  readonly owner: string;
  /** How the cluster knows. */
  readonly by: string;
}

/** The first of these addresses that is another host's: a controller's, or in a valid certificate or in another token. */
export function takenAddress(
  view: Pick<ClusterView, 'tables'>,
  controllers: readonly { readonly host: string; readonly address: string }[],
  host: string,
  addresses: readonly string[],
  now: Date,
): Taken | null {
  const owned = [
    ...controllers.map(({ host: owner, address }) => ({
      owner,
      addresses: [address.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1')],
      by: 'its controller is configured with it',
    })),
    ...view.tables.certificate.sorted().flatMap(({ record: { certificate } }) => {
      const [, owner] = /^(?:host|controller)\/(.+)$/.exec(certificate?.subject ?? '') ?? [];
      if (certificate === undefined || owner === undefined || !isValid(certificate, now)) return [];
      return [{ owner, addresses: certificate.ipAddresses, by: `certificate ${certificate.serial}` }];
    }),
    ...view.tables['join-token'].sorted().flatMap(({ record: { token } }) => {
      if (token === undefined || (token.expireTime ?? now) <= now) return [];
      return [{ owner: token.host, addresses: token.addresses, by: `join token ${token.id}` }];
    }),
  ].filter(({ owner }) => owner !== host);
  for (const address of addresses) {
    const found = owned.find((each) => each.addresses.some((other) => canonicalAddress(other) === address));
    if (found !== undefined) return { address, owner: found.owner, by: found.by };
  }
  return null;
}

export function addressInUse(host: string, { address, owner, by }: Taken): BusbarError {
  return new BusbarError({
    kind: 'precondition',
    reason: 'ADDRESS_IN_USE',
    message: `${address} is an address of host "${owner}" (${by}), so "${host}" cannot have it`,
    hint: `give "${host}" another address; if host "${owner}" is gone, revoke its certificates or delete its token first`,
  });
}

/** An older command sends what it was told on the host; it must not believe that it got something else. */
export function addressesDiffer(host: string, sent: readonly string[], token: readonly string[]): BusbarError {
  return new BusbarError({
    kind: 'precondition',
    reason: 'ADDRESS_NOT_IN_TOKEN',
    message: `host "${host}" wants to join with ${sent.join(', ')}, but its token is for ${token.join(', ')}`,
    hint: 'join with the addresses of the token, or make a new one (busbar host token create --address …)',
  });
}
