// SPDX-License-Identifier: Apache-2.0
import { readdir, readFile, readlink } from 'node:fs/promises';
import { basename, join } from 'node:path';

/**
 * /sys and /proc under a root that tests replace. What is not there or cannot be read is empty:
 * kernels, machines and containers differ, and an inventory without a detail beats none.
 */
export class Files {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  /** Without white space at the ends. */
  async text(...path: readonly string[]): Promise<string> {
    try {
      return (await readFile(join(this.#root, ...path), 'utf8')).trim();
    } catch {
      return '';
    }
  }

  async number(path: readonly string[], otherwise: number): Promise<number> {
    const text = await this.text(...path);
    return /^-?\d+$/.test(text) ? Number(text) : otherwise;
  }

  async list(...path: readonly string[]): Promise<string[]> {
    try {
      return (await readdir(join(this.#root, ...path))).toSorted();
    } catch {
      return [];
    }
  }

  /** Last part of a symbolic link's target. */
  async linkName(...path: readonly string[]): Promise<string> {
    try {
      return basename(await readlink(join(this.#root, ...path)));
    } catch {
      return '';
    }
  }
}
