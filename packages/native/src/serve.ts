// SPDX-License-Identifier: Apache-2.0
import { writeSync } from 'node:fs';
import { errorChain } from '@busbar/core/errors';
import { toWire } from './errors.ts';
import type { MethodTable, ToChild, ToParent } from './protocol.ts';

/** Events that may wait for the parent to read them; more are dropped and counted. */
const EVENT_BACKLOG = 1024;

export interface ChildContext<E> {
  /**
   * Pushes an event to the parent. When the parent reads too slowly the event is dropped, and the
   * parent is told how many were lost as soon as it reads again: events are hints, it lists anew.
   */
  emit(event: E): void;
  /** Runs at `close` before the process ends, e.g. rados_shutdown. It has the parent's grace time. */
  onClose(hook: () => Promise<void> | void): void;
}

/**
 * The child side: answers calls until the parent closes it or dies.
 *
 * The process always ends by SIGKILL to itself. `process.exit()` joins the thread pool, so one
 * native call that never returns would keep the process, its memory and its library's sessions for
 * ever (measured with koffi 3.3).
 */
export function serveNative<M extends MethodTable<M>, E = never>(
  setup: (context: ChildContext<E>) => M | Promise<M>,
): void {
  const hooks: (() => Promise<void> | void)[] = [];
  let backlog = 0;
  let lost = 0;

  const post = (message: ToParent, written?: () => void) => {
    // No callback given means Node would throw 'channel closed' as an 'error' event instead.
    process.send?.(message, undefined, undefined, () => written?.());
  };
  const reportLost = () => {
    if (lost === 0 || backlog >= EVENT_BACKLOG / 2) return;
    const count = lost;
    lost = 0;
    post({ t: 'lost', count });
  };
  const context: ChildContext<E> = {
    emit(event) {
      if (backlog >= EVENT_BACKLOG || lost > 0) {
        lost++;
        return;
      }
      backlog++;
      post({ t: 'event', event }, () => {
        backlog--;
        reportLost();
      });
    },
    onClose: (hook) => hooks.push(hook),
  };

  // The parent decides when we end: a terminal's Ctrl-C and systemd's stop reach the whole group.
  process.on('SIGINT', () => {});
  process.on('SIGTERM', () => {});
  process.on('disconnect', die);
  process.on('uncaughtException', (error) => {
    // The chain last: the parent tells the last line as the reason of the exit.
    if (error instanceof Error) complain(error.stack ?? '');
    complain(errorChain(error));
    die();
  });

  let methods: M | null = null;
  process.on('message', (message: ToChild) => {
    switch (message.t) {
      case 'close':
        void runHooks(hooks).finally(die);
        return;
      case 'call':
        void answer(methods, message, post);
        return;
    }
  });

  Promise.resolve()
    .then(() => setup(context))
    .then(
      (table) => {
        methods = table;
        post({ t: 'ready' });
      },
      (error: unknown) => post({ t: 'broken', error: toWire(error) }, die),
    );
}

async function answer<M extends MethodTable<M>>(
  methods: M | null,
  call: Extract<ToChild, { t: 'call' }>,
  post: (message: ToParent) => void,
): Promise<void> {
  try {
    const table = methods as Readonly<Record<string, (args: unknown) => unknown>> | null;
    const method = table !== null && Object.hasOwn(table, call.method) ? table[call.method] : undefined;
    if (method === undefined) throw new Error(`no native method "${call.method}"`);
    const value = await method(call.args);
    post({ t: 'ok', id: call.id, value });
  } catch (error) {
    // Also when the value cannot be cloned.
    post({ t: 'fail', id: call.id, error: toWire(error) });
  }
}

async function runHooks(hooks: readonly (() => Promise<void> | void)[]): Promise<void> {
  for (const hook of hooks.toReversed()) {
    try {
      await hook();
    } catch (error) {
      complain(`on close: ${errorChain(error)}`);
    }
  }
}

/** Synchronous, because we are about to kill ourselves. */
function complain(text: string): void {
  try {
    writeSync(2, `${text}\n`);
  } catch {
    // The parent is gone or its pipe is full; there is nobody to tell.
  }
}

function die(): void {
  process.kill(process.pid, 'SIGKILL');
}
