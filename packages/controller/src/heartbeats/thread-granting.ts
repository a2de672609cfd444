// SPDX-License-Identifier: Apache-2.0
import { Worker } from 'node:worker_threads';
import { type Clock, withDeadline } from '@busbar/core/clock/clock';
import type { Logger } from '@busbar/core/log';
import type { TlsFeed } from '@busbar/pki/tls/source';
import type { Welcome } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { type Boot, LISTENED_MS, type Verdict } from '../lease/granter.ts';
import type { Granting } from '../lease/granting.ts';
import {
  type CertificateNews,
  type FromThread,
  PLACES,
  type PlainTls,
  type ThreadData,
  type ToThread,
  threadClockMs,
} from './protocol.ts';

/** The thread answers in microseconds; one that takes this long is stuck, and an agent asks again. */
const ANSWER_DEADLINE_MS = 2_000;

export interface ThreadGranting extends Granting {
  /** Resolves with the port when heartbeats are answered. */
  readonly listening: Promise<number>;
  /** What was told before stays so. */
  tell(news: CertificateNews): void;
  close(): Promise<void>;
}

/** The main thread's side: what it knows of hosts is what the thread told it, and what it reads in the memory that both share. */
export function threadGranting(deps: {
  readonly cluster: string;
  readonly welcome: Welcome;
  /** Where heartbeats are answered. */
  readonly address: string;
  readonly tls: TlsFeed;
  readonly clock: Clock;
  readonly logger: Logger;
  /** It died: nobody's heartbeats are answered. Told once, and not after `close`. */
  readonly onDeath: (why: Error) => void;
}): ThreadGranting {
  const { clock, logger } = deps;
  const shared = new SharedArrayBuffer(PLACES * BigInt64Array.BYTES_PER_ELEMENT);
  const heard = new BigInt64Array(shared);
  const { cluster, welcome, address } = deps;
  const workerData: ThreadData = { cluster, welcome, address, tls: plain(deps.tls), heard: shared };
  const worker = new Worker(new URL('./thread.ts', import.meta.url), { workerData });
  /** Added to the threads' clock, it gives ours. */
  const offsetMs = clock.nowMs() - threadClockMs();
  const hosts = new Map<string, FromThread & { readonly kind: 'host' }>();
  const waiting = new Map<number, (verdict: Verdict) => void>();
  let startedAtMs = Number.POSITIVE_INFINITY;
  let nextId = 0;
  let closing = false;

  const order = (message: ToThread) => worker.postMessage(message);
  const ask = (host: string, boot: Boot, answer: (verdict: Verdict) => void): number => {
    const id = nextId++;
    waiting.set(id, answer);
    order({ kind: 'hear', id, host, boot });
    return id;
  };
  const renewed = deps.tls.onChange(() => order({ kind: 'tls', tls: plain(deps.tls) }));

  const listening = new Promise<number>((resolve, reject) => {
    const died = (error: Error) => {
      if (closing) return;
      closing = true;
      reject(error);
      deps.onDeath(error);
    };
    worker.on('error', died);
    worker.on('exit', (code) => died(new Error(`the thread that answers heartbeats ended with ${code}`)));
    worker.on('message', (message: FromThread) => {
      switch (message.kind) {
        case 'listening':
          startedAtMs = message.startedAtMs + offsetMs;
          resolve(message.port);
          break;
        case 'verdict':
          waiting.get(message.id)?.(message.verdict);
          waiting.delete(message.id);
          break;
        case 'host':
          hosts.set(message.host, message);
          break;
        case 'log':
          logger[message.level](message.fields, message.message);
          break;
      }
    });
  });
  // Whoever starts it waits for it; a rejection that nobody waits for is told by `onDeath`.
  listening.catch(() => {});

  return {
    listening,
    async claim(host, boot) {
      let id = -1;
      const answered = () => new Promise<Verdict>((resolve) => (id = ask(host, boot, resolve)));
      try {
        return await withDeadline(clock, ANSWER_DEADLINE_MS, 'the thread that answers heartbeats', answered);
      } finally {
        waiting.delete(id);
      }
    },
    beat(host, boot, answer) {
      ask(host, boot, answer);
    },
    seen(host) {
      const known = hosts.get(host);
      const atNs = known === undefined || known.place >= PLACES ? 0n : Atomics.load(heard, known.place);
      return {
        admitted: known?.admitted ?? null,
        beside: known?.beside ?? [],
        heardMs: atNs === 0n ? Number.NEGATIVE_INFINITY : Number(atNs) / 1e6 + offsetMs,
        hasListened: clock.nowMs() - startedAtMs >= LISTENED_MS,
      };
    },
    tell: (news) => order({ kind: 'certificates', ...news }),
    async close() {
      closing = true;
      renewed[Symbol.dispose]();
      order({ kind: 'close' });
      await worker.terminate();
    },
  };
}

function plain(tls: TlsFeed): PlainTls {
  const { ca, certificate, key } = tls.current();
  return { ca: Buffer.from(ca), certificate: Buffer.from(certificate), key: Buffer.from(key) };
}
