// SPDX-License-Identifier: Apache-2.0
import type { ImageRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import type { Image } from '@busbar/proto/gen/busbar/v1/image';
import type { ClusterView } from '../view/view.ts';
import { presentMeta } from '../vm/present.ts';

export function presentImage(id: string, view: ClusterView): Image | null {
  const entry = view.tables.image.get(id);
  if (entry === undefined) return null;
  return presentRecord(entry.record, entry.modRevision);
}

export function presentRecord(record: ImageRecord, revision: bigint): Image {
  return { meta: presentMeta(record.meta, revision), spec: record.spec, status: record.status };
}
