// SPDX-License-Identifier: Apache-2.0

/**
 * Of more records than there is room for, `count` that go: again and again the oldest of whoever has the most. So nobody's
 * records make place for those of somebody who makes many.
 */
export function surplus<T>(
  oldestFirst: readonly T[],
  count: number,
  ownerOf: (record: T) => string,
  mayGo: (record: T) => boolean = () => true,
): readonly T[] {
  if (count <= 0) return [];
  const queues = new Map<string, { left: number; next: number; readonly old: T[] }>();
  for (const record of oldestFirst) {
    const owner = ownerOf(record);
    const queue = queues.get(owner) ?? { left: 0, next: 0, old: [] };
    queues.set(owner, queue);
    queue.left++;
    if (mayGo(record)) queue.old.push(record);
  }
  const gone: T[] = [];
  while (gone.length < count) {
    let busiest: { left: number; next: number; readonly old: T[] } | null = null;
    for (const queue of queues.values())
      if (queue.next < queue.old.length && queue.left > (busiest?.left ?? 0)) busiest = queue;
    const record = busiest?.old[busiest.next];
    if (busiest === null || record === undefined) break;
    busiest.next++;
    busiest.left--;
    gone.push(record);
  }
  return gone;
}
