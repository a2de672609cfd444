// SPDX-License-Identifier: Apache-2.0
import type { Revision } from '@busbar/core/ids';
import { ChangeKind } from '@busbar/proto/gen/busbar/v1/common';
import type { Kind } from '../records/kinds.ts';
import type { Api, Call } from './call.ts';
import type { SharedMessages } from './shared-messages.ts';

/**
 * A watch stream over the view. It never queues events: it remembers up to which revision it has sent, and when the
 * reader is ready for more, sends the present state of whatever changed since. A slow reader thus costs no memory and
 * sees fewer intermediate states; one that is so slow that the history is gone gets RESYNC.
 */
export interface WatchSource<Resource, Message> {
  /** Record kinds that make up the resource; all share its id. */
  readonly kinds: readonly Kind[];
  readonly ids: () => Iterable<string>;
  readonly present: (id: string) => Resource | null;
  readonly put: (resource: Resource) => Omit<Message, 'progress'>;
  /** Null when that is nothing to tell. */
  readonly gone: (id: string, name: string) => Omit<Message, 'progress'> | null;
  readonly mark: (change: ChangeKind, progress: { readonly revision: bigint }) => Message;
  /**
   * Of all watchers that are to see the same: where messages depend on nothing but the view's records. Null where they also
   * depend on the caller's filter, or on live data.
   */
  readonly shared: SharedMessages<Message> | null;
}

/** An idle stream says how far it is at least this often, so that a resumed watch need not replay hours. */
const PROGRESS_EVERY_MS = 10_000;
/** Records read between two turns of the event loop: some 3 ms of work. */
const READ_AT_ONCE = 300;

export async function* watchTable<Resource, Message>(
  api: Api,
  call: Call,
  after: bigint,
  source: WatchSource<Resource, Message>,
): AsyncIterable<Message> {
  await api.view.fresh();
  const bell = new Bell(api, call);
  const { era } = api.view.changes;
  try {
    let sent = after as Revision;
    let toldMs = api.clock.nowMs();
    if (after === 0n) {
      const listed = api.view.revision;
      let read = 0;
      for (const id of [...source.ids()]) {
        // A filter may leave out most of them.
        if (++read % READ_AT_ONCE === 0) await api.clock.turn();
        const resource = source.present(id);
        // Whoever is cut off within the list has to begin it again.
        if (resource !== null) yield message(source.put(resource), 0n);
      }
      sent = listed;
      yield source.mark(ChangeKind.PROGRESS, { revision: sent });
    }
    while (!bell.over) {
      const changes = api.view.changes.era === era ? api.view.changes.since(sent) : null;
      if (changes === null) {
        yield source.mark(ChangeKind.RESYNC, { revision: 0n });
        return;
      }
      const upTo = api.view.revision;
      const touched = new Map<string, string | null>();
      for (const change of changes) {
        if (source.kinds.includes(change.kind)) {
          const goneName = change.gone?.name || touched.get(change.id) || null;
          touched.set(change.id, goneName);
        }
      }
      // "Everything up to here has been sent" is true of the last message of a round alone, so one is held back.
      let last: { readonly id: string; readonly part: () => Omit<Message, 'progress'> } | null = null;
      const finished = ({ id, part }: NonNullable<typeof last>, revision: bigint): Message => {
        const make = () => message(part(), revision);
        return source.shared === null ? make() : source.shared.of(`${id} ${upTo} ${revision}`, make);
      };
      for (const [id, goneName] of touched) {
        const next = partOf(source, id, goneName ?? '');
        if (next === null) continue;
        if (last !== null) yield finished(last, sent);
        last = { id, part: next };
      }
      if (last !== null) yield finished(last, upTo);
      sent = upTo;
      const now = api.clock.nowMs();
      if (last === null && now - toldMs >= PROGRESS_EVERY_MS) {
        yield source.mark(ChangeKind.PROGRESS, { revision: sent });
        toldMs = now;
      } else if (last !== null) toldMs = now;
      await bell.rung(PROGRESS_EVERY_MS - (now - toldMs));
    }
  } finally {
    bell[Symbol.dispose]();
  }
}

/** What to tell of a resource that changed, to be built when it is told; null when that is nothing. */
function partOf<Resource, Message>(
  source: WatchSource<Resource, Message>,
  id: string,
  goneName: string,
): (() => Omit<Message, 'progress'>) | null {
  if (source.shared !== null) {
    // Shared sources tell of everything: nothing needs to be built to know that.
    return () => {
      const resource = source.present(id);
      return resource !== null ? source.put(resource) : (source.gone(id, goneName) as Omit<Message, 'progress'>);
    };
  }
  const resource = source.present(id);
  const part = resource !== null ? source.put(resource) : source.gone(id, goneName);
  return part === null ? null : () => part;
}

function message<Message>(partial: Omit<Message, 'progress'>, revision: bigint): Message {
  return { ...partial, progress: { revision } } as Message;
}

/** Remembers a change that came while nobody waited. Rung for each change and watcher: it asks the signal nothing. */
class Bell {
  readonly #clock: Api['clock'];
  readonly #subscription: Disposable;
  readonly #signal: AbortSignal;
  #pending = false;
  #over: boolean;
  #wake = () => {};

  constructor(api: Api, { signal, arrival }: Call) {
    this.#clock = api.clock;
    this.#signal = signal;
    this.#over = signal.aborted;
    signal.addEventListener('abort', this.#end, { once: true });
    this.#subscription = api.view.bells.add(arrival.connection, () => {
      this.#pending = true;
      this.#wake();
    });
  }

  /** The caller hung up. */
  get over(): boolean {
    return this.#over;
  }

  /** Returns when something changed, `timeoutMs` passed or the caller hung up. */
  async rung(timeoutMs: number): Promise<void> {
    if (!this.#pending && !this.#over) {
      await new Promise<void>((resolve) => {
        this.#wake = () => {
          timer[Symbol.dispose]();
          resolve();
        };
        const timer = this.#clock.timer(timeoutMs, resolve);
      });
    }
    this.#pending = false;
  }

  [Symbol.dispose](): void {
    this.#signal.removeEventListener('abort', this.#end);
    this.#subscription[Symbol.dispose]();
  }

  #end = (): void => {
    this.#over = true;
    this.#wake();
  };
}
