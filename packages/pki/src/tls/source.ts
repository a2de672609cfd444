// SPDX-License-Identifier: Apache-2.0
import { type Clock, sleep } from '@busbar/core/clock/clock';
import { BusbarError } from '@busbar/core/errors';
import type { Logger } from '@busbar/core/log';
import { readTls, stampOf, type TlsFiles } from './files.ts';
import { sameTls, type TlsMaterial, type TlsText } from './material.ts';

/** What to use for a connection that begins now, and word of each change. */
export interface TlsFeed {
  current(): TlsText;
  onChange(listener: () => void): Disposable;
}

/** One that never changes. */
export function fixedTls(text: TlsText): TlsFeed {
  return { current: () => text, onChange: () => ({ [Symbol.dispose]() {} }) };
}

/**
 * What a daemon speaks TLS with, as the files have it now: files that were replaced are used for the connections that
 * begin after it, and nothing happens to those that are open. Files that do not belong together are told, and the last ones
 * that did stay in use.
 */
export interface TlsSource extends TlsFeed {
  current(): TlsMaterial;
  /** Looks at the files now. */
  refresh(): Promise<void>;
  /** Looks at them every POLL_MS until the signal aborts. */
  run(signal: AbortSignal): Promise<void>;
}

/**
 * By looking, not by inotify: that sees neither what is mounted over a file nor a changed symlink above it, and loses events.
 * Three calls of stat(2) cost nothing, and whoever replaced a file does not wait long for the log line that says so.
 */
export const POLL_MS = 10_000;

/** Throws TLS_FILES_UNUSABLE: without a pair that fits there is nothing to fall back to. */
export async function openTlsSource(deps: {
  readonly files: TlsFiles;
  readonly clock: Clock;
  readonly logger: Logger;
}): Promise<TlsSource> {
  const { files, clock, logger } = deps;
  const listeners = new Set<() => void>();
  let stamp = await stampOf(files);
  const first = await readTls(files);
  if (!first.ok) {
    throw new BusbarError({
      kind: 'precondition',
      reason: 'TLS_FILES_UNUSABLE',
      message: first.error,
      hint: 'put certificate, key and authorities that belong together where the configuration says they are',
    });
  }
  let current = first.value;
  // It goes on all the same: an agent without controllers still keeps its VMs.
  if (hasEnded(current))
    logger.error(told(current), 'the certificate has ended: nobody will take a connection with it');
  let suspect = '';

  function hasEnded(material: TlsMaterial): boolean {
    return material.notAfter.getTime() <= clock.wallTime().getTime();
  }

  function told(material: TlsMaterial) {
    return {
      certificate: files.certificate,
      serialNumber: material.serialNumber,
      notAfter: material.notAfter.toISOString(),
    };
  }

  /** Two files are rarely replaced at one instant: what does not fit is told when it is still so the next time. */
  function complain(found: string, reason: string): void {
    if (suspect !== found) {
      suspect = found;
      return;
    }
    stamp = found;
    logger.warn(
      { ...told(current), err: reason },
      'the files of the certificate were replaced by what cannot be used; the former ones stay in use',
    );
  }

  async function refresh(): Promise<void> {
    const found = await stampOf(files);
    if (found === stamp) return;
    const read = await readTls(files);
    if (!read.ok) return complain(found, read.error);
    if (hasEnded(read.value)) return complain(found, `the certificate ended at ${read.value.notAfter.toISOString()}`);
    stamp = found;
    suspect = '';
    if (sameTls(read.value, current)) return;
    current = read.value;
    logger.info(told(current), 'a new certificate is in use');
    for (const listener of listeners) listener();
  }

  return {
    current: () => current,
    onChange(listener) {
      listeners.add(listener);
      return { [Symbol.dispose]: () => void listeners.delete(listener) };
    },
    refresh,
    async run(signal) {
      while (!signal.aborted) {
        await sleep(clock, POLL_MS, signal).catch(() => {});
        if (!signal.aborted) await refresh();
      }
    },
  };
}
