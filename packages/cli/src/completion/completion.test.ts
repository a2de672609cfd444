// SPDX-License-Identifier: Apache-2.0
/** What `busbar __complete` answers. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { startLab, type TestLab } from '../testing/cli.ts';
import { splitWords } from './words.ts';

vi.setConfig({ testTimeout: 60_000 });

let lab: TestLab;
beforeEach(async () => {
  lab = await startLab();
  lab.cluster.addHost('host1', 1);
  for (const name of ['web-1', 'web-2', 'db']) {
    await lab.cli('vm', 'create', name, '--vcpus', '1', '--memory', '64MiB');
  }
});
afterEach(() => lab.end());

/** Values, and the directive. */
async function complete(...words: string[]): Promise<{ values: string[]; directive: string }> {
  const { code, stdout, stderr } = await lab.cli('__complete', 'zsh', '--', ...words);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const lines = stdout.trimEnd().split('\n');
  return { values: lines.slice(0, -1).map((line) => line.split('\t')[0] ?? ''), directive: lines.at(-1) ?? '' };
}

describe('what can stand at the cursor', () => {
  test.each<[string[], string[], string?]>([
    [['vo'], ['volume']],
    [['vm', 'sta'], ['start']],
    [['vms', 'res'], ['restart']],
    [
      ['vm', 'stop', ''],
      ['web-1', 'web-2', 'db'],
    ],
    [
      ['vm', 'stop', '--force', 'web'],
      ['web-1', 'web-2'],
    ],
    [['vm', 'stop', 'web-1', ''], []],
    [['vm', 'get', 'web-1', '--fo'], []],
    [['vm', 'stop', '--fo'], ['--force']],
    [['vm', 'stop', '--force', '--fo'], []],
    [['vm', 'list', '--host', ''], ['host1']],
    [['vm', 'list', '--host=h'], ['--host=host1']],
    [
      ['-o', 'js'],
      ['json', 'jsonl'],
    ],
    [['vm', 'list', '--output', 'y'], ['yaml']],
    [['vm', 'list', '--columns', 'name,ph'], ['name,phase']],
    [
      ['vm', 'list', '--sort', '-me'],
      ['-memory', '-message'],
    ],
    [['vm', 'list', '--filter', 'ph'], ['phase='], ':nospace'],
    [
      ['vm', 'list', '--filter', 'name=x,phase=st'],
      ['name=x,phase=stopped', 'name=x,phase=starting', 'name=x,phase=stopping'],
    ],
    [['wait', 'v'], ['vm/', 'volume/'], ':nospace'],
    [
      ['wait', 'vm/w'],
      ['vm/web-1', 'vm/web-2'],
    ],
    [
      ['explain', 'vm.spec.disks.b'],
      ['vm.spec.disks.bus', 'vm.spec.disks.bootOrder'],
    ],
    [['explain', 'vm.spec.di'], ['vm.spec.disks.'], ':nospace'],
    [['apply', '-f', ''], [], ':files'],
    [['context', 'use', ''], ['lab']],
    [['--context', ''], ['lab']],
    [
      ['completion', ''],
      ['bash', 'zsh', 'fish'],
    ],
    [['nonsense', ''], []],
  ])('%j', async (typed, values, directive = ':') => {
    expect(await complete(...typed)).toEqual({ values, directive });
  });

  test('descriptions come with the values', async () => {
    const { stdout } = await lab.cli('__complete', 'fish', '--', 'vm', 'get', 'web-1');
    expect(stdout).toBe('web-1\trunning\n:\n');
  });

  test('a cluster that does not answer completes nothing, within a second or so, without a word', async () => {
    for (const controller of lab.controllers) controller.frozen = true;
    const begun = performance.now();
    expect(await complete('vm', 'stop', '')).toEqual({ values: [], directive: ':' });
    // The deadline is one second; the rest is for a machine that is busy.
    expect(performance.now() - begun).toBeLessThan(5000);
  });

  test('neither does a broken context file', async () => {
    writeFileSync(join(lab.directory, 'config.yaml'), 'contexts: [');
    expect(await complete('vm', 'stop', '')).toEqual({ values: [], directive: ':' });
  });

  test('never fails, whatever is typed', async () => {
    const word = fc.oneof(
      fc.constantFrom('vm', 'list', '--filter', '--columns', 'explain', '-', '--', 'a=b', '"'),
      fc.string(),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(word, { minLength: 1, maxLength: 5 }), async (typed) => {
        expect((await complete(...typed)).directive).toMatch(/^:(files|nospace)?$/);
      }),
      { numRuns: 60 },
    );
  });
});

describe('a line as bash has it', () => {
  test.each([
    ['busbar vm stop we', ['busbar', 'vm', 'stop', 'we']],
    ['busbar vm stop ', ['busbar', 'vm', 'stop', '']],
    ["busbar vm list --filter 'phase=running,na", ['busbar', 'vm', 'list', '--filter', 'phase=running,na']],
    ['busbar a\\ b "c \\" d" ', ['busbar', 'a b', 'c " d', '']],
  ])('%s', (line, words) => expect(splitWords(line)).toEqual(words));

  test('words that are quoted come back', () => {
    fc.assert(
      fc.property(fc.array(fc.string({ minLength: 1 }), { minLength: 1, maxLength: 5 }), (words) => {
        const line = words.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ');
        expect(splitWords(line)).toEqual(words);
      }),
    );
  });
});
