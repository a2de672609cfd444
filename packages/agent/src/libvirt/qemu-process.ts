// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { readdir, readFile, readlink } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { type Clock, sleep } from '@busbar/core/clock/clock';
import type { VmId } from '@busbar/core/ids';

/** The kernel frees a killed QEMU's memory; gigabytes of it take a while. */
const POLL_MS = 20;

export interface QemuProcess {
  readonly pid: number;
  /** In clock ticks since boot: tells a process from a later one of the same id. */
  readonly startTime: string;
}

/**
 * QEMU processes, found without libvirt: for when it does not answer, and to be sure that what it
 * calls gone is gone. A process counts when it is a QEMU by its name and by its command line, its `-uuid` is the VM's, and it is in the
 * host's own network namespace: simulated hosts share one process table.
 */
export class QemuProcesses {
  readonly #procRoot: string;
  readonly #netNamespace: string;
  readonly #clock: Clock;

  constructor(clock: Clock, options: { readonly procRoot?: string; readonly netNamespace?: string } = {}) {
    this.#clock = clock;
    this.#procRoot = options.procRoot ?? '/proc';
    this.#netNamespace = options.netNamespace ?? join(this.#procRoot, 'self/ns/net');
  }

  async find(vmId: VmId): Promise<QemuProcess[]> {
    return (await this.#scan(new Set([vmId]))).map(({ qemu }) => qemu);
  }

  /** Those of these VMs that have one: one scan, however many they are. */
  async which(vmIds: readonly VmId[]): Promise<ReadonlySet<VmId>> {
    if (vmIds.length === 0) return new Set();
    return new Set((await this.#scan(new Set(vmIds))).map(({ vmId }) => vmId));
  }

  /** Rejects when a process cannot be looked at: whoever hears that there is none may start the VM elsewhere. */
  async #scan(vmIds: ReadonlySet<string>): Promise<{ readonly vmId: VmId; readonly qemu: QemuProcess }[]> {
    const home = await readlink(this.#netNamespace);
    const found: { readonly vmId: VmId; readonly qemu: QemuProcess }[] = [];
    for (const entry of await readdir(this.#procRoot)) {
      if (!/^\d+$/.test(entry) || !this.#calledQemu(entry)) continue;
      const pid = Number(entry);
      const vmId = await this.#vmOf(pid);
      if (vmId === undefined || !vmIds.has(vmId)) continue;
      const startTime = await this.#startTime(pid);
      if (startTime === null) continue;
      if ((await unlessGone(readlink(join(this.#procRoot, entry, 'ns/net')))) !== home) continue;
      found.push({ vmId: vmId as VmId, qemu: { pid, startTime } });
    }
    return found;
  }

  /** Kills and waits until it is dead; false when it is not within the deadline (stuck in the kernel). */
  async kill(process_: QemuProcess, deadlineMs: number): Promise<boolean> {
    if (!(await this.#isAlive(process_))) return true;
    try {
      process.kill(process_.pid, 'SIGKILL');
    } catch {
      // It ended by itself.
    }
    const untilMs = this.#clock.nowMs() + deadlineMs;
    while (await this.#isAlive(process_)) {
      if (this.#clock.nowMs() >= untilMs) return false;
      await sleep(this.#clock, POLL_MS);
    }
    return true;
  }

  /**
   * The kernel's name of the process, set with its program: up to 15 letters of the file's name. Read at once, since a trip
   * through libuv's threads for each process on the host took 25 ms of every start; and unlike the command line, whose
   * reading waits for a lock of that process, this comes from the kernel's own memory and cannot hang.
   */
  #calledQemu(entry: string): boolean {
    try {
      return readFileSync(join(this.#procRoot, entry, 'comm'), 'latin1').includes('qemu');
    } catch (error) {
      if (isGone(error)) return false;
      throw error;
    }
  }

  async #vmOf(pid: number): Promise<string | undefined> {
    const argv = (await this.#read(pid, 'cmdline')).split('\0');
    if (!basename(argv[0] ?? '').includes('qemu')) return undefined;
    const at = argv.indexOf('-uuid');
    return at > 0 ? argv[at + 1]?.toLowerCase() : undefined;
  }

  async #isAlive({ pid, startTime }: QemuProcess): Promise<boolean> {
    return (await this.#startTime(pid)) === startTime;
  }

  /** null when there is no such process, or only its zombie. */
  async #startTime(pid: number): Promise<string | null> {
    const text = await this.#read(pid, 'stat');
    // The command's name may hold spaces and parentheses; the fields after it do not.
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    const state = fields[0] ?? '';
    if (state === '' || state === 'Z' || state === 'X') return null;
    return fields[19] ?? null;
  }

  #read(pid: number, file: string): Promise<string> {
    return unlessGone(readFile(join(this.#procRoot, String(pid), file), 'latin1'));
  }
}

/** Empty when the process ended meanwhile; any other failure (no file handle left, say) proves nothing. */
async function unlessGone(read: Promise<string>): Promise<string> {
  try {
    return await read;
  } catch (error) {
    if (isGone(error)) return '';
    throw error;
  }
}

function isGone(error: unknown): boolean {
  return ['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '');
}
