// SPDX-License-Identifier: Apache-2.0
/** Images that are not, or no longer, what their name says; how they are put aside and removed. */
import { assert } from '@busbar/core/assert';
import { type Clock, sleep } from '@busbar/core/clock/clock';
import type { Logger } from '@busbar/core/log';
import type { Random } from '@busbar/core/random';
import { nativeCode } from '@busbar/native/errors';
import type { ImageInfo, WatcherInfo } from '../ffi/calls.ts';
import { ERRNO } from '../ffi/errors.ts';
import { imageIdOf, volumeIdOf } from '../names.ts';
import type { CephApi } from './client.ts';
import { BASE, isCompleteImage, isCompleteVolume, volumeMadeAs } from './metadata.ts';

/** Until every OSD has the map with the new blocklist entry and drops the watch: a fraction of a second, with room for a busy one. */
const FENCE_WAIT_MS = 3_000;
const RETRY_MS = 200;
/**
 * Long enough for any orphan to run into it; about Ceph's own default. The fraction is needed: the
 * monitors want a double here and refuse JSON's integer ("bad or missing field 'expire'").
 */
const FENCE_S = 3600.5;
/**
 * Another live controller may be making it now: its creation has a deadline of a minute at most, and the
 * clocks of controllers may differ by some minutes.
 */
const MAKING_MAX_AGE_MS = 600_000;

/**
 * Names of what is not in use, swept whenever volumes are listed. Each ends with the final name, the wall time in ms and
 * (but for `lost.` of older versions) a random part.
 *   making.  a volume that is being made, until it is renamed to its final name
 *   lost.    found half-made under its final name and put aside
 *   gone.    deleted on purpose, whatever its metadata says
 */
type Aside = 'making' | 'lost' | 'gone';
const ASIDE = /^(making|lost|gone)\.((?:volume|image)\.[^.]+)\.(\d+)(?:\.|$)/;

export interface AsideDeps {
  readonly client: CephApi;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
}

export function asideName(deps: AsideDeps, kind: Aside, name: string): string {
  const aside = `${kind}.${name}.${deps.clock.wallTime().getTime()}.${deps.random.uuid().slice(0, 8)}`;
  assert(ASIDE.test(aside), `${aside} would not be swept`);
  return aside;
}

function isComplete(name: string, info: ImageInfo): boolean {
  return volumeIdOf(name) === null ? imageIdOf(name) !== null && isCompleteImage(info) : isCompleteVolume(info);
}

/**
 * Removes what has this final name unless it is complete ("complete" says so): such a one has been finished by another
 * controller since the caller looked, and a guest may write to it by now.
 *
 * It is put aside before it is removed. A rename is atomic, so what was put aside can be looked at in
 * peace: nobody finishes it any more, and when it turns out to be complete after all it goes back to its name.
 * Whoever has a half-made one open is no guest but the orphan of a controller or import that was killed: it is fenced (this
 * one client instance, not its host), which also ends the watch that would forbid the removal for 30 s.
 *
 * Some watches do not end. An OSD that commits a watch after the connection of its client is gone records it on disk and
 * never in memory, so no timeout takes it away until the placement group peers again (seen with 16.2.15: a client killed while it
 * opened an image; `dump_watchers` shows nothing, `rbd status` does, for ever). Such an image can be neither removed nor used under its name by
 * us, but it can be renamed: hence it stays aside until the sweep succeeds, and the name is free at once.
 */
export async function removeHalfMade(deps: AsideDeps, name: string): Promise<'removed' | 'complete'> {
  const { client } = deps;
  // Listed before it is looked at: what is not complete yet has had no guest among these.
  const watchers = await watchersOf(client, name);
  const info = await client.call('inspect', { name });
  if (info !== null && isComplete(name, info)) return 'complete';
  // A rename tells all watchers and waits for each: 30 s for one that was killed, if it were not fenced first.
  await fence(client, watchers);
  const aside = asideName(deps, 'lost', name);
  if (!(await renamed(client, name, aside))) {
    // Nothing, or a creation that died between two objects: its name is taken but it cannot be opened.
    await client.callLong('remove', { name });
    return 'removed';
  }
  const found = await client.call('inspect', { name: aside });
  if (found !== null && isComplete(name, found)) {
    await putBack(deps, aside, name);
    return 'complete';
  }
  await discard(deps, aside);
  return 'removed';
}

/** Removes a volume or image that no VM ever had open, complete or not: whoever has it open is an orphan. */
export async function removeNeverUsed(deps: AsideDeps, name: string): Promise<void> {
  await fence(deps.client, await watchersOf(deps.client, name));
  const aside = asideName(deps, 'gone', name);
  if (await renamed(deps.client, name, aside)) await discard(deps, aside);
  else await deps.client.callLong('remove', { name });
}

/** False when there is nothing of that name. */
async function renamed(client: CephApi, from: string, to: string): Promise<boolean> {
  try {
    await client.call('rename', { from, to });
    return true;
  } catch (error) {
    if (nativeCode(error) === ERRNO.ENOENT) return false;
    throw error;
  }
}

async function putBack({ client, logger }: AsideDeps, aside: string, name: string): Promise<void> {
  logger.warn({ image: name, aside }, 'what was put aside as half-made is complete; it gets its name back');
  try {
    await client.call('rename', { from: aside, to: name });
  } catch (error) {
    // ENOENT: the sweep of another controller was faster. EEXIST: the name has a new owner; this one stays aside.
    if (nativeCode(error) !== ERRNO.ENOENT && nativeCode(error) !== ERRNO.EEXIST) throw error;
  }
}

/** Removes what has been put aside, or leaves it to the sweep when a watch on it does not end. */
async function discard({ client, clock }: AsideDeps, aside: string): Promise<void> {
  const info = await client.call('inspect', { name: aside });
  if (info !== null) {
    await fence(client, await watchersOf(client, aside));
    if (info.snapshots.some((snapshot) => snapshot.name === BASE)) {
      await client.callLong('dropSnapshot', { name: aside, snapshot: BASE });
    }
  }
  const endMs = clock.nowMs() + FENCE_WAIT_MS;
  for (;;) {
    try {
      return await client.callLong('remove', { name: aside });
    } catch (error) {
      if (nativeCode(error) !== ERRNO.EBUSY) throw error;
      if (clock.nowMs() >= endMs) return;
      await sleep(clock, RETRY_MS);
    }
  }
}

async function watchersOf(client: CephApi, name: string): Promise<readonly WatcherInfo[]> {
  try {
    return await client.call('watchers', { name });
  } catch (error) {
    if (nativeCode(error) === ERRNO.ENOENT) return [];
    throw error;
  }
}

async function fence(client: CephApi, watchers: readonly WatcherInfo[]): Promise<void> {
  if (watchers.length === 0) return;
  const ourselves = await client.call('instanceId', null);
  for (const watcher of watchers) {
    if (watcher.client === ourselves) continue;
    const command = { prefix: 'osd blocklist', blocklistop: 'add', addr: watcher.address, expire: FENCE_S };
    await client.call('monCommand', { command });
  }
}

/** Removes what was put aside, as far as it can be removed by now. One that does not let go keeps nothing else. */
export async function sweepAside(deps: AsideDeps, imageNames: readonly string[]): Promise<void> {
  for (const aside of imageNames) {
    const [, kind, name, time] = ASIDE.exec(aside) ?? [];
    if (kind === undefined || name === undefined) continue;
    try {
      if (kind === 'making') await sweepMaking(deps, aside, name, Number(time));
      else if (kind === 'lost') await sweepLost(deps, aside, name);
      else await deps.client.callLong('remove', { name: aside });
    } catch (error) {
      if (nativeCode(error) === ERRNO.EBUSY) continue;
      deps.logger.warn({ image: aside, err: error }, 'what was put aside cannot be removed now');
    }
  }
}

async function sweepMaking(deps: AsideDeps, aside: string, name: string, madeAtMs: number): Promise<void> {
  const { client, clock } = deps;
  if (clock.wallTime().getTime() - madeAtMs < MAKING_MAX_AGE_MS) return;
  // A rename that was cut in its middle leaves both names for one image.
  const final = await client.call('inspect', { name });
  if (final !== null && volumeMadeAs(final) === aside) return;
  const info = await client.call('inspect', { name: aside });
  if (info !== null && (await client.call('watchers', { name: aside })).length > 0) return;
  // Put aside first: should its maker wake up now, it finds nothing to rename instead of half an image.
  const gone = asideName(deps, 'gone', name);
  await client.callLong('remove', { name: (await renamed(client, aside, gone)) ? gone : aside });
}

async function sweepLost(deps: AsideDeps, aside: string, name: string): Promise<void> {
  const info = await deps.client.call('inspect', { name: aside });
  // Its finder died before it could put it back.
  if (info !== null && isComplete(name, info)) return await putBack(deps, aside, name);
  await deps.client.callLong('remove', { name: aside });
}
