// SPDX-License-Identifier: Apache-2.0
// The directory of a `dir` pool, which other hosts write to. libvirt opens and hands over a VM's disks as root, so what has
// a volume's name there must be that volume: looked at before each start, and kept so by how the directory is mounted.
import { relative } from 'node:path';
import { BusbarError, errorChain } from '@busbar/core/errors';
import { openPlainFile, whyNotConfined } from '@busbar/native/confined';
import type { DomainDisk } from '@busbar/proto/gen/busbar/agent/v1/agent';

export class SharedDir {
  readonly #path: string | undefined;
  #problem = '';

  constructor(path: string | undefined) {
    this.#path = path;
  }

  /** Why the host cannot be given VMs with disks in files, as of the last look; empty when it can. */
  get problem(): string {
    return this.#problem;
  }

  async look(): Promise<void> {
    if (this.#path === undefined) return;
    this.#problem = await whyNotConfined(this.#path).catch((error: unknown) => errorChain(error));
  }

  /** Throws unless each disk in a file is a plain file of the pool, and the pool is mounted as it must be. */
  async require(disks: readonly DomainDisk[]): Promise<void> {
    const files = disks.flatMap(({ source }) => (source?.$case === 'file' ? [source.value.path] : []));
    if (files.length === 0 || this.#path === undefined) return;
    await this.look();
    if (this.#problem !== '')
      throw new BusbarError({ kind: 'precondition', reason: 'POOL_UNSAFE', message: this.#problem });
    for (const file of files) {
      const below = relative(this.#path, file).split('/');
      if (below.includes('..') || below.includes('')) {
        const message = `${file} is not in the pool's directory ${this.#path}`;
        throw new BusbarError({ kind: 'precondition', reason: 'FILE_UNSAFE', message });
      }
      await (await openPlainFile(this.#path, below)).close();
    }
  }
}
