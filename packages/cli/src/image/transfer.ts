// SPDX-License-Identifier: Apache-2.0
/** The line that shows how far an import is. Pure. */
import { formatBytes, formatSeconds } from '../output/format.ts';

export function transferText(phase: string, doneBytes: number, totalBytes: number, elapsedMs: number): string {
  const percent = totalBytes === 0 ? 100 : Math.floor((doneBytes / totalBytes) * 100);
  const bytesPerSecond = elapsedMs <= 0 ? 0 : doneBytes / (elapsedMs / 1000);
  const rate = `${(bytesPerSecond / 1e6).toFixed(1)} MB/s`;
  const left =
    bytesPerSecond === 0 || doneBytes >= totalBytes
      ? ''
      : `, ${formatSeconds((totalBytes - doneBytes) / bytesPerSecond)} left`;
  return `  ${phase || 'receive'} ${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}, ${percent}%, ${rate}${left}`;
}
