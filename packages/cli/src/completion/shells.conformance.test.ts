// SPDX-License-Identifier: Apache-2.0
/** The scripts for completion, in the shells that they are for. */
import { execFile, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { startLab, type TestLab } from '../testing/cli.ts';

const PROGRAM = fileURLToPath(new URL('../../bin/busbar.mjs', import.meta.url));

let lab: TestLab;
beforeEach(async () => {
  lab = await startLab();
  for (const name of ['web-1', 'web-2', 'db']) {
    await lab.cli('vm', 'create', name, '--vcpus', '1', '--memory', '64MiB');
  }
});
afterEach(() => lab.end());

describe('real shells', () => {
  /** The test's busbar under its own name, as a user has it on the PATH. */
  function install(): NodeJS.ProcessEnv {
    const program = join(lab.directory, 'busbar');
    writeFileSync(program, `#!/bin/sh\nexec '${process.execPath}' '${PROGRAM}' "$@"\n`, { mode: 0o755 });
    const path = `${lab.directory}:${process.env['PATH'] ?? ''}`;
    return {
      ...process.env,
      PATH: path,
      BUSBAR_CONFIG: join(lab.directory, 'config.yaml'),
      XDG_CACHE_HOME: lab.directory,
    };
  }

  /** What bash would offer: the function is called as readline calls it. */
  async function bash(line: string): Promise<string[]> {
    const script = `
      source <(busbar completion bash)
      COMP_LINE=$1 COMP_POINT=\${#1}
      read -ra COMP_WORDS <<<"$COMP_LINE"
      complete -p busbar >/dev/null || exit 1
      compopt() { :; }
      _busbar busbar
      printf '%s\\n' "\${COMPREPLY[@]}"`;
    const { stdout, stderr } = await promisify(execFile)('bash', ['-c', script, 'bash', line], { env: install() });
    expect(stderr).toBe('');
    return stdout.trimEnd().split('\n');
  }

  test('bash completes commands, options and names of the cluster', async () => {
    expect(await bash('busbar vm re')).toEqual(['restart']);
    expect(await bash('busbar vm stop web')).toEqual(['web-1', 'web-2']);
    expect(await bash('busbar vm list --filter phase=ru')).toEqual(['running']);
    expect(await bash('busbar wait vm/d')).toEqual(['vm/db']);
  });

  for (const [shell, flag] of [
    ['bash', '-n'],
    ['zsh', '-n'],
    ['fish', '--no-execute'],
  ] as const) {
    test(`${shell} parses its script`, async (context) => {
      const script = join(lab.directory, 'script');
      writeFileSync(script, (await lab.cli('completion', shell)).stdout);
      const { error, status, stderr } = spawnSync(shell, [flag, script], { encoding: 'utf8' });
      if (error !== undefined) context.skip(`${shell} is not installed here`);
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    });
  }
});
