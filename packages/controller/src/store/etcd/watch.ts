// SPDX-License-Identifier: Apache-2.0
import { type Clock, sleep } from '@busbar/core/clock/clock';
import { errorChain } from '@busbar/core/errors';
import type { Revision } from '@busbar/core/ids';
import type { Logger } from '@busbar/core/log';
import type { BatchQueue } from '../batch-queue.ts';
import type { WatchEvent } from '../cluster-store.ts';
import type { Member } from './member.ts';
import { type Event, EventType, prefixRange, WATCH, type WatchResponse } from './messages.ts';
import type { MemberPool } from './pool.ts';

/** etcd answers a progress request at once: the heartbeat of a watch. */
const HEARTBEAT_MS = 500;
const SILENCE_MS = 1_600;
const RETRY_MS = 200;
const PICK_DEADLINE_MS = 3_000;
/** The watch id of an answer to a progress request. */
const NO_WATCH = -1n;

/**
 * One watch, over as many streams as it takes, each starting at the position that this class keeps.
 *
 * - A stream starts *at* the position, not behind it, and what is not newer is dropped: etcd then
 *   says "compacted" also when the position's own revision is the last one compacted away. Starting
 *   behind it, etcd 3.4 silently skips a deletion at the compacted revision.
 * - The position is taken from events and from periodic progress notices only. The header's revision
 *   runs ahead of the events while a watcher catches up; so does the answer to a progress request
 *   (before 3.4.25 and 3.5.8 it overtakes queued events), which is why it counts as a heartbeat only.
 */
export class WatchSession {
  readonly #pool: MemberPool;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #prefix: string;
  readonly #queue: BatchQueue;
  readonly #signal: AbortSignal;
  #position: Revision;
  #fragments: Event[] = [];

  constructor(options: {
    readonly pool: MemberPool;
    readonly clock: Clock;
    readonly log: Logger;
    readonly prefix: string;
    readonly after: Revision;
    readonly queue: BatchQueue;
    /** Aborts when nobody consumes the queue any more. */
    readonly signal: AbortSignal;
  }) {
    this.#pool = options.pool;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#prefix = options.prefix;
    this.#position = options.after;
    this.#queue = options.queue;
    this.#signal = options.signal;
  }

  /** Feeds the queue until it is closed or the signal aborts. Never rejects. */
  async run(): Promise<void> {
    while (!this.#queue.closed && !this.#signal.aborted) {
      let why: string;
      try {
        const member = await this.#pool.pick(this.#clock.nowMs() + PICK_DEADLINE_MS, this.#signal);
        why = await this.#follow(member);
      } catch (error) {
        why = errorChain(error);
      }
      if (this.#queue.closed || this.#signal.aborted) return;
      this.#log.info({ prefix: this.#prefix, revision: String(this.#position), why }, 'watch starts again');
      await sleep(this.#clock, RETRY_MS, this.#signal).catch(() => {});
    }
  }

  /** Reads one stream to its end and says why it ended. */
  #follow(member: Member): Promise<string> {
    return new Promise((resolve) => {
      const stream = member.stream(WATCH);
      let heardMs = this.#clock.nowMs();
      let heartbeat: Disposable;
      let finished = false;
      const finish = (why: string) => {
        if (finished) return;
        finished = true;
        heartbeat[Symbol.dispose]();
        this.#signal.removeEventListener('abort', onAbort);
        stream.cancel();
        resolve(why);
      };
      const onAbort = () => finish('aborted');
      const beat = () => {
        if (this.#clock.nowMs() - heardMs >= SILENCE_MS) {
          member.suspect();
          return finish(`${member.address} is silent`);
        }
        // What keeps calls waiting keeps events back as well.
        if (member.isSlow && this.#pool.hasQuicker(member)) return finish(`${member.address} is slow`);
        stream.write({ progress: {} });
        heartbeat = this.#clock.timer(HEARTBEAT_MS, beat);
      };
      heartbeat = this.#clock.timer(HEARTBEAT_MS, beat);
      this.#signal.addEventListener('abort', onAbort, { once: true });
      stream.on('data', (response: WatchResponse) => {
        heardMs = this.#clock.nowMs();
        member.served();
        const ended = this.#take(response);
        if (ended !== null) finish(ended);
      });
      stream.on('error', (error: Error) => {
        // Our own cancelling says nothing about the member.
        if (!finished) member.suspect();
        finish(`${member.address}: ${error.message}`);
      });
      stream.on('end', () => finish(`${member.address} ended the stream`));
      this.#fragments = [];
      stream.write({
        create: {
          ...prefixRange(this.#prefix),
          // 0 would mean "from now on".
          startRevision: this.#position > 0n ? this.#position : 1n,
          progressNotify: true,
          fragment: true,
        },
      });
    });
  }

  /** Why the stream is of no more use; null while it is. */
  #take(response: WatchResponse): string | null {
    if (response.watchId === NO_WATCH) return null;
    if (response.canceled) {
      if (response.compactRevision > 0n) this.#queue.push({ kind: 'compacted' });
      return `cancelled by etcd: ${response.cancelReason || 'compacted'}`;
    }
    if (response.created) return null;
    this.#fragments.push(...response.events);
    if (response.fragment) return null;
    const events = this.#fragments;
    this.#fragments = [];
    if (events.length > 0) this.#deliver(events);
    else this.#progress((response.header?.revision ?? 0n) as Revision);
    return this.#queue.closed ? 'nobody listens' : null;
  }

  #deliver(events: readonly Event[]): void {
    const news: WatchEvent[] = [];
    const position = this.#position;
    for (const { type, kv } of events) {
      if (kv === undefined || kv.modRevision <= position) continue;
      const modRevision = kv.modRevision as Revision;
      const { key, value } = kv;
      news.push(
        type === EventType.delete
          ? { kind: 'delete', key, modRevision }
          : { kind: 'put', kv: { key, value, createRevision: kv.createRevision as Revision, modRevision } },
      );
      this.#position = modRevision;
    }
    if (news.length > 0) this.#queue.push({ kind: 'events', revision: this.#position, events: news });
  }

  #progress(revision: Revision): void {
    if (revision > this.#position) this.#position = revision;
    this.#queue.push({ kind: 'progress', revision: this.#position });
  }
}
