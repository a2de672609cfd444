// SPDX-License-Identifier: Apache-2.0
import { type Clock, sleep } from '@busbar/core/clock/clock';
import { nativeCode } from '@busbar/native/errors';
import { ERRNO } from '../ffi/errors.ts';
import type { CephClient } from './client.ts';
import { BASE } from './metadata.ts';

/** Until every OSD has the map with the new blocklist entry and drops the watch: a fraction of a second, with room for a busy one. */
const FENCE_WAIT_MS = 3_000;
const RETRY_MS = 200;
/**
 * Long enough for any orphan to run into it; about Ceph's own default. The fraction is needed: the
 * monitors want a double here and refuse JSON's integer ("bad or missing field 'expire'").
 */
const FENCE_S = 3600.5;

/** Images that could not be removed yet; swept whenever volumes are listed. */
const LOST = 'lost.';

/**
 * Removes an image that no VM ever had. Whoever still has it open is the orphan of a controller or import that was
 * killed: it is fenced (this one client instance, not its host), which also ends the watch that would forbid the removal for 30 s.
 *
 * Some watches do not end. An OSD that commits a watch after the connection of its client is gone records it on disk and
 * never in memory, so no timeout takes it away until the placement group peers again (seen with 16.2.15: a client killed while it
 * opened an image; `dump_watchers` shows nothing, `rbd status` does, for ever). Such an image can be neither removed nor used under its name by
 * us, but it can be renamed: it is put aside, and the name is free at once.
 */
export async function removeHalfMade(client: CephClient, clock: Clock, name: string): Promise<void> {
  const info = await client.call('inspect', { name });
  if (info !== null) {
    await fenceWatchers(client, name);
    if (info.snapshots.some((snapshot) => snapshot.name === BASE)) {
      await client.callLong('dropSnapshot', { name, snapshot: BASE });
    }
  }
  const endMs = clock.nowMs() + FENCE_WAIT_MS;
  for (;;) {
    try {
      return await client.callLong('remove', { name });
    } catch (error) {
      if (nativeCode(error) !== ERRNO.EBUSY) throw error;
      if (clock.nowMs() >= endMs) break;
      await sleep(clock, RETRY_MS);
    }
  }
  await client.call('rename', { from: name, to: `${LOST}${name}.${clock.wallTime().getTime()}` });
}

async function fenceWatchers(client: CephClient, name: string): Promise<void> {
  const ourselves = await client.call('instanceId', null);
  for (const watcher of await client.call('watchers', { name })) {
    if (watcher.client === ourselves) continue;
    const command = { prefix: 'osd blocklist', blocklistop: 'add', addr: watcher.address, expire: FENCE_S };
    await client.call('monCommand', { command });
  }
}

/** Removes what was put aside, as far as it can be removed by now. */
export async function sweepLost(client: CephClient, imageNames: readonly string[]): Promise<void> {
  for (const name of imageNames) {
    if (!name.startsWith(LOST)) continue;
    await client.callLong('remove', { name }).catch((error: unknown) => {
      if (nativeCode(error) !== ERRNO.EBUSY) throw error;
    });
  }
}
