// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import type { VolumeId } from '@busbar/core/ids';
import { STORAGE_REASONS } from '@busbar/storage/driver';
import type { PoolContext } from '../operation/saga.ts';

/**
 * A client that was killed holds its watch for 30 s (osd_client_watch_timeout), so a volume whose VM died with its host
 * is "in use" for that long. Twice that is patience enough: what is open then is really open.
 */
const IN_USE_PATIENCE_MS = 60_000;

/** Deletes a volume that no VM of the cluster has; null when it is gone, else what it waits for. */
export async function deleteWhenClosed(context: PoolContext, volumeId: string): Promise<string | null> {
  try {
    await context.storage.deleteVolume(volumeId as VolumeId);
    return null;
  } catch (error) {
    const inUse = error instanceof BusbarError && error.reason === STORAGE_REASONS.volumeInUse;
    if (!inUse || context.stepAgeMs > IN_USE_PATIENCE_MS) throw error;
    return `${error.message}; a client that was killed counts for 30 s`;
  }
}
