// SPDX-License-Identifier: Apache-2.0
// The labs of this machine, before the tests make theirs.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT, runProgram, seconds } from './process.ts';
import type { TestOutcome } from './test-events.ts';

const LAB = join(ROOT, 'deploy/lab/main.ts');
const LIST_TIMEOUT_MS = 30_000;
const DOWN_TIMEOUT_MS = 180_000;
/** Of three hosts with Ceph; the README asks for as much. */
const LAB_MEMORY_BYTES = 4 * 1024 ** 3;
/** Labs whose name begins so are the tests' own; deploy/lab/main.ts makes no other ones. */
const OWN = 'test-';

/**
 * Takes away what earlier test runs left, and nothing else: another lab is somebody's, with his VMs. It is named, since the tests
 * are slower beside it, and it is a failure when there is not room for both.
 */
export async function clearTestLabs(say: (line: string) => void): Promise<readonly TestOutcome[]> {
  const names = await labNames(say);
  for (const name of names.filter((each) => each.startsWith(OWN))) {
    const down = await runProgram('node', [LAB, 'down', '--name', name], { timeoutMs: DOWN_TIMEOUT_MS });
    say(
      `took "${name}" of an earlier run down (${seconds(down.ms)})${down.ok ? '' : `: ${down.how}\n${down.output.trim()}`}`,
    );
  }
  const others = names.filter((name) => !name.startsWith(OWN));
  for (const name of others)
    say(`the lab "${name}" stays as it is; tests that wait for the machine take longer beside it`);
  const free = availableMemoryBytes();
  if (free >= LAB_MEMORY_BYTES) return [];
  const gib = (bytes: number): string => `${(bytes / 1024 ** 3).toFixed(1)} GiB`;
  const remedy = others.map((name) => `npm run lab -- down --name ${name}`).join(', ') || 'end what uses it';
  const message = `a lab needs ${gib(LAB_MEMORY_BYTES)} of free memory, and ${gib(free)} are free: ${remedy}`;
  return [{ file: '', name: 'room for a lab', state: 'failed', ms: 0, message }];
}

async function labNames(say: (line: string) => void): Promise<readonly string[]> {
  if (!existsSync(LAB)) return [];
  const listed = await runProgram('node', [LAB, 'list', '-o', 'json'], { timeoutMs: LIST_TIMEOUT_MS });
  try {
    if (!listed.ok) throw new Error(listed.how);
    return (JSON.parse(listed.stdout) as { name: string }[]).map(({ name }) => name);
  } catch (cause) {
    // The tests that need the room will tell.
    say(`cannot list the labs of this machine: ${(cause as Error).message}\n${listed.output.trim()}`);
    return [];
  }
}

function availableMemoryBytes(): number {
  return 1024 * Number(/^MemAvailable: +(\d+) kB/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0);
}
