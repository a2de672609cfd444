// SPDX-License-Identifier: Apache-2.0
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, readFile, readlink, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

const NEEDED = {
  libvirtd: 'libvirt-daemon-system',
  virtlogd: 'libvirt-daemon-system',
  'qemu-system-x86_64': 'qemu-system-x86',
  xorrisofs: 'xorriso',
  unshare: 'util-linux',
  nsenter: 'util-linux',
  ip: 'iproute2',
} as const;

const POLL_MS = 50;

/**
 * A libvirtd and a virtlogd of our own, in a mount and a network namespace with private directories:
 * nothing of the machine's libvirt is read or changed. It can be killed, frozen and started again.
 */
export class PrivateLibvirtd {
  readonly dir: string;
  readonly #holder: ChildProcess;
  #libvirtd: ChildProcess | null = null;
  #virtlogd: ChildProcess | null = null;

  private constructor(dir: string, holder: ChildProcess) {
    this.dir = dir;
    this.#holder = holder;
  }

  static async create(): Promise<PrivateLibvirtd> {
    if (process.getuid?.() !== 0) throw new Error('this test starts a libvirtd of its own and needs root');
    const missing = Object.entries(NEEDED).filter(([program]) => !onPath(program));
    if (missing.length > 0) {
      const packages = [...new Set(missing.map(([, name]) => name))].join(' ');
      throw new Error(`missing: ${missing.map(([program]) => program).join(', ')}; install ${packages}`);
    }
    const dir = await mkdtemp(join(tmpdir(), 'bb-lv-'));
    await chmod(dir, 0o711); // QEMU's user passes through
    for (const sub of ['etc', 'lib', 'log', 'cache', 'sock', 'state']) await mkdir(join(dir, sub));
    await writeFile(join(dir, 'etc/libvirtd.conf'), libvirtdConf(join(dir, 'sock')));
    await writeFile(join(dir, 'etc/qemu.conf'), QEMU_CONF);
    await writeFile(join(dir, 'etc/virtlogd.conf'), '');
    const holder = spawn(
      'unshare',
      ['--mount', '--net', '--propagation', 'private', '--', 'sh', '-ec', SETUP, 'sh', dir],
      {
        stdio: ['pipe', 'pipe', 'inherit'],
      },
    );
    const self = new PrivateLibvirtd(dir, holder);
    try {
      await new Promise<void>((resolve, reject) => {
        holder.once('exit', (code) => reject(new Error(`the namespaces could not be set up (code ${code})`)));
        holder.stdout.once('data', () => resolve());
      });
      self.#virtlogd = self.#daemon('virtlogd', [
        '-f',
        join(dir, 'etc/virtlogd.conf'),
        '-p',
        join(dir, 'virtlogd.pid'),
      ]);
      self.start();
      return self;
    } catch (error) {
      await self.destroy();
      throw error;
    }
  }

  get uri(): string {
    return `qemu+unix:///system?socket=${join(this.dir, 'sock/libvirt-sock')}`;
  }

  get netNamespace(): string {
    return `/proc/${this.#holder.pid}/ns/net`;
  }

  get qemuLogDir(): string {
    return join(this.dir, 'log/qemu');
  }

  start(): void {
    const { dir } = this;
    this.#libvirtd = this.#daemon('libvirtd', ['-f', join(dir, 'etc/libvirtd.conf'), '-p', join(dir, 'libvirtd.pid')]);
  }

  signal(signal: NodeJS.Signals): void {
    this.#libvirtd?.kill(signal);
  }

  /** kill -9, as a crash. */
  async crash(): Promise<void> {
    const daemon = this.#libvirtd;
    this.#libvirtd = null;
    if (daemon === null) return;
    const gone = new Promise((resolve) => daemon.once('exit', resolve));
    daemon.kill('SIGKILL');
    await gone;
  }

  /** Runs a program inside the namespaces. */
  async exec(file: string, ...args: string[]): Promise<string> {
    return (await run('nsenter', [...this.#enter(), file, ...args])).stdout;
  }

  /** Starts a program inside the namespaces; its process id is the program's. */
  spawn(file: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): ChildProcess {
    return spawn('nsenter', [...this.#enter(), file, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
    });
  }

  /** A cable into the network namespace, which has no other way out; it goes with the namespace. */
  async cable(outer: string, inner: string): Promise<void> {
    const name = `bbt${this.#holder.pid}`;
    const inside = `/proc/${this.#holder.pid}/ns/net`;
    await run('ip', ['link', 'add', name, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', inside]);
    await run('ip', ['address', 'add', `${outer}/30`, 'dev', name]);
    await run('ip', ['link', 'set', name, 'up']);
    await this.exec('ip', 'address', 'add', `${inner}/30`, 'dev', 'eth0');
    await this.exec('ip', 'link', 'set', 'eth0', 'up');
  }

  /** Process ids of the QEMUs in here. */
  async qemus(): Promise<number[]> {
    const found: number[] = [];
    for (const pid of await this.#pids()) {
      const argv = await readFile(`/proc/${pid}/cmdline`, 'latin1').catch(() => '');
      const stat = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => '');
      if (argv.includes('qemu-system') && argv.includes('\0-uuid\0') && !/\) [ZX] /.test(stat)) found.push(pid);
    }
    return found;
  }

  /** Process id of the QEMU of one domain. */
  async qemuOf(uuid: string): Promise<number> {
    for (const pid of await this.qemus()) {
      if ((await readFile(`/proc/${pid}/cmdline`, 'latin1')).includes(`\0${uuid}\0`)) return pid;
    }
    throw new Error(`no QEMU has the UUID ${uuid}`);
  }

  /** Ends everything in the namespaces, which end with it. */
  async destroy(): Promise<void> {
    await this.crash();
    this.#virtlogd?.kill('SIGKILL');
    for (const pid of await this.#pids()) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It went by itself.
      }
    }
    const { pid } = this.#holder;
    this.#holder.kill('SIGKILL');
    for (let n = 0; n < 100 && pid !== undefined && existsSync(`/proc/${pid}`); n++) {
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    await rm(this.dir, { recursive: true, force: true });
  }

  #enter(): string[] {
    return [`--mount=/proc/${this.#holder.pid}/ns/mnt`, `--net=${this.netNamespace}`];
  }

  #daemon(name: string, args: readonly string[]): ChildProcess {
    // nsenter becomes the daemon, so its process id is the daemon's.
    const quiet = process.env.BUSBAR_TEST_VERBOSE === undefined;
    return spawn('nsenter', [...this.#enter(), name, ...args], {
      stdio: ['ignore', 'ignore', quiet ? 'ignore' : 'inherit'],
    });
  }

  async #pids(): Promise<number[]> {
    const home = await readlink(this.netNamespace).catch(() => null);
    if (home === null) return [];
    const found: number[] = [];
    for (const entry of await readdir('/proc')) {
      if (!/^\d+$/.test(entry) || Number(entry) === this.#holder.pid) continue;
      if ((await readlink(`/proc/${entry}/ns/net`).catch(() => '')) === home) found.push(Number(entry));
    }
    return found;
  }
}

function onPath(program: string): boolean {
  const dirs = `${process.env.PATH ?? ''}:/usr/sbin:/sbin`.split(':');
  return dirs.some((dir) => existsSync(join(dir, program)));
}

/** Private directories over libvirt's own, a bridge for NICs, then wait for the end of stdin. */
const SETUP = `
mount -t tmpfs tmpfs /run
mkdir -p /run/libvirt /run/lock
for d in etc:/etc/libvirt lib:/var/lib/libvirt log:/var/log/libvirt cache:/var/cache/libvirt; do
  mkdir -p "\${d#*:}"
  mount --bind "$1/\${d%%:*}" "\${d#*:}"
done
ip link set lo up
ip link add br0 type bridge
ip link set br0 up
echo ready
exec cat >/dev/null
`;

function libvirtdConf(socketDir: string): string {
  return [
    `unix_sock_dir = "${socketDir}"`,
    'auth_unix_rw = "none"',
    'unix_sock_rw_perms = "0700"',
    'unix_sock_ro_perms = "0700"',
    // The machine has none that libvirt could read, and two libvirtds must not share one.
    `host_uuid = "${crypto.randomUUID()}"`,
    '',
  ].join('\n');
}

/** Confined as in production; without cgroups, so that nothing outside the namespaces is touched. */
const QEMU_CONF = [
  'user = "libvirt-qemu"',
  'group = "kvm"',
  'seccomp_sandbox = 1',
  'security_driver = "none"',
  'namespaces = []',
  'cgroup_controllers = []',
  '',
].join('\n');
