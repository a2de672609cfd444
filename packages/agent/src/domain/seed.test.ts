// SPDX-License-Identifier: Apache-2.0
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { VmId } from '@busbar/core/ids';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { VmFiles } from '../libvirt/vm-files.ts';
import { buildSeed, sweepBuilds } from './seed.ts';

/** Goal: no password stays on the disk because an agent was killed while it made a seed disk. */
let top: string;
let seeds: string;
beforeEach(() => {
  top = mkdtempSync(join(tmpdir(), 'busbar-seed-'));
  seeds = join(top, 'seed');
  mkdirSync(seeds);
});
afterEach(() => rmSync(top, { recursive: true, force: true }));

const data = { instanceId: 'i', hostname: 'h', userData: 'password: x', networkConfig: '' };
const leave = (name: string) => {
  mkdirSync(join(seeds, name, 'files'), { recursive: true });
  writeFileSync(join(seeds, name, 'files/user-data'), 'password: old');
};
/** Stands in for xorrisofs: makes the file that it is told to. */
function program(body: string): string {
  const path = join(top, 'xorrisofs');
  writeFileSync(path, `#!/bin/sh\n${body}\n`, { mode: 0o755 });
  return path;
}

describe('what a killed agent was making', () => {
  it('is gone at the next start, and seed disks stay', async () => {
    leave('.build-abc123');
    leave('.build-def456');
    writeFileSync(join(seeds, 'x.iso'), '');
    const files = new VmFiles({ uri: '', stateDir: top, runDir: '/run/x', logDir: '/x', rbd: null });
    await files.sweep();
    expect(readdirSync(seeds)).toEqual(['x.iso']);
    await new VmFiles({ uri: '', stateDir: join(top, 'none'), runDir: '/run/x', logDir: '/x', rbd: null }).sweep();
  });

  it('is gone before the next disk is made, and nothing of that is left either', async () => {
    leave('.build-abc123');
    const path = join(seeds, `${'1'.repeat(8) as VmId}.iso`);
    await buildSeed(data, path, program('test ! -e "$(dirname "$3")/../.build-abc123" && echo made > "$3"'));
    expect(readdirSync(seeds)).toEqual(['11111111.iso']);
    await expect(buildSeed(data, path, program('exit 1'))).rejects.toMatchObject({ reason: 'SEED_FAILED' });
    expect(readdirSync(seeds)).toEqual(['11111111.iso']);
  });

  it('is not what another start is making now', async () => {
    const go = join(top, 'go');
    const path = join(seeds, 'a.iso');
    const made = buildSeed(data, path, program(`while [ ! -e ${go} ]; do sleep 0.02; done; echo made > "$3"`));
    while (readdirSync(seeds).length === 0) await new Promise((resolve) => setImmediate(resolve));
    await sweepBuilds(seeds);
    expect(readdirSync(seeds)).toHaveLength(1);
    writeFileSync(go, '');
    await made;
    expect([existsSync(path), readdirSync(seeds)]).toEqual([true, ['a.iso']]);
  });
});
