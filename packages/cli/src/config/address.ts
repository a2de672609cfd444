// SPDX-License-Identifier: Apache-2.0
/** Addresses of controllers as users write them. Pure. */
import { usageError } from '../cli/exit.ts';

/** Port of a controller's API when an endpoint names none. */
const DEFAULT_PORT = 7800;

export function normaliseEndpoint(endpoint: string): string {
  if (endpoint.startsWith('unix:')) return endpoint;
  const match = /^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?$/.exec(endpoint);
  const port = Number(match?.[2] ?? DEFAULT_PORT);
  if (match === null || port < 1 || port > 65535) {
    throw usageError(
      `endpoint ${JSON.stringify(endpoint)} is no address`,
      'an endpoint is HOST:PORT',
      'write e.g. 10.77.0.11:7800',
    );
  }
  return `${match[1]}:${port}`;
}

/** Of the repeatable --endpoint, which also takes several with commas between them. */
export function splitEndpoints(given: readonly string[]): readonly string[] {
  return given.flatMap((value) => value.split(',')).filter((value) => value !== '');
}
