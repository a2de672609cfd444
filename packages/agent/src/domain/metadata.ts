// SPDX-License-Identifier: Apache-2.0
import type { Epoch, VmId } from '@busbar/core/ids';
import { z } from 'zod';
import { element, parseXml, type XmlElement } from './xml.ts';

/** Busbar's namespace in domain XML. Append-only: agents of other versions read it. */
export const METADATA_URI = 'urn:busbar:vm:1';

/** What a restarted agent has to know of a domain that it finds. */
export interface DomainMetadata {
  readonly vmId: VmId;
  readonly name: string;
  readonly epoch: Epoch;
  readonly specRevision: bigint;
}

export function metadataElement(metadata: DomainMetadata): XmlElement {
  return element('busbar:vm', {
    'xmlns:busbar': METADATA_URI,
    id: metadata.vmId,
    name: metadata.name,
    epoch: metadata.epoch,
    'spec-revision': metadata.specRevision,
  });
}

/** What an int64 of the protocol holds: a larger one could not be reported, and nothing with it. */
const MAX = 2n ** 63n - 1n;
const decimal = z
  .string()
  .regex(/^\d{1,19}$/)
  .transform(BigInt)
  .refine((value) => value <= MAX);

const schema = z.object({ id: z.guid(), name: z.string(), epoch: decimal, 'spec-revision': decimal });

/** null when it is not ours, or not sound: then nobody may touch the domain by mistake. */
export function parseMetadata(xml: string): DomainMetadata | null {
  const parsed = schema.safeParse(parseXml(xml).attributes);
  if (!parsed.success) return null;
  const { id, name, epoch } = parsed.data;
  return { vmId: id as VmId, name, epoch: epoch as Epoch, specRevision: parsed.data['spec-revision'] };
}
