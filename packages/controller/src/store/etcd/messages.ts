// SPDX-License-Identifier: Apache-2.0
import {
  bool,
  bytes,
  int32,
  int64,
  type Message,
  type MessageOf,
  message,
  optional,
  repeated,
  text,
  uint64,
} from './wire.ts';

/** The part of etcd's gRPC API (etcdserverpb, mvccpb; etcd 3.4 and later) that the store uses. */

export const ResponseHeader = message({
  clusterId: uint64(1),
  memberId: uint64(2),
  revision: int64(3),
  raftTerm: uint64(4),
});
export type ResponseHeader = MessageOf<typeof ResponseHeader>;

export const KeyValue = message({
  key: text(1),
  createRevision: int64(2),
  modRevision: int64(3),
  value: text(5),
});
export type KeyValue = MessageOf<typeof KeyValue>;

export const RangeRequest = message({
  key: bytes(1),
  rangeEnd: bytes(2),
  limit: int64(3),
  revision: int64(4),
});
export type RangeRequest = MessageOf<typeof RangeRequest>;

export const RangeResponse = message({
  header: optional(1, ResponseHeader),
  kvs: repeated(2, KeyValue),
  more: bool(3),
});
export type RangeResponse = MessageOf<typeof RangeResponse>;

export const PutRequest = message({ key: text(1), value: text(2), lease: int64(3) });
export const DeleteRangeRequest = message({ key: text(1) });
/** One of them. */
export const RequestOp = message({
  put: optional(2, PutRequest),
  deleteRange: optional(3, DeleteRangeRequest),
});

/** The result is EQUAL (0), the only one used. */
export const Compare = message({
  target: int32(2),
  key: text(3),
  createRevision: int64(5),
  modRevision: int64(6),
});
export const CompareTarget = { create: 1, mod: 2 } as const;

export const TxnRequest = message({ compare: repeated(1, Compare), success: repeated(2, RequestOp) });
export type TxnRequest = MessageOf<typeof TxnRequest>;
export const TxnResponse = message({ header: optional(1, ResponseHeader), succeeded: bool(2) });

export const LeaseGrantRequest = message({ ttlSeconds: int64(1) });
export const LeaseGrantResponse = message({ header: optional(1, ResponseHeader), id: int64(2), ttlSeconds: int64(3) });
export const LeaseRevokeRequest = message({ id: int64(1) });
export const LeaseRevokeResponse = message({ header: optional(1, ResponseHeader) });
export const LeaseKeepAliveRequest = message({ id: int64(1) });
export const LeaseKeepAliveResponse = message({
  header: optional(1, ResponseHeader),
  id: int64(2),
  /** 0 or less: the lease is gone. */
  ttlSeconds: int64(3),
});
export type LeaseKeepAliveResponse = MessageOf<typeof LeaseKeepAliveResponse>;

export const WatchCreateRequest = message({
  key: bytes(1),
  rangeEnd: bytes(2),
  startRevision: int64(3),
  progressNotify: bool(4),
  fragment: bool(8),
});
export const WatchProgressRequest = message({});
/** One of them. */
export const WatchRequest = message({
  create: optional(1, WatchCreateRequest),
  progress: optional(3, WatchProgressRequest),
});
export type WatchRequest = MessageOf<typeof WatchRequest>;
export const EventType = { put: 0, delete: 1 } as const;
export const Event = message({ type: int32(1), kv: optional(2, KeyValue) });
export type Event = MessageOf<typeof Event>;
export const WatchResponse = message({
  header: optional(1, ResponseHeader),
  watchId: int64(2),
  created: bool(3),
  canceled: bool(4),
  compactRevision: int64(5),
  cancelReason: text(6),
  fragment: bool(7),
  events: repeated(11, Event),
});
export type WatchResponse = MessageOf<typeof WatchResponse>;

export const CompactionRequest = message({ revision: int64(1) });
export const CompactionResponse = message({ header: optional(1, ResponseHeader) });

export const StatusRequest = message({});
export const StatusResponse = message({
  header: optional(1, ResponseHeader),
  version: text(2),
  /** Of the database's file. */
  dbSize: int64(3),
  /** 0: this member knows no leader. */
  leader: uint64(4),
  /** Entries that are committed in the raft log. */
  raftIndex: uint64(5),
  /** Without the pages that are free. */
  dbSizeInUse: int64(9),
  isLearner: bool(10),
});
export type StatusResponse = MessageOf<typeof StatusResponse>;

export interface Method<Request, Response> {
  readonly path: string;
  readonly request: Message<Request>;
  readonly response: Message<Response>;
}

function method<Request, Response>(
  path: string,
  request: Message<Request>,
  response: Message<Response>,
): Method<Request, Response> {
  return { path: `/etcdserverpb.${path}`, request, response };
}

export const RANGE = method('KV/Range', RangeRequest, RangeResponse);
export const TXN = method('KV/Txn', TxnRequest, TxnResponse);
export const COMPACT = method('KV/Compact', CompactionRequest, CompactionResponse);
export const LEASE_GRANT = method('Lease/LeaseGrant', LeaseGrantRequest, LeaseGrantResponse);
export const LEASE_REVOKE = method('Lease/LeaseRevoke', LeaseRevokeRequest, LeaseRevokeResponse);
/** A bidirectional stream. */
export const LEASE_KEEP_ALIVE = method('Lease/LeaseKeepAlive', LeaseKeepAliveRequest, LeaseKeepAliveResponse);
/** A bidirectional stream. */
export const WATCH = method('Watch/Watch', WatchRequest, WatchResponse);
export const STATUS = method('Maintenance/Status', StatusRequest, StatusResponse);

/** The range of all keys that start with `prefix`: [key, rangeEnd). A lone zero byte as the end means: no end. */
export function prefixRange(prefix: string): { readonly key: Uint8Array; readonly rangeEnd: Uint8Array } {
  if (prefix === '') return { key: new Uint8Array([0]), rangeEnd: new Uint8Array([0]) };
  const key = Buffer.from(prefix);
  const rangeEnd = Buffer.from(key);
  // UTF-8 never contains 0xff, so the last byte can always be raised.
  rangeEnd[rangeEnd.length - 1] = (rangeEnd.at(-1) ?? 0) + 1;
  return { key, rangeEnd };
}
