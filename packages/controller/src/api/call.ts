// SPDX-License-Identifier: Apache-2.0
import type { Clock } from '@busbar/core/clock/clock';
import type { Logger } from '@busbar/core/log';
import type { Random } from '@busbar/core/random';
import type { Role } from '@busbar/pki/role';
import type { Seal } from '@busbar/pki/seal';
import type { PlacementPolicy } from '@busbar/scheduler/model';
import type { StorageDriver } from '@busbar/storage/driver';
import type { Alarms } from '../alarm/alarm.ts';
import type { AuditRoom } from '../audit/room.ts';
import type { BudgetedCommit } from '../budget/commit.ts';
import type { SessionRegistry } from '../session/registry.ts';
import type { ClusterStore } from '../store/cluster-store.ts';
import type { ClusterView } from '../view/view.ts';
import type { Arrival } from './arrival.ts';
import type { PresentedCertificate } from './authenticate.ts';
import type { ApiPlaces } from './places.ts';
import type { RequestLeases } from './request-leases.ts';

/** Who calls, as proven by the client certificate. */
export interface Caller {
  /** E.g. "client/admin", "host/host1". */
  readonly name: string;
  /** Null for hosts and controllers, and for who joins. */
  readonly role: Role | null;
  /** Null for who joins. */
  readonly certificate: PresentedCertificate | null;
}

/** What the audit trail has of a call so far: see pipeline.ts, where it begins and ends. */
export interface CallAudit {
  /** Full name of the method, e.g. "busbar.v1.VmService/CreateVm". */
  readonly method: string;
  /** Id of the call's audit record, once a transaction was sent that carries it. */
  id: string | null;
  /** Nothing is left to record: the record is written, or the call repeats one that has its own. */
  settled: boolean;
  /** A stream that changes no record, and may last for days, was let in: this is the time to record it. */
  readonly accepted: () => void;
  /** When a stream began; null for a call with one answer. */
  readonly beganTime: Date | null;
}
/** Who comes with a join token, before it is looked at. */
export const NOBODY: Caller = { name: 'nobody', role: null, certificate: null };

export interface Call {
  readonly caller: Caller;
  readonly audit: CallAudit;
  readonly arrival: Arrival;
  /** Aborts when the caller hangs up or the deadline passes. */
  readonly signal: AbortSignal;
}

/** What the handlers of the API stand on. */
export interface Api {
  readonly clusterName: string;
  readonly host: string;
  readonly controllers: readonly { readonly host: string; readonly address: string }[];
  readonly version: string;
  readonly view: ClusterView;
  readonly store: ClusterStore;
  /** Writes a change of the API within the caller's budget, together with those of other callers. */
  readonly commit: BudgetedCommit;
  readonly storage: StorageDriver;
  readonly sessions: SessionRegistry;
  readonly policy: PlacementPolicy;
  readonly audit: AuditRoom;
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly requestLeases: RequestLeases;
  readonly places: ApiPlaces;
  readonly seal: Seal;
  /** What a host that joins as a voter is given. */
  readonly forVoters: { readonly sealKey: Uint8Array; readonly etcdEndpoints: readonly string[] };
  readonly leadership: { leader(): { readonly host: string } | null };
  readonly alarms: Alarms;
}
