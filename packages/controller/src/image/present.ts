// SPDX-License-Identifier: Apache-2.0
import type { Image } from '@busbar/proto/gen/busbar/v1/image';
import type { ClusterView } from '../view/view.ts';
import { presentMeta } from '../vm/present.ts';

export function presentImage(id: string, view: ClusterView): Image | null {
  const entry = view.tables.image.get(id);
  if (entry === undefined) return null;
  return {
    meta: presentMeta(entry.record.meta, entry.modRevision),
    spec: entry.record.spec,
    status: entry.record.status,
  };
}
