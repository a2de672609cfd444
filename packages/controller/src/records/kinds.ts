// SPDX-License-Identifier: Apache-2.0
import { AuthorityRecord, CertificateRecord, JoinTokenRecord } from '@busbar/proto/gen/busbar/store/v1/pki';
import {
  HostRecord,
  HostStatusRecord,
  ImageRecord,
  NetworkRecord,
  OperationRecord,
  RequestRecord,
  StoreRecord,
  VmRecord,
  VmStatusRecord,
  VolumeRecord,
} from '@busbar/proto/gen/busbar/store/v1/store';
import { Alarm } from '@busbar/proto/gen/busbar/v1/alarm';
import { AuditRecord } from '@busbar/proto/gen/busbar/v1/audit';
import { Event } from '@busbar/proto/gen/busbar/v1/event';
import type { LeaseId, Write } from '../store/cluster-store.ts';

/**
 * The key space: `busbar/KIND/ID` holds a record as proto3 JSON; `busbar/name/KIND/NAME` holds the id that
 * owns a name, so that two creations of one name collide in their transactions.
 */
export const ROOT = 'busbar/';

interface Codec<T> {
  fromJSON(json: unknown): T;
  toJSON(value: T): unknown;
}

export const CODECS = {
  vm: VmRecord as Codec<VmRecord>,
  'vm-status': VmStatusRecord as Codec<VmStatusRecord>,
  volume: VolumeRecord as Codec<VolumeRecord>,
  image: ImageRecord as Codec<ImageRecord>,
  network: NetworkRecord as Codec<NetworkRecord>,
  host: HostRecord as Codec<HostRecord>,
  'host-status': HostStatusRecord as Codec<HostStatusRecord>,
  operation: OperationRecord as Codec<OperationRecord>,
  audit: AuditRecord as Codec<AuditRecord>,
  event: Event as Codec<Event>,
  alarm: Alarm as Codec<Alarm>,
  store: StoreRecord as Codec<StoreRecord>,
  authority: AuthorityRecord as Codec<AuthorityRecord>,
  certificate: CertificateRecord as Codec<CertificateRecord>,
  'join-token': JoinTokenRecord as Codec<JoinTokenRecord>,
} as const;

export type Kind = keyof typeof CODECS;
export type RecordOf<K extends Kind> = (typeof CODECS)[K] extends Codec<infer T> ? T : never;
export const KINDS = Object.keys(CODECS) as Kind[];

/** Kinds whose records have a unique name. */
export type NamedKind = 'vm' | 'volume' | 'image' | 'network' | 'host';

export function recordKey(kind: Kind, id: string): string {
  return `${ROOT}${kind}/${id}`;
}

export function nameKey(kind: NamedKind, name: string): string {
  return `${ROOT}name/${kind}/${name}`;
}

/** Rewritten by every transaction that begins to use a resource, compared by the one that deletes it. */
export function guardKey(kind: NamedKind, id: string): string {
  return `${ROOT}guard/${kind}/${id}`;
}

/** Notes that an import writes bytes for this image; stays when the import's records vanish with its controller. */
export function importKey(id: string): string {
  return `${ROOT}import/${id}`;
}

export function requestKey(caller: string, requestId: string): string {
  return `${ROOT}request/${encodeURIComponent(caller)}/${encodeURIComponent(requestId)}`;
}

export function encodeRecord<K extends Kind>(kind: K, record: RecordOf<K>): string {
  return JSON.stringify((CODECS[kind] as Codec<RecordOf<K>>).toJSON(record));
}

export function decodeRecord<K extends Kind>(kind: K, text: string): RecordOf<K> {
  return (CODECS[kind] as Codec<RecordOf<K>>).fromJSON(JSON.parse(text));
}

export function encodeRequest(record: RequestRecord): string {
  return JSON.stringify(RequestRecord.toJSON(record));
}

export function decodeRequest(text: string): RequestRecord {
  return RequestRecord.fromJSON(JSON.parse(text));
}

/** Kind and id of a record's key; null for names, requests and the leader key. */
export function parseRecordKey(key: string): { readonly kind: Kind; readonly id: string } | null {
  if (!key.startsWith(ROOT)) return null;
  const slash = key.indexOf('/', ROOT.length);
  if (slash < 0) return null;
  const kind = key.slice(ROOT.length, slash);
  return Object.hasOwn(CODECS, kind) ? { kind: kind as Kind, id: key.slice(slash + 1) } : null;
}

/** What was encoded a moment ago need not be decoded by whoever looks into a transaction. */
const ENCODED = new WeakMap<Write, unknown>();

export function putRecord<K extends Kind>(kind: K, id: string, record: RecordOf<K>, lease?: LeaseId): Write {
  const put = { kind: 'put', key: recordKey(kind, id), value: encodeRecord(kind, record) } as const;
  const write: Write = lease === undefined ? put : { ...put, lease };
  ENCODED.set(write, record);
  return write;
}

/** The record that a write leaves behind; undefined for a deletion. */
export function recordIn<K extends Kind>(kind: K, write: Write): RecordOf<K> | undefined {
  if (write.kind === 'delete') return undefined;
  return (ENCODED.get(write) as RecordOf<K> | undefined) ?? decodeRecord(kind, write.value);
}

export function deleteRecord(kind: Kind, id: string): Write {
  return { kind: 'delete', key: recordKey(kind, id) };
}
