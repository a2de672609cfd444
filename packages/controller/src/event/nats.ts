// SPDX-License-Identifier: Apache-2.0
import { checkServerIdentity, type PeerCertificate } from 'node:tls';
import { type Clock, sleep, withDeadline } from '@busbar/core/clock/clock';
import type { Logger } from '@busbar/core/log';
import type { Random } from '@busbar/core/random';
import { Event } from '@busbar/proto/gen/busbar/v1/event';
import { connect, headers, type NatsConnection } from '@nats-io/transport-node';
import { type EventBus, subjectOf } from './bus.ts';

/**
 * Events to NATS servers. One loop: connect, send a batch, wait for the server's word that it has it, go on. The client
 * library's own reconnecting is off, because it keeps what is sent meanwhile in a buffer without a limit.
 */
export interface NatsOptions {
  readonly cluster: string;
  /** host:port, tried in turn. */
  readonly servers: readonly string[];
  /** PEM, read anew for each connection, so that a renewed certificate is taken up. */
  readonly tls: () => { readonly ca: string; readonly cert: string; readonly key: string };
  /** Name of the connection, for `nats server report connections`. */
  readonly name: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

/** Hours of a quiet cluster, minutes of a stormy one; about 1 MB. */
const QUEUE_MAX = 1_000;
const BATCH = 64;
/** A server that does not answer for this long is taken for frozen, and the next one is tried. */
const ANSWER_MS = 2_000;
const PAUSE_FIRST_MS = 250;
const PAUSE_MAX_MS = 10_000;
const CLOSE_MS = 1_000;

export function natsBus(options: NatsOptions): EventBus {
  const { clock, logger } = options;
  const queue: Event[] = [];
  const closing = new AbortController();
  let connection: NatsConnection | null = null;
  let running: Promise<void> | null = null;
  let dropped = 0;
  let next = 0;
  let failures = 0;

  async function run(): Promise<void> {
    while (queue.length > 0 && !closing.signal.aborted) {
      try {
        connection ??= await dial();
        await sendSome(connection);
      } catch (error) {
        drop(connection);
        await rest(error);
      }
    }
    running = null;
  }

  async function dial(): Promise<NatsConnection> {
    const server = `${options.servers[next++ % options.servers.length]}`;
    const host = server.replace(/:\d+$/, '');
    // The library hands these on to Node. Left to itself it checks a server that is known by its address against the
    // name "localhost", which any certificate may carry.
    const identity = {
      checkServerIdentity: (_: string, certificate: PeerCertificate) => checkServerIdentity(host, certificate),
    };
    const made = await connect({
      servers: server,
      name: options.name,
      tls: { ...options.tls(), ...identity },
      reconnect: false,
      timeout: ANSWER_MS,
      pingInterval: ANSWER_MS,
      maxPingOut: 2,
      // What other servers there are is in the configuration.
      ignoreClusterUpdates: true,
    });
    if (failures > 0) logger.info({ server, waiting: queue.length, dropped }, 'events go out to NATS again');
    void made.closed().then(() => {
      if (connection === made) connection = null;
    });
    void listen(made, server);
    return made;
  }

  /** What the server refuses it tells between the lines; nobody waits for it. */
  async function listen(made: NatsConnection, server: string): Promise<void> {
    for await (const status of made.status())
      if (status.type === 'error') logger.warn({ server, err: status.error }, 'NATS refuses something');
  }

  async function sendSome(to: NatsConnection): Promise<void> {
    const batch = queue.slice(0, BATCH);
    for (const event of batch) {
      const header = headers();
      // Consumers with a memory (JetStream, or their own) drop what comes twice.
      header.set('Nats-Msg-Id', event.id);
      to.publish(subjectOf(options.cluster, event), JSON.stringify(Event.toJSON(event)), { headers: header });
    }
    // The answer to a ping: the server has taken everything before it.
    await withDeadline(clock, ANSWER_MS, 'NATS', () => to.flush(), closing.signal);
    const sent = new Set(batch);
    while (queue[0] !== undefined && sent.has(queue[0])) queue.shift();
    failures = 0;
  }

  function drop(broken: NatsConnection | null): void {
    if (connection === broken) connection = null;
    // A frozen server would keep a polite farewell waiting.
    void broken?.close().catch(() => {});
  }

  async function rest(error: unknown): Promise<void> {
    if (closing.signal.aborted) return;
    const ceiling = Math.min(PAUSE_MAX_MS, PAUSE_FIRST_MS * 2 ** Math.min(failures, 10));
    // Once: an outage of hours is not worth a line every ten seconds. The others of the list get their turn at once.
    if (failures === options.servers.length - 1)
      logger.warn({ err: error }, 'no NATS server takes events; the cluster goes on without, the API has them');
    failures++;
    if (failures < options.servers.length) return;
    await sleep(clock, ceiling * (0.5 + options.random.next() / 2), closing.signal).catch(() => {});
  }

  return {
    publish(event) {
      if (closing.signal.aborted) return;
      if (queue.length >= QUEUE_MAX) {
        queue.shift();
        dropped++;
      }
      queue.push(event);
      running ??= run();
    },
    dropped: () => dropped,
    async close() {
      const last = running;
      if (last !== null) await withDeadline(clock, CLOSE_MS, 'the last events', () => last).catch(() => {});
      dropped += queue.length;
      closing.abort(new Error('the bus is closed'));
      const open = connection;
      connection = null;
      if (open !== null) await withDeadline(clock, CLOSE_MS, 'closing', () => open.close()).catch(() => {});
    },
  };
}
