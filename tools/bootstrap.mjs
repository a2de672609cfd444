// SPDX-License-Identifier: Apache-2.0
// Sets up what a clean clone lacks (Debian packages, node modules, Node 24), then runs the given TypeScript entry:
//
//   node tools/bootstrap.mjs [--modules-only] ENTRY [ARGS…]
//
// Plain JavaScript without imports from node_modules: it has to run on the machine's Node (20 or newer) when nothing
// is installed. Says nothing and costs some 50 ms when there is nothing to do. All its words go to stderr; stdout
// belongs to the entry. With --modules-only it needs neither Debian nor root (check, generate, build).
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const PACKAGE_LISTS = ['tools/debian-packages.txt', 'deploy/guest/debian-packages.txt'];
const MODULES = join(ROOT, 'node_modules');
const BIN = join(MODULES, '.bin');
const STAMP = join(MODULES, '.busbar-bootstrap');
const POLICY = '/usr/sbin/policy-rc.d';
const POLICY_MARK = 'written by Busbar tools/bootstrap.mjs for the time of an installation';
/** A whole installation on a slow line; a second bootstrap waits this long for the first. */
const LOCK_WAIT_S = 1800;
const LOCK_BUSY = 75;

main();

function main() {
  const args = process.argv.slice(2);
  if (Number(process.versions.node.split('.')[0]) < 20) die(`Node 20 or newer is needed; this is ${process.version}.`);
  const modulesOnly = args[0] === '--modules-only';
  if (modulesOnly) args.shift();
  const locked = args[0] === '--locked';
  if (locked) args.shift();
  if (!locked && args.length === 0) die('usage: node tools/bootstrap.mjs [--modules-only] ENTRY [ARGS…]');
  if (!modulesOnly) checkMachine();

  if (locked) {
    // The work itself, in a process of its own that holds the lock. Look again: the one before may have done it all.
    try {
      if (!modulesOnly) installDebianPackages(missingDebianPackages());
      if (!modulesOnly) allowServices();
      if (!modulesCurrent()) installModules();
    } catch (error) {
      die(...error.message.split('\n'));
    }
    return;
  }
  const systemCurrent = modulesOnly || (missingDebianPackages().length === 0 && !servicesForbiddenByUs());
  if (!systemCurrent || !modulesCurrent()) underLock(modulesOnly);
  run(args);
}

function checkMachine() {
  const needs = 'Busbar runs its cluster of real daemons here and needs Debian (or a descendant), and root.';
  const how = 'Use a Debian 12 machine, VM or privileged container as root. Without: npm run check, npm run unit.';
  if (process.platform !== 'linux') die(needs, `This is ${process.platform}.`, how);
  if (!existsSync('/usr/bin/dpkg-query') || !existsSync('/usr/bin/apt-get')) {
    die(needs, 'This system has no dpkg-query and apt-get.', how);
  }
  if (process.getuid() !== 0)
    die(needs, `This is user ${process.getuid()}.`, 'Run the same command with sudo, or as root.');
}

// ------------------------------------------------------------------------------------------------ Debian packages

/** The first word of each line; `#` starts a comment. */
function wantedDebianPackages() {
  const names = new Set();
  for (const list of PACKAGE_LISTS.map((path) => join(ROOT, path))) {
    if (!existsSync(list)) continue;
    for (const line of readFileSync(list, 'utf8').split('\n')) {
      const name = line.replace(/#.*/, '').trim().split(/\s+/)[0];
      if (name !== '') names.add(name);
    }
  }
  return [...names];
}

function missingDebianPackages() {
  const wanted = wantedDebianPackages();
  if (wanted.length === 0) return [];
  // Ends with 1 when one is unknown; those it knows are on stdout all the same. One line for each architecture.
  // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg's own notation
  const format = '${Package} ${db:Status-Status}\\n';
  const query = spawnSync('dpkg-query', ['-W', '-f', format, ...wanted], { encoding: 'utf8' });
  if (query.error !== undefined) die('cannot run dpkg-query', query.error.message);
  const installed = new Set();
  for (const line of query.stdout.split('\n')) {
    const [name, status] = line.split(' ');
    if (status === 'installed') installed.add(name);
  }
  return wanted.filter((name) => !installed.has(name));
}

function installDebianPackages(names) {
  if (names.length === 0) return;
  action('updated the package lists', () => apt(['update']));
  action(`installed ${names.length} Debian packages (${summary(names)})`, () => {
    forbidServices();
    try {
      apt(['install', '--yes', '--no-install-recommends', '-o', 'Dpkg::Options::=--force-confold', ...names]);
    } finally {
      allowServices();
    }
  });
  const still = missingDebianPackages();
  if (still.length > 0) die(`apt-get succeeded, yet these are not installed: ${still.join(' ')}`);
}

/** Says no to every service start: the lab runs its own daemons, and the packages' would take their ports. */
function forbidServices() {
  if (!existsSync(POLICY)) writeFileSync(POLICY, `#!/bin/sh\n# ${POLICY_MARK}\nexit 101\n`, { mode: 0o755 });
}

/** Also after a bootstrap that was killed, as long as the file is ours. */
function allowServices() {
  if (servicesForbiddenByUs()) rmSync(POLICY);
}

function servicesForbiddenByUs() {
  return existsSync(POLICY) && readFileSync(POLICY, 'utf8').includes(POLICY_MARK);
}

function apt(args) {
  execute('apt-get', ['-o', 'DPkg::Lock::Timeout=600', '-o', 'Acquire::Retries=3', '-q', ...args], {
    ...process.env,
    DEBIAN_FRONTEND: 'noninteractive',
    APT_LISTCHANGES_FRONTEND: 'none',
    NEEDRESTART_MODE: 'l',
  });
}

// --------------------------------------------------------------------------------------------------- node modules

/** What the installed modules are made from. A hash, since git writes new times at every checkout. */
function modulesStamp() {
  const workspace = readFileSync(join(ROOT, 'pnpm-workspace.yaml'), 'utf8');
  const folders = /^packages:\n((?: +- .*\n)+)/m.exec(workspace)?.[1] ?? '';
  const manifests = ['package.json', 'pnpm-lock.yaml', 'pnpm-workspace.yaml'];
  for (const [, folder] of folders.matchAll(/- +['"]?([^'"\s]+)/g)) {
    const paths = folder.endsWith('/*')
      ? readdirSync(join(ROOT, dirname(folder))).map((name) => join(dirname(folder), name))
      : [folder];
    manifests.push(...paths.map((path) => join(path, 'package.json')));
  }
  const hash = createHash('sha256');
  for (const path of manifests.sort()) {
    if (existsSync(join(ROOT, path)))
      hash
        .update(`${path}\0`)
        .update(readFileSync(join(ROOT, path)))
        .update('\0');
  }
  return `${hash.digest('hex')}\n`;
}

function modulesCurrent() {
  return existsSync(STAMP) && existsSync(join(BIN, 'node')) && readFileSync(STAMP, 'utf8') === modulesStamp();
}

function installModules() {
  const { packageManager } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
  rmSync(STAMP, { force: true });
  // Taken before: a manifest that changes meanwhile is seen the next time.
  const stamp = modulesStamp();
  action('installed the node modules', () =>
    execute('npx', ['--yes', packageManager, 'install', '--frozen-lockfile'], {
      ...process.env,
      CI: 'true', // pnpm must not ask
      pnpm_config_pm_on_fail: 'ignore', // it would fetch itself once more for the field packageManager, and fail
      PATH: searchPath()
        .filter((folder) => !folder.endsWith('node_modules/.bin')) // the Node in there is being replaced
        .join(':'),
    }),
  );
  if (!existsSync(join(BIN, 'node'))) die('the installation succeeded, yet node_modules/.bin/node is missing');
  writeFileSync(STAMP, stamp);
}

// --------------------------------------------------------------------------------------------------------- set-up

/**
 * Runs the set-up in a child under flock(1): the kernel releases the lock however the child ends, and a running
 * apt-get, which inherits it, keeps it. One lock for the machine, as the packages are the machine's.
 */
function underLock(modulesOnly) {
  const command = [
    process.execPath,
    fileURLToPath(import.meta.url),
    ...(modulesOnly ? ['--modules-only'] : []),
    '--locked',
  ];
  if (!existsSync('/usr/bin/flock')) {
    const { status } = spawnSync(command[0], command.slice(1), { stdio: ['ignore', 'inherit', 'inherit'] });
    if (status !== 0) process.exit(status ?? 1);
    return;
  }
  const lock = process.getuid() === 0 ? '/run/busbar-bootstrap.lock' : `/tmp/busbar-bootstrap.${process.getuid()}.lock`;
  for (const wait of [['--nonblock'], ['--wait', String(LOCK_WAIT_S)]]) {
    const { status, error } = spawnSync(
      'flock',
      [...wait, '--conflict-exit-code', String(LOCK_BUSY), lock, ...command],
      {
        stdio: ['ignore', 2, 2],
      },
    );
    if (error !== undefined) die('cannot run flock', error.message);
    if (status === 0) return;
    if (status !== LOCK_BUSY) process.exit(status ?? 1);
    if (wait[0] === '--nonblock') say('waiting for another bootstrap to finish');
  }
  die(`another bootstrap still holds ${lock} after ${LOCK_WAIT_S} s`);
}

/** One line for one action: what was done and how long it took. */
function action(what, work) {
  const startMs = performance.now();
  work();
  say(`${what} (${((performance.now() - startMs) / 1000).toFixed(1)} s)`);
}

/** The program's output is shown only when it fails. */
function execute(program, args, env) {
  const result = spawnSync(program, args, {
    cwd: ROOT,
    env,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    maxBuffer: 256 << 20,
  });
  if (result.error === undefined && result.status === 0) return;
  const said = `${result.stdout ?? ''}${result.stderr ?? ''}`.trim().split('\n').slice(-40).join('\n');
  const how = result.error?.message ?? (result.signal === null ? `exit code ${result.status}` : result.signal);
  throw new Error(`${program} ${args.join(' ')}: ${how}\n${said}`);
}

// ---------------------------------------------------------------------------------------------------------- entry

function run([entry, ...args]) {
  const path = [BIN, ...searchPath().filter((folder) => folder !== BIN), '/usr/sbin', '/sbin'].join(':');
  const child = spawn(join(BIN, 'node'), [resolve(ROOT, entry), ...args], {
    stdio: 'inherit',
    env: { ...process.env, PATH: path },
  });
  const forward = (signal) => {
    // From a terminal the child got Ctrl-C already; a second one means "now, without cleaning up" to many programs.
    if (signal === 'SIGINT' && process.stdin.isTTY) return;
    child.kill(signal);
  };
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'];
  for (const signal of signals) process.on(signal, forward);
  child.on('error', (error) => die(`cannot run ${entry}`, error.message));
  child.on('exit', (code, signal) => {
    if (signal === null) process.exit(code ?? 1);
    for (const name of signals) process.removeListener(name, forward);
    process.kill(process.pid, signal);
    // Reached only where the signal is one that does not end a process by default.
    setTimeout(() => process.exit(1), 100);
  });
}

function searchPath() {
  return (process.env.PATH ?? '').split(':').filter((folder) => folder !== '');
}

function summary(names) {
  return names.length <= 6 ? names.join(', ') : `${names.slice(0, 5).join(', ')}, …`;
}

function say(line) {
  process.stderr.write(`bootstrap: ${line}\n`);
}

function die(...lines) {
  process.stderr.write(`${lines.map((line) => `bootstrap: ${line}`).join('\n')}\n`);
  process.exit(1);
}
