// SPDX-License-Identifier: Apache-2.0
/** `vm console`: the serial console through whichever controller answers; when that one dies, through the next. */
import { once } from 'node:events';
import { type DeepPartial, type OpenConsoleRequest, VmServiceDefinition } from '@busbar/proto/gen/busbar/v1/vm';
import type { Metadata } from 'nice-grpc';
import { type Api, isUnavailable } from '../api/api.ts';
import { UnreachableError } from '../api/rpc-error.ts';
import type { Session } from '../cli/session.ts';
import { openTerminal, type Terminal } from './terminal.ts';

const MAX_INPUT_BYTES = 64 * 1024;
const RECONNECT_MS = 500;
/** A guest outlives its controllers: worth waiting for the next one this long. */
const PATIENCE_MS = 120_000;
/** After a pipe has ended: as long as the guest goes on answering, and this long after its last word. */
const LINGER_MS = 2000;

export async function runConsole(session: Session, vm: string): Promise<void> {
  session.doing = `open the console of VM ${vm}`;
  const api = await session.api();
  const ended = new AbortController();
  const terminal = openTerminal(session.io, () => ended.abort());
  session.onEnd(() => terminal.restore());
  // On a raw terminal a line feed alone does not go back to the first column.
  const say = (text: string) => void session.io.stderr.write(`[busbar] ${text}${terminal.raw ? '\r\n' : '\n'}`);
  const activity = { lastMs: performance.now(), connected: false };
  const linger = setInterval(() => {
    const silent = performance.now() - activity.lastMs > LINGER_MS;
    if (terminal.ended && terminal.input.bytes === 0 && activity.connected && silent) ended.abort();
  }, 100);
  try {
    await stayConnected(session, api, vm, { terminal, ended: ended.signal, say, activity });
  } finally {
    clearInterval(linger);
    terminal.restore();
  }
  say('console closed');
}

interface Console {
  readonly terminal: Terminal;
  /** The user has had enough. */
  readonly ended: AbortSignal;
  say(text: string): void;
  readonly activity: { lastMs: number; connected: boolean };
}

async function stayConnected(session: Session, api: Api, vm: string, serial: Console): Promise<void> {
  let lostAt: number | undefined;
  while (!serial.ended.aborted) {
    try {
      await connectOnce(session, api, vm, serial, (address) => {
        const how = serial.terminal.raw ? '; Ctrl-] ends it' : '';
        serial.say(
          lostAt === undefined ? `console of VM ${vm} through ${address}${how}` : `reconnected through ${address}`,
        );
        lostAt = undefined;
        serial.activity.connected = true;
      });
      return;
    } catch (error) {
      session.signal.throwIfAborted();
      if (serial.ended.aborted) return;
      const lost = isUnavailable(error) || error instanceof UnreachableError;
      // Never connected: say so at once instead of trying on.
      if (!lost || (lostAt === undefined && !serial.activity.connected)) throw error;
      if (lostAt === undefined) serial.say('connection to the controller lost, reconnecting …');
      lostAt ??= performance.now();
      if (performance.now() - lostAt > PATIENCE_MS) throw error;
      await api.pause(RECONNECT_MS);
    }
  }
}

/** Returns when the cluster or the user ended the console; throws RpcError when the connection broke. */
async function connectOnce(
  session: Session,
  api: Api,
  vm: string,
  serial: Console,
  connected: (address: string) => void,
): Promise<void> {
  const opened = await api.open(VmServiceDefinition);
  const over = new AbortController();
  const takes = AbortSignal.any([over.signal, serial.ended, session.signal]);
  let trailer: Metadata | undefined;
  let first = true;
  try {
    const responses = opened.client.openConsole(requests(vm, serial, takes), {
      signal: AbortSignal.any([serial.ended, session.signal]),
      onTrailer: (metadata) => (trailer = metadata),
    });
    for await (const { output } of responses) {
      if (first) connected(opened.address);
      first = false;
      serial.activity.lastMs = performance.now();
      if (output.length > 0 && !session.io.stdout.write(output))
        await once(session.io.stdout, 'drain', { signal: takes });
    }
  } catch (error) {
    if (serial.ended.aborted) return;
    throw opened.failed(error, trailer);
  } finally {
    // Ends a pending take without swallowing what is typed next.
    over.abort();
  }
}

async function* requests(
  vm: string,
  serial: Console,
  signal: AbortSignal,
): AsyncGenerator<DeepPartial<OpenConsoleRequest>> {
  yield { vm };
  for (;;) {
    const input = await serial.terminal.input.take(MAX_INPUT_BYTES, signal);
    if (input === undefined) return;
    serial.terminal.resume();
    serial.activity.lastMs = performance.now();
    yield { input };
  }
}
