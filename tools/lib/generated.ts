// SPDX-License-Identifier: Apache-2.0
// Generates the TypeScript, the descriptors and the OpenAPI document of packages/proto with buf and ts-proto, all local:
// no remote plugins.
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { openApi } from './openapi.ts';
import { ROOT, runProgram } from './process.ts';

export const PROTO = join(ROOT, 'packages/proto');
export const GENERATED = join(PROTO, 'src/gen');
/** For server reflection: a FileDescriptorSet with the comments in it. */
const DESCRIPTORS = 'descriptors.binpb';
/** For clients of the JSON edge. */
const OPENAPI = 'openapi.json';
const BUF_TIMEOUT_MS = 60_000;

/** Runs `use` with a folder of freshly generated code; the folder is removed afterwards. */
export async function withGenerated<T>(use: (folder: string) => T): Promise<T> {
  const scratch = mkdtempSync(join(tmpdir(), 'busbar-generate-'));
  try {
    const folder = join(scratch, 'src/gen');
    await buf(['generate', '--output', scratch]);
    await buf(['build', '--as-file-descriptor-set', '--output', join(folder, DESCRIPTORS)]);
    writeFileSync(join(folder, OPENAPI), openApi(readFileSync(join(folder, DESCRIPTORS))));
    return use(folder);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

async function buf(args: readonly string[]): Promise<void> {
  const result = await runProgram('buf', args, { cwd: PROTO, timeoutMs: BUF_TIMEOUT_MS });
  if (!result.ok) throw new Error(`buf ${args.join(' ')}: ${result.how}\n${result.output}`);
}

export interface Difference {
  readonly path: string;
  readonly what: 'missing' | 'stale' | 'no longer generated';
}

/** What has to change in `actual` to make it equal to `wanted`. */
export function differences(wanted: string, actual: string): Difference[] {
  const want = filesIn(wanted);
  const have = new Set(filesIn(actual));
  const found: Difference[] = [];
  for (const path of want) {
    if (!have.delete(path)) found.push({ path, what: 'missing' });
    else if (!readFileSync(join(wanted, path)).equals(readFileSync(join(actual, path)))) {
      found.push({ path, what: 'stale' });
    }
  }
  for (const path of have) found.push({ path, what: 'no longer generated' });
  return found;
}

/** Touches only what differs, so that watchers and caches see no change where there is none. */
export function apply(changes: readonly Difference[], wanted: string, actual: string): void {
  for (const { path, what } of changes) {
    const target = join(actual, path);
    if (what === 'no longer generated') {
      rmSync(target);
    } else {
      mkdirSync(dirname(target), { recursive: true });
      cpSync(join(wanted, path), target);
    }
  }
}

function filesIn(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
}
