// SPDX-License-Identifier: Apache-2.0
import { CHILD_CODES, LibvirtError, toLibvirtError, VIR_ERR } from './errors.ts';
import type { EventHandlers } from './events.ts';
import type { ConnectPtr } from './handles.ts';
import { LANE_WIDTHS, type LaneName } from './methods.ts';
import { decodeError, type Libvirt, type RawError } from './signatures.ts';

/** 1 s × 3: a frozen daemon is noticed after 4 s, and every call on its connections returns. */
const KEEPALIVE = { intervalSeconds: 1, count: 3 } as const;

/** Calls that hang for good, each with a thread of the pool; beyond, a new process is better than fewer threads. */
const ABANDONED_LIMIT = 8;

interface Slot {
  conn: Promise<ConnectPtr>;
  busy: boolean;
}

/** What a session needs of the process around it. */
export interface SessionEnvironment {
  readonly libvirt: Libvirt;
  readonly handlers: EventHandlers;
  /** The newest error that libvirt told of, whoever caused it: the only way to learn why opening failed. */
  readonly lastError: () => RawError | null;
}

/**
 * The connections of all lanes. It never heals: when one connection ends, all are dropped and the
 * parent asks for a new session, because what was missed meanwhile has to be listed anyway.
 *
 * A call that hangs (QEMU frozen, its libvirt job held) does not take the others with it: its
 * connection is given up and replaced.
 */
export class Session {
  readonly #env: SessionEnvironment;
  readonly #uri: string;
  readonly #lanes = new Map<LaneName, Slot[]>();
  readonly #conns = new Set<ConnectPtr>();
  #abandoned = 0;
  #closed = false;

  private constructor(env: SessionEnvironment, uri: string) {
    this.#env = env;
    this.#uri = uri;
  }

  static async open(env: SessionEnvironment, uri: string, untilNs: bigint): Promise<Session> {
    const session = new Session(env, uri);
    const opened = session.#openAll();
    try {
      await beforeDeadline(opened, untilNs, 'connect');
    } catch (error) {
      session.close();
      throw error;
    }
    return session;
  }

  owns(conn: ConnectPtr): boolean {
    return this.#conns.has(conn);
  }

  /** Runs `work` on a connection of its own. `work` makes one call at a time. */
  async run<T>(lane: LaneName, untilNs: bigint, what: string, work: (conn: ConnectPtr) => Promise<T>): Promise<T> {
    if (this.#closed) throw new LibvirtError('the connection was closed', CHILD_CODES.connectionLost);
    const slots = this.#lanes.get(lane) ?? [];
    const slot = slots.find(({ busy }) => !busy);
    if (slot === undefined) throw new Error(`lane ${lane} has no free connection`);
    slot.busy = true;
    let conn: ConnectPtr | null = null;
    const done = (async () => {
      conn = await slot.conn;
      this.#env.libvirt.virConnResetLastError(conn);
      return await work(conn);
    })();
    try {
      const value = await beforeDeadline(done, untilNs, what);
      slot.busy = false;
      return value;
    } catch (error) {
      if (isSoftDeadline(error) && conn !== null && !this.#closed) this.#abandon(slot, conn, done);
      slot.busy = false;
      throw this.#closed && !isSoftDeadline(error)
        ? new LibvirtError((error as Error).message, CHILD_CODES.connectionLost)
        : error;
    } finally {
      if (this.#closed) void this.#releaseAfter(done, slot.conn);
    }
  }

  /** Why the last call on this connection failed. */
  failure(conn: ConnectPtr, what: string): LibvirtError {
    const error = this.#env.libvirt.virConnGetLastError(conn);
    return toLibvirtError(what, error === null ? null : decodeError(error));
  }

  /** Lets go of every connection; those with a call in flight follow when it returned. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const busy = new Set<Promise<ConnectPtr>>();
    for (const slots of this.#lanes.values()) {
      for (const slot of slots) if (slot.busy) busy.add(slot.conn);
    }
    void (async () => {
      const inUse = new Set(await Promise.all(busy).catch(() => []));
      for (const conn of [...this.#conns]) if (!inUse.has(conn)) void this.#release(conn);
    })();
  }

  async #openAll(): Promise<void> {
    const { libvirt, handlers } = this.#env;
    const events = await this.#open();
    for (const { id, callback } of handlers.domain) {
      if ((await libvirt.virConnectDomainEventRegisterAny(events, null, id, callback, null, null)) < 0) {
        throw this.failure(events, 'registering for events');
      }
    }
    for (const [lane, width] of Object.entries(LANE_WIDTHS) as [LaneName, number][]) {
      const slots: Slot[] = [];
      for (let n = 0; n < width; n++) slots.push({ conn: Promise.resolve(await this.#open()), busy: false });
      this.#lanes.set(lane, slots);
    }
  }

  async #open(): Promise<ConnectPtr> {
    const { libvirt, handlers, lastError } = this.#env;
    const conn = await libvirt.virConnectOpen(this.#uri);
    if (conn === null) throw toLibvirtError('connecting', lastError());
    this.#conns.add(conn);
    if (this.#closed) {
      void this.#release(conn);
      throw new LibvirtError('the session was closed', CHILD_CODES.connectionLost);
    }
    if ((await libvirt.virConnectRegisterCloseCallback(conn, handlers.close, null, null)) < 0) {
      throw this.failure(conn, 'registering for the end of the connection');
    }
    if ((await libvirt.virConnectSetKeepAlive(conn, KEEPALIVE.intervalSeconds, KEEPALIVE.count)) < 0) {
      const error = this.failure(conn, 'setting keepalive');
      // The test driver lives in our own process.
      if (error.code !== VIR_ERR.noSupport) throw error;
    }
    return conn;
  }

  #abandon(slot: Slot, conn: ConnectPtr, done: Promise<unknown>): void {
    if (++this.#abandoned > ABANDONED_LIMIT) {
      setImmediate(() => {
        throw new Error(`${this.#abandoned} libvirt calls hang`);
      });
      return;
    }
    const over = () => {
      this.#abandoned--;
      void this.#release(conn);
    };
    done.then(over, over);
    slot.conn = this.#open();
    // Reported by the next call on this slot.
    slot.conn.catch(() => {});
  }

  /** A connection must outlive the call on it: libvirt frees it with the last reference. */
  async #releaseAfter(call: Promise<unknown>, connecting: Promise<ConnectPtr>): Promise<void> {
    await call.catch(() => {});
    const conn = await connecting.catch(() => null);
    if (conn !== null) await this.#release(conn);
  }

  /** The close callback holds a reference of its own, so it goes first. Fails silently on a dead connection. */
  async #release(conn: ConnectPtr): Promise<void> {
    if (!this.#conns.delete(conn)) return;
    const { libvirt, handlers } = this.#env;
    await libvirt.virConnectUnregisterCloseCallback(conn, handlers.close);
    await libvirt.virConnectClose(conn);
  }
}

function isSoftDeadline(error: unknown): boolean {
  return error instanceof LibvirtError && error.code === CHILD_CODES.softDeadline;
}

async function beforeDeadline<T>(work: Promise<T>, untilNs: bigint, what: string): Promise<T> {
  const remainingMs = Number((untilNs - process.hrtime.bigint()) / 1_000_000n);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new LibvirtError(`libvirt did not ${what} in time`, CHILD_CODES.softDeadline)),
      Math.max(0, remainingMs),
    );
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
