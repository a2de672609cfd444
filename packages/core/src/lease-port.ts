// SPDX-License-Identifier: Apache-2.0

/** Heartbeats have a listener of their own, this far above the port of the API: 7804 where that is 7800. */
const OFFSET = 4;

/** From HOST:PORT or [IPv6]:PORT of a controller; a port of 0 (any, in tests) stays 0. */
export function leaseAddressOf(address: string): string {
  const colon = address.lastIndexOf(':');
  const port = Number(address.slice(colon + 1));
  return `${address.slice(0, colon)}:${port === 0 ? 0 : port + OFFSET}`;
}
