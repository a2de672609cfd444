// SPDX-License-Identifier: Apache-2.0
import { type PlaceLimits, Places } from '@busbar/core/places';
import type { CallContext } from 'nice-grpc';
import type { Caller } from './call.ts';
import { takePlace } from './places.ts';

/**
 * Health and reflection are libraries' services, with no pipeline in front. Their streams last as long as their caller
 * likes, and an unfinished message on each may have 4 MiB: so they have places by caller, too. A load balancer and a
 * person with grpcurl need one each.
 */
const LIMITS = {
  side: { what: 'streams of health and reflection', perCaller: 8, upTo: { viewer: 192, operator: 240, admin: 256 } },
} as const satisfies Record<string, PlaceLimits>;

/** Who comes without a certificate, should that ever be let in, shares one allowance. */
const UNKNOWN = { name: 'nobody', role: null };

export function sideServices(callerOf: (context: CallContext) => Caller | null) {
  const places = new Places('this controller', LIMITS);
  return {
    /** The same stream, with a place while it lasts. */
    async *placed<Request, Context extends CallContext, Response>(
      open: (request: Request, context: Context) => AsyncIterable<Response>,
      request: Request,
      context: Context,
    ): AsyncGenerator<Response, void, undefined> {
      using _place = takePlace(places, 'side', callerOf(context) ?? UNKNOWN);
      yield* open(request, context);
    },
  };
}
