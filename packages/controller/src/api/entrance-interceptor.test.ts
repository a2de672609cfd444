// SPDX-License-Identifier: Apache-2.0
import { systemClock } from '@busbar/core/clock/clock';
import { NetworkServiceDefinition } from '@busbar/proto/gen/busbar/v1/network';
import { createChannel, createClient, createServer, Status } from 'nice-grpc';
import { expect, it } from 'vitest';
import { entranceInterceptor } from './entrance-interceptor.ts';
import { newIntake } from './intake.ts';
import { encodingOnce } from './shared-messages.ts';

const { listNetworks } = NetworkServiceDefinition.methods;

/** A server with this one method, behind the entrance. */
async function calling(answer: () => Promise<unknown>): Promise<unknown> {
  const options = { interceptors: [entranceInterceptor(newIntake(systemClock), () => null, new Map())] };
  const server = createServer(options as unknown as Parameters<typeof createServer>[0]);
  const definition = { ...NetworkServiceDefinition, methods: { listNetworks } };
  server.add(encodingOnce(definition) as never, { listNetworks: answer } as never);
  const channel = createChannel(`127.0.0.1:${await server.listen('127.0.0.1:0')}`);
  try {
    return await createClient(definition, channel).listNetworks({}, { signal: AbortSignal.timeout(4_000) });
  } finally {
    channel.close();
    server.forceShutdown();
  }
}

it('ends a call with its answer', async () => {
  const answer = { networks: [], nextPageToken: 'more', revision: 7n };
  await expect(calling(async () => answer)).resolves.toMatchObject(answer);
});

it('fails a call whose answer cannot be encoded, instead of leaving it open', async () => {
  const broken = calling(async () => ({ networks: null, nextPageToken: '', revision: 7n }));
  await expect(broken).rejects.toMatchObject({ code: Status.INTERNAL });
});
