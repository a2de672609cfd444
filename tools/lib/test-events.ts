// SPDX-License-Identifier: Apache-2.0
// What happened in one run of vitest, gathered from the events of lib/vitest-reporter.ts. Pure.

export type TestEvent =
  | { readonly event: 'start'; readonly files: readonly string[] }
  | { readonly event: 'running'; readonly id: string; readonly name: string }
  | ({ readonly event: 'test'; readonly id: string } & TestOutcome)
  | { readonly event: 'file'; readonly file: string; readonly ms: number }
  | { readonly event: 'end'; readonly errors: readonly string[] };

export interface TestOutcome {
  readonly file: string;
  readonly name: string;
  readonly state: 'passed' | 'failed' | 'skipped';
  readonly ms: number;
  /** Failed: the errors. Skipped: why. */
  readonly message: string;
}

export class TestRun {
  readonly files = new Set<string>();
  readonly #outcomes = new Map<string, TestOutcome>();
  readonly #running = new Map<string, string>();
  #ended = false;

  take(event: TestEvent): void {
    switch (event.event) {
      case 'start':
        for (const file of event.files) this.files.add(file);
        return;
      case 'running':
        this.#running.set(event.id, event.name);
        return;
      case 'test': {
        const { event: _, id, ...outcome } = event;
        this.#running.delete(id);
        this.#outcomes.set(id, outcome);
        return;
      }
      case 'file':
        return;
      case 'end':
        this.#ended = true;
        event.errors.forEach((message, index) => {
          this.#outcomes.set(`error ${index}`, {
            file: '',
            name: 'error outside any test',
            state: 'failed',
            ms: 0,
            message,
          });
        });
        return;
    }
  }

  /** All that counts, `how` being the way in which vitest itself ended. */
  conclude(stage: string, process: { readonly ok: boolean; readonly how: string }): readonly TestOutcome[] {
    const outcomes = [...this.#outcomes.values()];
    const broken = (name: string, message: string): void =>
      void outcomes.push({ file: '', name: `${stage}: ${name}`, state: 'failed', ms: 0, message });
    if (!this.#ended) {
      const during = [...this.#running.values()];
      broken('did not finish', `${process.how}${during.length === 0 ? '' : ` while running:\n${during.join('\n')}`}`);
    } else if (!process.ok && !outcomes.some(({ state }) => state === 'failed')) {
      broken('vitest failed', `${process.how}, with no failed test to show for it`);
    }
    if (this.#ended && this.files.size > 0 && !outcomes.some(({ state }) => state !== 'skipped')) {
      broken('no test ran', `${this.files.size} files, every test skipped or none in them`);
    }
    return outcomes;
  }
}
