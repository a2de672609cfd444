// SPDX-License-Identifier: Apache-2.0
import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { Files } from './files.ts';
import { parseCpuInfo } from './parse.ts';

export interface KvmFacts {
  readonly kvmUsable: boolean;
  /** Why not; empty when it is. */
  readonly kvmMessage: string;
}

/**
 * Both are needed: some machines offer /dev/kvm without the CPU's extensions (seen on a cloud VM:
 * the device creates machines, and stock kernels hang in them).
 */
export async function readKvm(root: string): Promise<KvmFacts> {
  const { flags } = parseCpuInfo(await new Files(root).text('proc', 'cpuinfo'));
  if (!flags.includes('vmx') && !flags.includes('svm')) {
    return no(
      'the CPU shows neither vmx nor svm: switch virtualisation on in the firmware, or nest it if this is a VM',
    );
  }
  try {
    await access(join(root, 'dev', 'kvm'), constants.R_OK | constants.W_OK);
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    return no(missing ? '/dev/kvm is missing: load kvm_intel or kvm_amd' : '/dev/kvm is not accessible');
  }
  return { kvmUsable: true, kvmMessage: '' };
}

function no(kvmMessage: string): KvmFacts {
  return { kvmUsable: false, kvmMessage };
}
