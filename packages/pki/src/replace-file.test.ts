// SPDX-License-Identifier: Apache-2.0
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { replaceFile } from './files.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'busbar-replace-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

it('makes a file, readable by all, and replaces it, also over what a crash left', async () => {
  const path = join(directory, 'etcd-ca.crl');
  await replaceFile(path, Buffer.from('one'));
  expect(statSync(path).mode & 0o777).toBe(0o644);
  writeFileSync(`${path}.next`, 'half of tw');
  await replaceFile(path, Buffer.from('two'));
  expect(readFileSync(path, 'utf8')).toBe('two');
  expect(readdirSync(directory)).toEqual(['etcd-ca.crl']);
});

it('that fails leaves what was there, and nothing beside it', async () => {
  const path = join(directory, 'taken');
  mkdirSync(path);
  await expect(replaceFile(path, Buffer.from('x'))).rejects.toThrow('EISDIR');
  expect(readdirSync(directory)).toEqual(['taken']);
  await expect(replaceFile(join(directory, 'nowhere', 'x'), Buffer.from('x'))).rejects.toThrow('ENOENT');
});
