// SPDX-License-Identifier: Apache-2.0
/**
 * Lets at most `concurrency` jobs run at once and keeps at most `queueLimit` waiting.
 *
 * Lanes live in the parent and not in the child, because only here a job that is still waiting when
 * its deadline passes can be dropped without killing the child under the jobs that run.
 */
export interface LaneConfig {
  readonly concurrency: number;
  readonly queueLimit: number;
}

export class Lane<J> {
  readonly #config: LaneConfig;
  readonly #start: (job: J) => void;
  readonly #waiting: J[] = [];
  #running = 0;
  #open = false;

  constructor(config: LaneConfig, start: (job: J) => void) {
    this.#config = config;
    this.#start = start;
  }

  /** False when the queue is full; the job was not taken. */
  offer(job: J): boolean {
    if (this.#waiting.length >= this.#config.queueLimit && !(this.#open && this.#free())) return false;
    this.#waiting.push(job);
    this.#pump();
    return true;
  }

  /** Takes a job that has not started out of the queue; false when it is not there. */
  drop(job: J): boolean {
    const index = this.#waiting.indexOf(job);
    if (index < 0) return false;
    this.#waiting.splice(index, 1);
    return true;
  }

  /** A running job ended. */
  done(): void {
    this.#running--;
    this.#pump();
  }

  /** Jobs start from now on. */
  open(): void {
    this.#open = true;
    this.#pump();
  }

  /** Nothing runs any longer (the child is gone) and nothing starts until `open`; waiting jobs stay. */
  shut(): void {
    this.#open = false;
    this.#running = 0;
  }

  get waiting(): readonly J[] {
    return this.#waiting;
  }

  #free(): boolean {
    return this.#running < this.#config.concurrency;
  }

  #pump(): void {
    while (this.#open && this.#free()) {
      const job = this.#waiting.shift();
      if (job === undefined) return;
      this.#running++;
      this.#start(job);
    }
  }
}
