// SPDX-License-Identifier: Apache-2.0
import { execFileSync } from 'node:child_process';
import { linkSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openPlainFile, whyNotConfined } from './confined.ts';

let top: string;
let pool: string;
beforeEach(() => {
  top = mkdtempSync(join(tmpdir(), 'busbar-confined-'));
  pool = join(top, 'pool');
  mkdirSync(join(pool, 'volumes'), { recursive: true });
  writeFileSync(join(top, 'shadow'), 'root:secret');
});
afterEach(() => rmSync(top, { recursive: true, force: true }));

const read = async (...parts: string[]) => {
  const file = await openPlainFile(pool, parts);
  try {
    return await file.readFile('utf8');
  } finally {
    await file.close();
  }
};
const unsafe = (why: string) => ({ reason: 'FILE_UNSAFE', message: expect.stringContaining(why) as string });

describe('a file of a shared directory', () => {
  it('is opened when it is one', async () => {
    writeFileSync(join(pool, 'volumes/a.raw'), 'data');
    expect(await read('volumes', 'a.raw')).toBe('data');
    await expect(read('volumes', 'b.raw')).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('is not what a link points to, wherever in the path the link is', async () => {
    symlinkSync(join(top, 'shadow'), join(pool, 'volumes/a.raw'));
    await expect(read('volumes', 'a.raw')).rejects.toMatchObject(unsafe('goes through the symbolic link "a.raw"'));
    symlinkSync(join(top, 'missing'), join(pool, 'volumes/b.raw'));
    await expect(read('volumes', 'b.raw')).rejects.toMatchObject(unsafe('symbolic link'));
    mkdirSync(join(top, 'elsewhere'));
    writeFileSync(join(top, 'elsewhere/a.raw'), 'secret');
    symlinkSync(join(top, 'elsewhere'), join(pool, 'images'));
    await expect(read('images', 'a.raw')).rejects.toThrow(/symbolic link "images"|ENOTDIR/);
  });

  it('is not another file under a second name', async () => {
    linkSync(join(top, 'shadow'), join(pool, 'volumes/a.raw'));
    await expect(read('volumes', 'a.raw')).rejects.toMatchObject(unsafe('has 2 names'));
  });

  it('is no FIFO, socket, directory or device, and none of them holds the call', async () => {
    execFileSync('mkfifo', [join(pool, 'volumes/fifo.raw')]);
    mkdirSync(join(pool, 'volumes/dir.raw'));
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(join(pool, 'volumes/sock.raw'), resolve));
    for (const name of ['fifo.raw', 'dir.raw', 'sock.raw'])
      await expect(read('volumes', name), name).rejects.toMatchObject(unsafe('is not a regular file'));
    server.close();
  });

  it('has a name and not a path', async () => {
    for (const name of ['..', '.', '', 'a/b', '../shadow', 'a\0b'])
      await expect(read('volumes', name)).rejects.toThrow();
  });
});

describe('the mount of a shared directory', () => {
  const mounts = (...lines: string[]) => {
    const path = join(top, 'mountinfo');
    writeFileSync(path, lines.map((line, i) => `${i + 30} 1 0:${i} / ${line} - ext4 /dev/x rw\n`).join(''));
    return whyNotConfined(pool, path);
  };
  const good = 'rw,nosuid,nodev,relatime,nosymfollow';

  it('follows no link, knows no device and no set-uid program', async () => {
    expect(await mounts('/ rw,relatime', `${pool} ${good}`)).toBe('');
    expect(await mounts('/ rw,relatime', `${top} ${good}`)).toBe('');
    expect(await mounts('/ rw,relatime', `${pool} rw,nodev,relatime`)).toContain('mounted without nosymfollow, nosuid');
    expect(await mounts('/ rw,relatime')).toContain('-o nosymfollow,nodev,nosuid');
  });

  it('is the last one on its point, and the nearest', async () => {
    expect(await mounts(`${pool} ${good}`, `${pool} rw`)).toContain('without nosymfollow');
    expect(await mounts(`${pool} rw`, `${pool} ${good}`)).toBe('');
    expect(await mounts(`${pool} ${good}`, `${top} rw`)).toBe('');
    expect(await mounts(`${top} ${good}`, `${pool}x rw`, '/ rw')).toBe('');
  });
});
