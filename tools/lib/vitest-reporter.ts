// SPDX-License-Identifier: Apache-2.0
// Tells tools/test.ts what vitest does while it does it, one JSON line for each event on file descriptor 3. vitest's
// own JSON report leaves out why a test was skipped and errors outside tests, and is never written by a killed run.
import { writeSync } from 'node:fs';
import { relative } from 'node:path';
import type { Reporter, TestCase, TestModule, TestSuite } from 'vitest/node';
import { ROOT } from './process.ts';
import type { TestEvent } from './test-events.ts';

const CHANNEL_FD = 3;

function send(event: TestEvent): void {
  writeSync(CHANNEL_FD, `${JSON.stringify(event)}\n`);
}

function fileOf(entity: TestCase | TestSuite | TestModule): string {
  return relative(ROOT, entity.type === 'module' ? entity.moduleId : entity.module.moduleId);
}

function messageOf(error: unknown): string {
  const { message, stack, diff } = error as { message?: string; stack?: string; diff?: string };
  const where = stack?.split('\n').find((line) => line.includes(ROOT) && !line.includes('node_modules'));
  return [message ?? String(error), diff, where?.trim()].filter((part) => part !== undefined && part !== '').join('\n');
}

/** Tests under a suite whose set-up failed are reported by vitest as skipped; nobody skipped them. */
function setUpFailed(test: TestCase): boolean {
  for (let at: TestCase | TestSuite | TestModule = test; at.type !== 'module'; at = at.parent) {
    if (at.parent.errors().length > 0) return true;
  }
  return false;
}

export default class ChannelReporter implements Reporter {
  onTestRunStart(specifications: ReadonlyArray<{ moduleId: string }>): void {
    send({ event: 'start', files: specifications.map(({ moduleId }) => relative(ROOT, moduleId)) });
  }

  onTestCaseReady(test: TestCase): void {
    send({ event: 'running', id: test.id, name: `${fileOf(test)} > ${test.fullName}` });
  }

  onTestCaseResult(test: TestCase): void {
    const result = test.result();
    if (result.state === 'pending') return;
    const errors = result.errors?.map(messageOf) ?? [];
    send({
      event: 'test',
      id: test.id,
      file: fileOf(test),
      name: test.fullName,
      state: result.state,
      ms: test.diagnostic()?.duration ?? 0,
      message: result.state === 'skipped' ? (result.note ?? '') : errors.join('\n'),
    });
  }

  onTestSuiteResult(suite: TestSuite): void {
    this.#broken(suite, suite.fullName);
  }

  onTestModuleEnd(module: TestModule): void {
    this.#broken(module, 'the file itself');
    // Those that never got as far as having a result of their own.
    for (const test of module.children.allTests()) {
      if (test.result().state !== 'skipped' && test.result().state !== 'pending') continue;
      const message = setUpFailed(test) ? 'its set-up failed' : this.#note(test);
      send({ event: 'test', id: test.id, file: fileOf(test), name: test.fullName, state: 'skipped', ms: 0, message });
    }
    send({ event: 'file', file: fileOf(module), ms: module.diagnostic().duration });
  }

  onTestRunEnd(_modules: unknown, unhandled: ReadonlyArray<unknown>): void {
    send({ event: 'end', errors: unhandled.map(messageOf) });
  }

  #note(test: TestCase): string {
    const result = test.result();
    return (result.state === 'skipped' ? result.note : undefined) ?? '';
  }

  #broken(entity: TestSuite | TestModule, name: string): void {
    const errors = entity.errors();
    if (errors.length === 0) return;
    const message = errors.map(messageOf).join('\n');
    send({ event: 'test', id: `${entity.id}:set-up`, file: fileOf(entity), name, state: 'failed', ms: 0, message });
  }
}
