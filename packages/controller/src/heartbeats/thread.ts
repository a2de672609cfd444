// SPDX-License-Identifier: Apache-2.0
// The thread that answers heartbeats. Nothing but heartbeats is read here, so no request that anybody sends to the
// controller, and nothing that the controller does, keeps a host from its lease. It knows neither store nor leader. When it
// dies, the controller ends (thread-granting.ts); the next one begins as a granter that was just started.
import { parentPort, workerData } from 'node:worker_threads';
import { assert } from '@busbar/core/assert';
import { type Clock, systemClock } from '@busbar/core/clock/clock';
import { errorChain } from '@busbar/core/errors';
import type { Logger } from '@busbar/core/log';
import type { TlsText } from '@busbar/pki/tls/material';
import { type Boot, Granter, type Verdict } from '../lease/granter.ts';
import { HeartbeatListener } from './listener.ts';
import { type FromThread, PLACES, type PlainTls, type ThreadData, type ToThread, threadClockMs } from './protocol.ts';

/** Whether another machine was heard changes by time alone, too. */
const LOOK_EVERY_MS = 1_000;

const port = parentPort;
assert(port !== null, 'this runs as a thread');
const data = workerData as ThreadData;
const heard = new BigInt64Array(data.heard);
const clock: Clock = { ...systemClock, nowMs: threadClockMs };
const say = (message: FromThread) => port.postMessage(message);
const write =
  (level: 'debug' | 'info' | 'warn' | 'error') =>
  (fields: object, message: string): void => {
    const plain = Object.entries(fields).map(([key, value]) => [
      key,
      value instanceof Error ? errorChain(value) : value,
    ]);
    say({ kind: 'log', level, fields: Object.fromEntries(plain) as object, message });
  };
const logger: Logger = { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') };

const startedAtMs = clock.nowMs();
const granter = new Granter({ startedAtMs, leaseTtlMs: data.welcome.leaseTtlMs });
/** What the main thread was told last of each host. */
const told = new Map<string, { readonly place: number; text: string }>();

function hear(host: string, boot: Boot): Verdict {
  const verdict = granter.hear(host, boot, clock.nowMs());
  const known = told.get(host);
  if (known === undefined || verdict.kind !== 'refused') {
    const place = known?.place ?? told.size;
    if (known === undefined) told.set(host, { place, text: '' });
    if (verdict.kind !== 'refused' && place < PLACES) Atomics.store(heard, place, process.hrtime.bigint());
  }
  tell(host);
  return verdict;
}

function tell(host: string): void {
  const known = told.get(host);
  if (known === undefined) return;
  const [admitted, beside] = [granter.admitted(host), granter.beside(host, clock.nowMs())];
  const text = JSON.stringify([admitted, beside]);
  if (text === known.text) return;
  known.text = text;
  say({ kind: 'host', host, place: known.place, admitted, beside });
}

const textOf = ({ ca, certificate, key }: PlainTls): TlsText => ({
  ca: Buffer.from(ca),
  certificate: Buffer.from(certificate),
  key: Buffer.from(key),
});
const listener = new HeartbeatListener({ ...data, tls: textOf(data.tls), hear, clock, logger });
const looking = setInterval(() => {
  for (const host of told.keys()) tell(host);
}, LOOK_EVERY_MS);

port.on('message', (message: ToThread) => {
  switch (message.kind) {
    case 'hear':
      say({ kind: 'verdict', id: message.id, verdict: hear(message.host, message.boot) });
      break;
    case 'tls':
      listener.setTls(textOf(message.tls));
      break;
    case 'certificates':
      listener.replace(message.replaced);
      listener.revoke(message.revoked);
      break;
    case 'close':
      clearInterval(looking);
      listener.close();
      port.close();
      break;
  }
});
const listening = await listener.listen(data.address);
say({ kind: 'listening', port: listening, startedAtMs });
