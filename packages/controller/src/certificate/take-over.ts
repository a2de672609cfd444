// SPDX-License-Identifier: Apache-2.0
import { type Clock, sleep } from '@busbar/core/clock/clock';
import type { Logger } from '@busbar/core/log';
import type { SealedAuthorities } from '@busbar/pki/sealed-authorities';
import { putRecord, recordKey } from '../records/kinds.ts';
import type { ClusterStore } from '../store/cluster-store.ts';
import { absent } from '../view/table.ts';
import { newCertificate } from './present.ts';

/** The store may come up long after this controller does. */
const RETRY_MS = 2_000;
/** The authorities, and certificates up to etcd's limit of 128 writes. */
const BATCH = 100;

/**
 * Puts the authorities that `busbar cluster init` made into the cluster store, unless it has any: one transaction, so of
 * several controllers with the file one wins. Returns when they are there, whoever put them.
 */
export async function takeOverAuthorities(
  deps: { readonly store: ClusterStore; readonly clock: Clock; readonly logger: Logger },
  sealed: SealedAuthorities,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    try {
      if (await tryOnce(deps.store, sealed))
        deps.logger.info(
          { certificates: sealed.certificates.length },
          'took the authorities over into the cluster store',
        );
      return;
    } catch (error) {
      if (signal.aborted) return;
      deps.logger.warn({ err: error }, 'cannot take the authorities over yet');
      await sleep(deps.clock, RETRY_MS, signal).catch(() => {});
    }
  }
}

async function tryOnce(store: ClusterStore, sealed: SealedAuthorities): Promise<boolean> {
  const { createTime } = sealed;
  const certificates = sealed.certificates.map((issued) => {
    const certificate = newCertificate(issued, { name: 'cluster init', time: createTime });
    return putRecord('certificate', issued.serial, { certificate });
  });
  // The records of certificates first: authorities are what tells that all of it is done. A put of what is there changes nothing.
  const missing = sealed.authorities.map(({ name }) => absent(recordKey('authority', name)));
  for (let i = 0; i < certificates.length; i += BATCH) {
    const result = await store.txn({ compare: missing, writes: certificates.slice(i, i + BATCH) });
    if (!result.succeeded) return false;
  }
  const writes = sealed.authorities.map((each) => putRecord('authority', each.name, { ...each, createTime }));
  return (await store.txn({ compare: missing, writes })).succeeded;
}
