// SPDX-License-Identifier: Apache-2.0
// Takes away what earlier runs left on this machine: two labs do not fit on two cores.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT, runProgram, seconds } from './process.ts';

const LAB = join(ROOT, 'deploy/lab/main.ts');
const LIST_TIMEOUT_MS = 30_000;
const DOWN_TIMEOUT_MS = 180_000;

/** What it cannot clean is said and left: the tests that need the room will tell. */
export async function takeLabsDown(say: (line: string) => void): Promise<void> {
  if (!existsSync(LAB)) return;
  const listed = await runProgram('node', [LAB, 'list', '-o', 'json'], { timeoutMs: LIST_TIMEOUT_MS });
  let names: readonly string[];
  try {
    if (!listed.ok) throw new Error(listed.how);
    names = (JSON.parse(listed.stdout) as { name: string }[]).map(({ name }) => name);
  } catch (cause) {
    say(`cannot list the labs of this machine: ${(cause as Error).message}\n${listed.output.trim()}`);
    return;
  }
  for (const name of names) {
    const down = await runProgram('node', [LAB, 'down', '--name', name], { timeoutMs: DOWN_TIMEOUT_MS });
    say(`took the lab "${name}" down (${seconds(down.ms)})${down.ok ? '' : `: ${down.how}\n${down.output.trim()}`}`);
  }
}
