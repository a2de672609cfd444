// SPDX-License-Identifier: Apache-2.0
// The record in sector 0 of the guest's data disk, as rootfs/lib/busbar/common.sh writes it:
// "BUSBAR <20 digits> <8 hex digits>\n", padded with zero bytes. Tests read it from outside.

const RECORD = /^BUSBAR (\d{20}) ([0-9a-f]{8})\n/;

// 2^32 divided by the golden ratio (spreads consecutive numbers) and "BUSB" in ASCII as the starting value.
const FACTOR = 2_654_435_761n;
const OFFSET = 0x4255_5342n;

export function formatCounterRecord(counter: number): string {
  const checksum = (BigInt(counter) * FACTOR + OFFSET) & 0xffff_ffffn;
  return `BUSBAR ${String(counter).padStart(20, '0')} ${checksum.toString(16).padStart(8, '0')}\n`;
}

/** The counter, or undefined when the sector holds no whole record. */
export function parseCounterRecord(sector: Uint8Array): number | undefined {
  const text = Buffer.from(sector.subarray(0, 64)).toString('latin1');
  const counter = Number(RECORD.exec(text)?.[1] ?? Number.NaN);
  return Number.isSafeInteger(counter) && text.startsWith(formatCounterRecord(counter)) ? counter : undefined;
}
