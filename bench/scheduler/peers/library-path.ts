// SPDX-License-Identifier: Apache-2.0
import { join } from 'node:path';

/** Where programs unpacked under `root` find the libraries unpacked beside them. */
export function libraryPath(root: string): string {
  return ['lib', 'usr/lib'].map((folder) => join(root, folder, 'x86_64-linux-gnu')).join(':');
}
