// SPDX-License-Identifier: Apache-2.0
import type { LeaseId, StoreLease } from '../cluster-store.ts';
import { leaseGone, storeUnavailable } from '../errors.ts';
import type { LeaseClaim } from '../lease-claim.ts';
import type { Answered, CallOptions } from './call.ts';
import type { Cancellable, Member } from './member.ts';
import { LEASE_KEEP_ALIVE, LEASE_REVOKE, type LeaseKeepAliveResponse, RANGE, type RangeResponse } from './messages.ts';

type Call = <T>(
  what: string,
  kind: CallOptions['kind'],
  start: (member: Member) => Cancellable<T>,
) => Promise<Answered<T>>;

/** A leader change during a renewal is rare; twice in one is not worth waiting for. */
const RENEWAL_ROUNDS = 3;

export class EtcdLease implements StoreLease {
  readonly id: LeaseId;
  readonly ttlMs: number;
  readonly #claim: LeaseClaim;
  readonly #call: Call;

  constructor(id: LeaseId, ttlMs: number, claim: LeaseClaim, call: Call) {
    this.id = id;
    this.ttlMs = ttlMs;
    this.#claim = claim;
    this.#call = call;
  }

  /**
   * etcd renews a lease in its leader's memory, without asking the others: a leader that was just
   * deposed (cut off, or thawed) still says yes, while the new one lets the lease run out. So the
   * renewal counts only if the same member, after it, completes a linearizable read in the same raft
   * term: then the leader of that term was still the leader when it renewed, and any later leader
   * starts every lease afresh.
   */
  async renew(): Promise<void> {
    for (let round = 0; round < RENEWAL_ROUNDS; round++) {
      const { value, sentMs } = await this.#call('renew a lease', 'read', (member) =>
        renewAndConfirm(member, BigInt(this.id)),
      );
      if (value.renewed.ttlSeconds <= 0n) {
        this.#claim.end();
        throw leaseGone('renew a lease');
      }
      const term = value.renewed.header?.raftTerm;
      if (term !== undefined && term === value.confirmed?.header?.raftTerm) {
        this.#claim.acknowledge(sentMs);
        return;
      }
    }
    throw storeUnavailable('renew a lease: etcd keeps changing its leader');
  }

  validUntilMs(): number {
    return this.#claim.validUntilMs();
  }

  async revoke(): Promise<void> {
    this.#claim.end();
    try {
      await this.#call('revoke a lease', 'repeatable write', (member) =>
        member.unary(LEASE_REVOKE, { id: BigInt(this.id) }),
      );
    } catch (error) {
      if (!isLeaseGone(error)) throw error;
    }
  }
}

interface Renewal {
  readonly renewed: LeaseKeepAliveResponse;
  readonly confirmed: RangeResponse | undefined;
}

function renewAndConfirm(member: Member, id: bigint): Cancellable<Renewal> {
  let step: { cancel(): void };
  const renewing = member.single(LEASE_KEEP_ALIVE, { id });
  step = renewing;
  let cancelled = false;
  const run = async (): Promise<Renewal> => {
    const renewed = await renewing.answer;
    if (renewed.ttlSeconds <= 0n) return { renewed, confirmed: undefined };
    const confirming = member.unary(RANGE, { key: Buffer.from('busbar/ping') });
    step = confirming;
    if (cancelled) confirming.cancel();
    return { renewed, confirmed: await confirming.answer };
  };
  return {
    answer: run(),
    cancel: () => {
      cancelled = true;
      step.cancel();
    },
  };
}

function isLeaseGone(error: unknown): boolean {
  return error instanceof Error && 'reason' in error && error.reason === 'LEASE_GONE';
}
