#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import module from 'node:module';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

if (process.features.typescript) {
  // Compiled code is kept between runs: it halves the start-up time. In the user's own cache, not in a shared /tmp.
  module.enableCompileCache?.(join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'busbar', 'compile'));
  await import('../src/main.ts');
} else {
  // Started with another Node than the workspace's own (24), e.g. by a link from outside.
  const node = fileURLToPath(new URL('../../../node_modules/.bin/node', import.meta.url));
  if (!existsSync(node)) {
    process.stderr.write('error: busbar cannot start\nwhy: it needs Node 24\ndo: run `npm install` in its directory\n');
    process.exit(1);
  }
  const child = spawnSync(node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { stdio: 'inherit' });
  process.exit(child.status ?? 1);
}
