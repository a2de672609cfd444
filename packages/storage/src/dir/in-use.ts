// SPDX-License-Identifier: Apache-2.0
import { execFile } from 'node:child_process';

/**
 * Whether some QEMU has the file open. QEMU locks its disks by fcntl, which shared file systems carry
 * between hosts, and `qemu-img info` respects those locks; Node has no call for them.
 */
export function isLockedByQemu(path: string, deadlineMs: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const args = ['info', '-f', 'raw', '--output', 'json', path];
    execFile('qemu-img', args, { timeout: deadlineMs, killSignal: 'SIGKILL' }, (error, _stdout, stderr) => {
      if (error === null) resolve(false);
      else if (/Failed to get .*lock/.test(stderr)) resolve(true);
      else reject(error);
    });
  });
}
