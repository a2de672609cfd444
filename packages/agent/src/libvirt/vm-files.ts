// SPDX-License-Identifier: Apache-2.0
import { chmod, lchown, lstat, mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { BusbarError } from '@busbar/core/errors';
import type { VmId } from '@busbar/core/ids';
import type { DomainPaths } from '../domain/facts.ts';
import { sweepBuilds } from '../domain/seed.ts';
import type { HostDriverConfig } from '../driver/host-driver.ts';

/** sun_path holds 108 bytes with the final NUL. */
const SOCKET_PATH_LIMIT = 107;
const FORMER_CONSOLE = '.console';
const ANY_VM = '00000000-0000-0000-0000-000000000000' as VmId;

/** Where the files of VMs are on this host. */
export class VmFiles {
  readonly #config: HostDriverConfig;
  readonly #seedDir: string;
  readonly #nvramDir: string;
  readonly #consoleDir: string;

  constructor(config: HostDriverConfig) {
    this.#config = config;
    this.#seedDir = join(config.stateDir, 'seed');
    this.#nvramDir = join(config.stateDir, 'nvram');
    this.#consoleDir = join(config.runDir, 'console');
    const excess = Buffer.byteLength(this.paths(ANY_VM).consoleSocket) - SOCKET_PATH_LIMIT;
    if (excess > 0) {
      throw new BusbarError({
        kind: 'invalid',
        reason: 'RUN_DIR_TOO_LONG',
        message: `runDir ${config.runDir} is too long for a socket's path`,
        hint: `shorten it by ${excess} characters`,
      });
    }
  }

  paths(vmId: VmId): DomainPaths {
    return {
      consoleSocket: join(this.#consoleDir, vmId),
      serialLog: join(this.#config.logDir, `${vmId}.serial.log`),
      nvram: join(this.#nvramDir, `${vmId}.fd`),
      seedIso: join(this.#seedDir, `${vmId}.iso`),
    };
  }

  async makeDirectories(): Promise<void> {
    const { runDir, logDir, stateDir } = this.#config;
    for (const dir of [runDir, logDir, stateDir, this.#nvramDir, this.#seedDir]) {
      // QEMU's user has to pass through, not to read.
      await mkdir(dir, { recursive: true });
      await chmod(dir, 0o711);
    }
    // libvirt binds the sockets and hands them to QEMU, whose user has no business in here.
    await mkdir(this.#consoleDir, { recursive: true });
    await chmod(this.#consoleDir, 0o700);
  }

  /** Where QEMU's user owns files while it runs. */
  get privateDirs(): readonly string[] {
    return [this.#nvramDir, this.#seedDir];
  }

  /** Domains that an older agent started have theirs beside the directory. */
  async consoleOf(vmId: VmId): Promise<string> {
    const { consoleSocket } = this.paths(vmId);
    const former = this.#formerConsole(`${vmId}${FORMER_CONSOLE}`);
    const isThere = async (path: string) => (await lstat(path).catch(() => null))?.isSocket() === true;
    return !(await isThere(consoleSocket)) && (await isThere(former)) ? former : consoleSocket;
  }

  /** They were open to every QEMU of the host. */
  async closeFormerConsoles(): Promise<void> {
    for (const name of await readdir(this.#config.runDir).catch(() => [])) {
      if (!name.endsWith(FORMER_CONSOLE)) continue;
      const path = this.#formerConsole(name);
      if ((await lstat(path).catch(() => null))?.isSocket() !== true) continue;
      await lchown(path, 0, 0);
      await chmod(path, 0o600);
    }
  }

  #formerConsole(name: string): string {
    return join(this.#config.runDir, name);
  }

  /** At the start: what a killed agent was making. Does not need libvirt. */
  async sweep(): Promise<void> {
    await sweepBuilds(this.#seedDir);
  }

  async removeSeed(vmId: VmId): Promise<void> {
    await rm(this.paths(vmId).seedIso, { force: true });
  }

  /** Seeds hold passwords: they stay no longer than their domains. */
  async removeSeedsExcept(keep: (vmId: VmId) => boolean): Promise<void> {
    for (const file of await readdir(this.#seedDir).catch(() => [])) {
      const vmId = file.replace(/\.iso$/, '') as VmId;
      if (file.endsWith('.iso') && !keep(vmId)) await this.removeSeed(vmId);
    }
  }
}
