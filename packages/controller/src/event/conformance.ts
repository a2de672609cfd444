// SPDX-License-Identifier: Apache-2.0
// What the cluster expects of the way its events go out, tried on a real NATS server that is configured as in a plant.
// nats.conformance.test.ts runs it on a program of this machine; it can be run on a container as well.
import { connect as connectTcp } from 'node:net';
import { systemClock } from '@busbar/core/clock/clock';
import { VirtualClock } from '@busbar/core/clock/virtual';
import { silentLogger } from '@busbar/core/log';
import { seededRandom } from '@busbar/core/random';
import { Event, EventSeverity } from '@busbar/proto/gen/busbar/v1/event';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { allSubjects, type EventBus, subjectOf } from './bus.ts';
import { natsBus } from './nats.ts';
import { type Credentials, makeTestPki, type NatsUnderTest, TEST_CLUSTER, type TestPki } from './test-server.ts';

const DEADLINE_MS = 20_000;

/** `make` starts a server with `natsServerConfig` and `pki.server` and hands over how to break it. */
export function eventBusConformance(name: string, make: (pki: TestPki) => Promise<NatsUnderTest>): void {
  describe(name, () => {
    let pki: TestPki;
    let server: NatsUnderTest;
    let bus: EventBus;
    let subscriber: Subscriber;
    const buses: EventBus[] = [];

    const newBus = (clock = systemClock): EventBus => {
      const made = natsBus({
        cluster: TEST_CLUSTER,
        servers: [server.address],
        tls: () => pki.controller,
        name: 'conformance',
        clock,
        random: seededRandom(1),
        logger: silentLogger,
      });
      buses.push(made);
      return made;
    };

    beforeAll(async () => {
      pki = await makeTestPki();
      server = await make(pki);
    });
    beforeEach(async () => {
      bus = newBus();
      subscriber = await Subscriber.open(server.address, pki.viewer);
    });
    afterEach(async () => {
      await Promise.all(buses.splice(0).map((each) => each.close()));
      await subscriber.close();
    });
    afterAll(() => server?.stop());

    it('delivers in order, whole, with subject and message id', async () => {
      const events = Array.from({ length: 200 }, (_, i) => event(i));
      for (const each of events) bus.publish(each);
      await subscriber.has(events.length);
      expect(subscriber.got.map((message) => message.event)).toEqual(events);
      expect(subscriber.got[7]).toMatchObject({ id: 'event-7', subject: 'busbar.test.event.vm.relay.VM_STARTED' });
      expect(bus.dropped()).toBe(0);
    });

    it('goes on when the server was killed, with what was told meanwhile', async () => {
      const clock = new VirtualClock();
      const patient = newBus(clock);
      patient.publish(event(0));
      await subscriber.has(1);
      await server.kill();
      for (let i = 1; i <= 20; i++) patient.publish(event(i));
      await server.restart();
      // The listener first: whoever is not there misses what is said. The bus waits by its own clock.
      await subscriber.reopen();
      await within(async () => {
        await clock.advance(10_000);
        return subscriber.got.length >= 21;
      });
      expect(subscriber.ids()).toEqual(Array.from({ length: 21 }, (_, i) => `event-${i}`));
      expect(patient.dropped()).toBe(0);
    });

    it('holds up nobody when the server stands still: takes events at once, drops the oldest, ends in time', async () => {
      bus.publish(event(0));
      await subscriber.has(1);
      await server.freeze();
      try {
        const startMs = performance.now();
        for (let i = 1; i <= 3_000; i++) bus.publish(event(i));
        // 3,000 pushes into an array; a second is for the machine, not for the server.
        expect(performance.now() - startMs).toBeLessThan(1_000);
        expect(bus.dropped()).toBe(2_000);
        const closingMs = performance.now();
        await bus.close();
        expect(performance.now() - closingMs).toBeLessThan(4_000);
        expect(bus.dropped()).toBe(3_000);
      } finally {
        server.thaw();
      }
    });

    it('goes on when a server that stood still moves again', async () => {
      bus.publish(event(0));
      await subscriber.has(1);
      await server.freeze();
      bus.publish(event(1));
      await new Promise((resolve) => setTimeout(resolve, 500));
      server.thaw();
      await subscriber.reopen();
      bus.publish(event(2));
      await within(() => subscriber.ids().includes('event-2'));
    });

    it('takes nobody who does not speak TLS', async () => {
      const said = await plaintext(server.address, `PUB ${subjectOf(TEST_CLUSTER, event(1))} 2\r\nhi\r\nPING\r\n`);
      expect(said).toContain('"tls_required":true');
      expect(said).not.toContain('PONG');
      await subscriber.hearsOnly(bus, event(2));
    });

    it('lets a viewer hear and not speak', async () => {
      const viewer = await open(server.address, pki.viewer);
      const refused = firstError(viewer);
      viewer.publish(subjectOf(TEST_CLUSTER, event(1)), 'forged');
      await viewer.flush();
      expect(await refused).toMatch(/permissions violation for publish/i);
      await viewer.close();
      await subscriber.hearsOnly(bus, event(2));
    });

    it('lets a controller speak and not hear, and only in its cluster', async () => {
      const controller = await open(server.address, pki.controller);
      const refused = firstError(controller);
      controller.subscribe(allSubjects(TEST_CLUSTER));
      await controller.flush();
      expect(await refused).toMatch(/permissions violation for subscription/i);
      const foreign = firstError(controller);
      controller.publish(subjectOf('other', event(1)), 'x');
      await controller.flush();
      expect(await foreign).toMatch(/permissions violation for publish/i);
      await controller.close();
    });

    it.each(['agent', 'stranger'] as const)('refuses the certificate of: %s', async (who) => {
      await expect(open(server.address, pki[who])).rejects.toThrow();
    });

    it('refuses whoever has no certificate', async () => {
      const nobody = { servers: server.address, reconnect: false, timeout: 5_000, tls: { ca: pki.viewer.ca } };
      await expect(connect(nobody)).rejects.toThrow();
    });
  });
}

function event(index: number): Event {
  return {
    id: `event-${index}`,
    time: new Date(1_800_000_000_000 + index),
    severity: EventSeverity.INFO,
    reason: 'VM_STARTED',
    subject: { kind: 'vm', id: 'relay', name: 'relay' },
    message: 'läuft auf host1',
    attributes: { host: 'host1' },
    revision: BigInt(index),
  };
}

function open(address: string, { ca, cert, key }: Credentials): Promise<NatsConnection> {
  return connect({ servers: address, reconnect: false, timeout: 5_000, tls: { ca, cert, key } });
}

async function firstError(connection: NatsConnection): Promise<string> {
  for await (const status of connection.status()) if (status.type === 'error') return String(status.error);
  return 'no error';
}

class Subscriber {
  readonly got: { readonly id: string; readonly subject: string; readonly event: Event }[] = [];
  readonly #address: string;
  readonly #credentials: Credentials;
  #connection: NatsConnection | undefined;

  private constructor(address: string, credentials: Credentials) {
    this.#address = address;
    this.#credentials = credentials;
  }

  static async open(address: string, credentials: Credentials): Promise<Subscriber> {
    const subscriber = new Subscriber(address, credentials);
    await subscriber.reopen();
    return subscriber;
  }

  async reopen(): Promise<void> {
    await this.close();
    const connection = await open(this.#address, this.#credentials);
    this.#connection = connection;
    connection.subscribe(allSubjects(TEST_CLUSTER), {
      callback: (_error, message) =>
        void this.got.push({
          id: message.headers?.get('Nats-Msg-Id') ?? '',
          subject: message.subject,
          event: Event.fromJSON(JSON.parse(message.string())),
        }),
    });
    await connection.flush();
  }

  ids(): readonly string[] {
    return this.got.map(({ id }) => id);
  }

  has(count: number): Promise<void> {
    return within(() => this.got.length >= count);
  }

  /** What comes first after a refusal is what was said properly. */
  async hearsOnly(bus: EventBus, marker: Event): Promise<void> {
    bus.publish(marker);
    await this.has(1);
    expect(this.ids()).toEqual([marker.id]);
  }

  async close(): Promise<void> {
    await this.#connection?.close();
  }
}

/** Says something without TLS; what the server said until it hung up. */
function plaintext(address: string, text: string): Promise<string> {
  const [host, port] = address.split(':');
  return new Promise((resolve) => {
    let said = '';
    const socket = connectTcp({ host: `${host}`, port: Number(port) });
    socket.setTimeout(DEADLINE_MS, () => socket.destroy());
    socket.on('data', (bytes) => {
      if (said === '') socket.write(`CONNECT {"verbose":false}\r\n${text}`);
      said += String(bytes);
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(said));
  });
}

async function within(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (const endMs = performance.now() + DEADLINE_MS; !(await condition()); ) {
    if (performance.now() > endMs) throw new Error(`not within ${DEADLINE_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
