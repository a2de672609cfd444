// SPDX-License-Identifier: Apache-2.0
import type { Revision } from '@busbar/core/ids';
import type { Kind } from '../records/kinds.ts';

/** A record changed; the view holds what it is now. `gone` keeps the name of a deleted one. */
export interface Change {
  readonly kind: Kind;
  readonly id: string;
  readonly revision: Revision;
  readonly gone: { readonly name: string } | null;
}

/** Changes kept for watchers that resume. At 200 bytes each this is 2 MB, and hours of an OT cluster's life. */
const KEPT_CHANGES = 10_000;

/** The recent history of the view, and the bell that wakes reconcilers and watchers. */
export class ChangeLog {
  #kept: Change[] = [];
  /** Changes up to and including this revision may be missing from `#kept`. */
  #forgottenUpTo = 0n as Revision;
  /** The newest revision that the view has stood at. */
  #upTo = 0n as Revision;
  #era = 0;
  #first = true;
  #pending = 0;
  readonly #listeners = new Set<() => void>();

  add(change: Change): void {
    this.#kept.push(change);
    this.#pending++;
    if (this.#kept.length > KEPT_CHANGES) {
      // Half at a time, so that the cost of moving the array is spread.
      const dropped = this.#kept.splice(0, KEPT_CHANGES / 2);
      this.#forgottenUpTo = dropped.reduce(
        (max, old) => (old.revision > max ? old.revision : max),
        this.#forgottenUpTo,
      );
    }
  }

  /** Called when the view stands at `revision`: wakes the listeners when anything was added. */
  flush(revision: Revision): void {
    this.#upTo = revision;
    if (this.#first) {
      // What the first listing brought is state, not history.
      this.#first = false;
      this.#kept = [];
      this.#forgottenUpTo = revision;
    }
    if (this.#pending === 0) return;
    this.#pending = 0;
    for (const listener of [...this.#listeners]) listener();
  }

  /** Counts how often history began anew. Revisions of different eras cannot be compared. */
  get era(): number {
    return this.#era;
  }

  /** The store went back in time (restored from a backup): what follows is another history. */
  restart(): void {
    this.#era++;
    this.#first = true;
    this.#pending++;
  }

  /** The changes after `revision` in order; null when they are not all known (forgotten, or not of this history). */
  since(revision: Revision): readonly Change[] | null {
    if (revision < this.#forgottenUpTo || revision > this.#upTo) return null;
    let start = this.#kept.length;
    while (start > 0 && (this.#kept[start - 1] as Change).revision > revision) start--;
    return this.#kept.slice(start);
  }

  onFlush(listener: () => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
  }
}
