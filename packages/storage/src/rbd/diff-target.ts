// SPDX-License-Identifier: Apache-2.0
/**
 * Fills an RBD image through `rbd import-diff` (format "rbd diff v1" of Ceph's doc/dev/rbd-diff.rst).
 *
 * Better than `rbd import`: the image exists before its first byte and is marked half-made, zeros are
 * never sent, and an input that ends early is an error instead of a shorter image.
 */
import type { Clock } from '@busbar/core/clock/clock';
import type { RbdConfig } from '../config.ts';
import type { PoolCapacity } from '../driver.ts';
import { showBytes, storageError } from '../errors.ts';
import type { ImageTarget } from '../image/import.ts';
import { InputProgram } from './program.ts';

const ABORT_GRACE_MS = 3000;
/** How much may be written until the pool is asked again for its room. */
const MEASURE_BYTES = 64n * 1024n ** 2n;

/** Arguments of any of Ceph's programs: paths of conf and keyring, never a key. */
export function cephArgs(config: RbdConfig): string[] {
  const { cephConf, user, keyring, timeouts } = config;
  return [
    ...['--conf', cephConf, '--id', user, '--keyring', keyring, '--log-file', '/dev/null'],
    ...['--client-mount-timeout', String(timeouts.mountS), '--rados-mon-op-timeout', String(timeouts.bulkOsdOpS)],
    ...['--rados-osd-op-timeout', String(timeouts.bulkOsdOpS)],
  ];
}

export async function diffTarget(
  config: RbdConfig,
  clock: Clock,
  image: string,
  sizeBytes: bigint,
  capacity: () => Promise<PoolCapacity>,
): Promise<ImageTarget> {
  const idleMs = config.deadlines.importIdleMs;
  const atFirst = await capacity();
  if (sizeBytes > atFirst.totalBytes) throw poolFull(sizeBytes, atFirst);
  const args = ['import-diff', '--no-progress', '--pool', config.pool, '-', image];
  const program = new InputProgram('rbd', [...cephArgs(config), ...args], clock);
  let written = 0n;
  let measuredAt = 0n;
  let room = atFirst.availableBytes;

  /**
   * A full pool stops its writers instead of failing them, so it must not come to that. The numbers of
   * the monitors are seconds old, hence our own count beside them.
   */
  const requireRoom = async (bytes: bigint) => {
    if (written + bytes - measuredAt > MEASURE_BYTES) {
      const { availableBytes } = await capacity();
      room = atFirst.availableBytes - written;
      if (availableBytes < room) room = availableBytes;
      measuredAt = written;
    }
    if (written + bytes - measuredAt > room) throw poolFull(sizeBytes, { ...atFirst, availableBytes: room }, written);
  };

  const start = Buffer.alloc(12 + 9);
  start.write('rbd diff v1\n', 'latin1');
  start.write('s', 12, 'latin1');
  start.writeBigUInt64LE(sizeBytes, 13);
  await program.write(start, idleMs);
  return {
    async write(offset, data) {
      await requireRoom(BigInt(data.length));
      const record = Buffer.alloc(17);
      record.write('w', 'latin1');
      record.writeBigUInt64LE(BigInt(offset), 1);
      record.writeBigUInt64LE(BigInt(data.length), 9);
      await program.write(record, idleMs);
      await program.write(data, idleMs);
      written += BigInt(data.length);
    },
    async finish() {
      await program.write(Buffer.from('e', 'latin1'), idleMs);
      await program.finish(idleMs);
    },
    abort: () => program.abort(ABORT_GRACE_MS),
  };
}

function poolFull(sizeBytes: bigint, is: PoolCapacity, written?: bigint): Error {
  const after = written === undefined ? '' : ` after ${showBytes(written)} of its data`;
  return storageError(
    'poolFull',
    `the image of ${showBytes(sizeBytes)} does not fit into the pool${after}: ` +
      `${showBytes(is.availableBytes)} of ${showBytes(is.totalBytes)} available`,
    { hint: 'delete volumes and images that nobody needs, raise the quota, or add disks' },
  );
}
