// SPDX-License-Identifier: Apache-2.0
import { type Clock, sleep } from '@busbar/core/clock/clock';
import { nativeCode } from '@busbar/native/errors';
import { ERRNO } from '../ffi/errors.ts';
import type { CephClient } from './client.ts';
import { BASE } from './metadata.ts';

/** Until every OSD has the map with the new blocklist entry and drops the watch. */
const FENCE_WAIT_MS = 15_000;
const RETRY_MS = 200;
/**
 * Long enough for any orphan to run into it; about Ceph's own default. The fraction is needed: the
 * monitors want a double here and refuse JSON's integer ("bad or missing field 'expire'").
 */
const FENCE_S = 3600.5;

/**
 * Removes an image that no VM ever had. Whoever still has it open is the orphan of a killed import:
 * it is fenced (this one client instance, not its host), which also ends the watch that would forbid
 * the removal for 30 s.
 */
export async function removeHalfMade(client: CephClient, clock: Clock, name: string): Promise<void> {
  const info = await client.call('inspect', { name });
  if (info !== null) {
    const ourselves = await client.call('instanceId', null);
    for (const watcher of await client.call('watchers', { name })) {
      if (watcher.client === ourselves) continue;
      const { address } = watcher;
      const command = { prefix: 'osd blocklist', blocklistop: 'add', addr: address, expire: FENCE_S };
      await client.call('monCommand', { command });
    }
    if (info.snapshots.some((snapshot) => snapshot.name === BASE)) {
      await client.callLong('dropSnapshot', { name, snapshot: BASE });
    }
  }
  const endMs = clock.nowMs() + FENCE_WAIT_MS;
  for (;;) {
    try {
      return await client.callLong('remove', { name });
    } catch (error) {
      if (nativeCode(error) !== ERRNO.EBUSY || clock.nowMs() >= endMs) throw error;
      await sleep(clock, RETRY_MS);
    }
  }
}
