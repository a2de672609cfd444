// SPDX-License-Identifier: Apache-2.0
/** Where placement would put a VM, and why the other hosts cannot take it. Pure. */
import type { PlacementPreview } from '@busbar/proto/gen/busbar/v1/vm';

export function renderPlacement(placement: PlacementPreview | undefined): string {
  if (placement === undefined) return '';
  const lines = [placement.host === '' ? 'no host fits now:' : `it would run on ${placement.host}:`];
  for (const { host, fits, reasons } of placement.verdicts) {
    lines.push(`  ${host}: ${fits ? 'fits' : reasons.join('; ') || 'does not fit'}`);
  }
  return `${lines.join('\n')}\n`;
}
