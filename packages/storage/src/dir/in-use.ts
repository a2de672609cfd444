// SPDX-License-Identifier: Apache-2.0
import { execFile } from 'node:child_process';

/**
 * Whether a VM has the file open. QEMU locks its disks by fcntl, which shared file systems carry
 * between hosts, and Node has no call for them. `qemu-img info` asks for no lock in QEMU 7.2, so the
 * file is opened for writing, which a VM's disk does not share (measured).
 */
export function isLockedByQemu(path: string, deadlineMs: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const args = ['-f', 'raw', '-c', 'quit', path];
    execFile('qemu-io', args, { timeout: deadlineMs, killSignal: 'SIGKILL' }, (error, _stdout, stderr) => {
      if (error === null) resolve(false);
      else if (/Failed to get .*lock/.test(stderr)) resolve(true);
      else reject(error);
    });
  });
}
