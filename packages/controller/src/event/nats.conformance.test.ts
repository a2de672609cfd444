// SPDX-License-Identifier: Apache-2.0
import { connect as connectTls } from 'node:tls';
import { systemClock } from '@busbar/core/clock/clock';
import { silentLogger } from '@busbar/core/log';
import { systemRandom } from '@busbar/core/random';
import { Event } from '@busbar/proto/gen/busbar/v1/event';
import { connect } from '@nats-io/transport-node';
import { expect, it } from 'vitest';
import { allSubjects } from './bus.ts';
import { eventBusConformance } from './conformance.ts';
import { natsBus } from './nats.ts';
import { type Credentials, makeTestPki, startNats, TEST_CLUSTER } from './test-server.ts';

eventBusConformance('nats-server of this machine', async (pki) => {
  const [server] = await startNats(pki);
  if (server === undefined) throw new Error('no server');
  return server;
});

it('two servers: an event at one is heard at the other; the loss of one is no loss', async () => {
  const pki = await makeTestPki();
  const [first, second] = await startNats(pki, 2);
  if (first === undefined || second === undefined) throw new Error('no servers');
  const bus = natsBus({
    cluster: TEST_CLUSTER,
    servers: [first.address, second.address],
    tls: () => pki.controller,
    name: 'two',
    clock: systemClock,
    random: systemRandom,
    logger: silentLogger,
  });
  try {
    const heard = new Set<string>();
    const viewer = await connect({ servers: second.address, reconnect: false, tls: { ...pki.viewer } });
    viewer.subscribe(allSubjects(TEST_CLUSTER), {
      callback: (_, message) => void heard.add(message.headers?.get('Nats-Msg-Id') ?? ''),
    });
    await viewer.flush();
    // The servers may still be finding each other, so it is said until it is heard.
    const untilHeard = async (id: string) => {
      for (const endMs = performance.now() + 20_000; !heard.has(id); await new Promise((r) => setTimeout(r, 100))) {
        if (performance.now() > endMs) throw new Error(`${id} was not heard`);
        bus.publish(Event.fromPartial({ id, reason: 'VM_STARTED', subject: { kind: 'vm', id: 'relay' } }));
      }
    };
    await untilHeard('over the route');
    await first.kill();
    await untilHeard('at the other server');
    await viewer.close();
  } finally {
    await bus.close();
    await Promise.all([first.stop(), second.stop()]);
  }
});

it('a route is taken from servers alone', async () => {
  const pki = await makeTestPki();
  const [first, second] = await startNats(pki, 2);
  if (first === undefined || second === undefined) throw new Error('no servers');
  try {
    expect(await route(first.route, pki.viewer)).toContain('Authorization Violation');
    expect(await route(first.route, pki.agent)).toContain('Authorization Violation');
    expect(await route(first.route, pki.server)).not.toContain('Authorization Violation');
  } finally {
    await Promise.all([first.stop(), second.stop()]);
  }
});

/** Poses as another server; what this one says to it in a second. */
async function route(address: string, { ca, cert, key }: Credentials): Promise<string> {
  const [host = '', port] = address.split(':');
  const socket = connectTls({ host, port: Number(port), ca, cert, key });
  let said = '';
  socket.on('data', (bytes) => {
    said += String(bytes);
  });
  socket.on('error', () => {});
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.write(`CONNECT {"verbose":false,"tls_required":true,"name":"EVIL","cluster":"${TEST_CLUSTER}"}\r\nPING\r\n`);
  await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, 1_000))]);
  socket.destroy();
  return said;
}
