// SPDX-License-Identifier: Apache-2.0
/**
 * What a guest finds that broke out of its QEMU: run as that QEMU's user inside its host, it looks at everything that it can
 * reach, and prints what it could use. It changes nothing but that it connects to sockets and hangs up.
 *
 *   node search.mjs '{"names": ["text in paths of others"], "users": [ids of others], "needles": ["text in files of others"]}'
 */
import { createDecipheriv } from 'node:crypto';
import { closeSync, constants, lstatSync, openSync, readdirSync, readFileSync, readlinkSync, readSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';

const { names, users, needles } = JSON.parse(process.argv[2] ?? '{}');
const uid = process.getuid();
/** Programs and documentation are the same on every host, and hold nothing of anybody. /proc is looked at by process. */
const SKIPPED = new Set([
  '/proc',
  '/sys',
  '/usr',
  '/lib',
  '/lib64',
  '/bin',
  '/sbin',
  '/boot',
  '/root',
  '/home',
  '/work',
  '/opt',
]);
/** Of the machine that the lab runs on; some ten thousand are normal. */
const ENTRIES_MAX = 400_000;
const FILE_BYTES_MAX = 4 * 1024 ** 2;
const CONNECT_MS = 1_000;

const found = {
  files: [],
  needles: [],
  sockets: [],
  processes: [],
  looked: { files: 0, read: 0, sockets: 0, processes: 0 },
};

/** Null when it was refused. */
const attempt = (what) => {
  try {
    return what();
  } catch {
    return null;
  }
};
const opens = (path, flags) =>
  attempt(() => {
    closeSync(openSync(path, flags | constants.O_NONBLOCK | constants.O_NOFOLLOW));
    return true;
  }) === true;

function* walk(dir) {
  for (const name of attempt(() => readdirSync(dir)) ?? []) {
    const path = join(dir, name);
    const stat = attempt(() => lstatSync(path));
    if (stat === null || found.looked.files++ > ENTRIES_MAX) continue;
    yield { path, stat };
    if (stat.isDirectory() && !SKIPPED.has(path) && !path.includes('/node_modules/')) yield* walk(path);
  }
}

/** Others' files by owner or name; then the content of whatever is readable where daemons keep theirs. */
function searchFiles() {
  // Not /tmp, which a lab shares with whoever works on the machine; there, owners and names tell.
  const daemons = /^\/(etc|run|dev\/shm|srv|var)\/(?!tmp\/)/;
  for (const { path, stat } of walk('/')) {
    const isOthers = names.some((name) => path.includes(name));
    // libvirt tells everybody the process ids, as the kernel does.
    if (!stat.isFile() || (path.startsWith('/run/libvirt/qemu/') && path.endsWith('.pid'))) continue;
    if (isOthers || users.includes(stat.uid)) {
      if (opens(path, constants.O_RDONLY) || opens(path, constants.O_WRONLY)) found.files.push(path);
    }
    if (!daemons.test(path) || stat.size > FILE_BYTES_MAX) continue;
    const content = attempt(() => readFileSync(path, 'latin1'));
    if (content === null) continue;
    found.looked.read++;
    if (needles.some((needle) => content.includes(needle))) found.needles.push(path);
  }
}

/** Every socket that listens in this network namespace, also those without a file. */
async function searchSockets() {
  const rows = readFileSync('/proc/net/unix', 'utf8').split('\n').slice(1);
  const paths = rows.flatMap((row) => {
    const [, , , flags, type, , , path] = row.trim().split(/\s+/);
    return flags === '00010000' && type === '0001' && path !== undefined ? [path] : [];
  });
  for (const path of new Set(paths)) {
    found.looked.sockets++;
    const reached = await new Promise((resolve) => {
      const socket = connect(path.startsWith('@') ? `\0${path.slice(1)}` : path);
      const end = (result) => {
        socket.destroy();
        resolve(result);
      };
      socket.once('connect', () => end(true));
      socket.once('error', () => end(false));
      setTimeout(() => end(false), CONNECT_MS).unref();
    });
    if (reached) found.sockets.push(path);
  }
}

/** Memory, open files, environment, and whether it may be ended. The command line is everybody's: it must hold no key. */
function searchProcesses() {
  for (const pid of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    const status = attempt(() => readFileSync(`/proc/${pid}/status`, 'utf8'));
    const owner = Number(/^Uid:\s*(\d+)/m.exec(status ?? '')?.[1] ?? uid);
    if (owner === uid) continue;
    found.looked.processes++;
    const ways = {
      memory: () => opens(`/proc/${pid}/mem`, constants.O_RDONLY),
      'memory map': () => readFileSync(`/proc/${pid}/maps`).length > 0,
      environment: () => readFileSync(`/proc/${pid}/environ`).length > 0,
      files: () => readdirSync(`/proc/${pid}/fd`).length > 0,
      root: () => readlinkSync(`/proc/${pid}/root`) !== '',
      signal: () => process.kill(Number(pid), 0),
    };
    for (const [way, reach] of Object.entries(ways)) {
      if (attempt(reach) === true) found.processes.push(`${way} of ${pid} (user ${owner})`);
    }
    const argv = attempt(() => readFileSync(`/proc/${pid}/cmdline`, 'latin1')) ?? '';
    if (needles.some((needle) => argv.includes(needle))) found.needles.push(`arguments of ${pid}`);
  }
}

/** The guest's own key, as whoever took its QEMU over gets it: what libvirt sealed for QEMU, with QEMU's own master key. */
function ownKey() {
  for (const pid of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    const argv = (attempt(() => readFileSync(`/proc/${pid}/cmdline`, 'utf8')) ?? '').split('\0');
    const owner = attempt(() => lstatSync(`/proc/${pid}`).uid);
    const secrets = argv.filter((one) => one.startsWith('{"qom-type":"secret"')).map((one) => JSON.parse(one));
    const master = secrets.find(({ id }) => id === 'masterKey0');
    if (master === undefined) continue;
    const key = attempt(() => {
      const fd = openSync(master.file, constants.O_RDONLY);
      const bytes = Buffer.alloc(32);
      readSync(fd, bytes);
      closeSync(fd);
      return bytes;
    });
    if (key === null) continue;
    if (owner !== uid) found.files.push(`${master.file}, the master key of another QEMU`);
    const sealed = secrets.find(({ data }) => data !== undefined);
    if (owner !== uid || sealed === undefined) continue;
    const open = createDecipheriv('aes-256-cbc', key, Buffer.from(sealed.iv, 'base64'));
    found.ownKey = Buffer.concat([open.update(Buffer.from(sealed.data, 'base64')), open.final()]).toString('base64');
  }
}

searchFiles();
await searchSockets();
searchProcesses();
ownKey();
process.stdout.write(`${JSON.stringify(found)}\n`);
