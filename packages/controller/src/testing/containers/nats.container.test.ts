// SPDX-License-Identifier: Apache-2.0
import { once } from 'node:events';
import { connect } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { soon, waitUntil } from '../../store/examine.fixture.ts';
import { type NatsContainer, startNats } from './nats.ts';

/** The fixture itself, without a NATS client: the protocol is lines of text. */
describe('NATS in a container', () => {
  let nats: NatsContainer;
  beforeAll(async () => {
    nats = await startNats();
    await waitUntil(async () => (await greeting(nats)) !== null);
  });
  afterAll(() => nats?.[Symbol.asyncDispose]());

  test('greets, and wants TLS with a client certificate', async () => {
    expect(await greeting(nats)).toMatchObject({ tls_required: true, tls_verify: true });
  });

  test('delivers what is published to who is subscribed', async () => {
    const heard = await soon(
      session(nats, 'CONNECT {"verbose":false}\r\nSUB a.> 1\r\nPUB a.b 5\r\nhello\r\n', /MSG .*\r\n.*\r\n/),
    );
    expect(heard).toContain('MSG a.b 1 5\r\nhello\r\n');
  });

  test('says nothing while it is frozen, is gone when it is killed, and comes back at the same address', async () => {
    await nats.freeze();
    expect(await greeting(nats, 300)).toBeNull();
    await nats.thaw();
    await waitUntil(async () => (await greeting(nats)) !== null);
    await nats.kill();
    expect(await greeting(nats)).toBeNull();
    await nats.restart();
    await waitUntil(async () => (await greeting(nats)) !== null);
  });
});

function hostAndPort(nats: NatsContainer): { host: string; port: number } {
  const [host = '', port = ''] = nats.address.split(':');
  return { host, port: Number(port) };
}

/** What a NATS server says first, unasked; null when it does not in time. */
async function greeting(nats: NatsContainer, limitMs = 2_000): Promise<unknown> {
  const socket = connect(hostAndPort(nats)).setTimeout(limitMs);
  try {
    const said = await Promise.race([
      once(socket, 'data').then(([data]) => String(data)),
      once(socket, 'timeout').then(() => null),
    ]);
    return said === null ? null : JSON.parse(said.replace(/^INFO /, ''));
  } catch {
    return null;
  } finally {
    socket.destroy();
  }
}

/** Sends the commands over TLS and gathers the answers until they match. */
async function session(nats: NatsContainer, commands: string, enough: RegExp): Promise<string> {
  const plain = connect(hostAndPort(nats));
  await once(plain, 'data');
  const socket = connectTls({ socket: plain, ...nats.tls, host: '127.0.0.1' });
  try {
    await once(socket, 'secureConnect');
    socket.write(commands);
    let heard = '';
    while (!enough.test(heard)) heard += String((await once(socket, 'data'))[0]);
    return heard;
  } finally {
    socket.destroy();
  }
}
