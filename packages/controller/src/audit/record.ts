// SPDX-License-Identifier: Apache-2.0
// What an audit record says. Pure. Never the content of a request, which may hold secrets such as cloud-init data: only
// the names in it.
import { BusbarError } from '@busbar/core/errors';
import type { AuditRecord } from '@busbar/proto/gen/busbar/v1/audit';
import type { ResourceRef } from '@busbar/proto/gen/busbar/v1/common';
import type { Arrival } from '../api/arrival.ts';
import type { Caller } from '../api/call.ts';
import { cut } from '../api/validation.ts';
import { type Kind, parseRecordKey, recordIn } from '../records/kinds.ts';
import type { Write } from '../store/cluster-store.ts';
import type { ClusterView } from '../view/view.ts';

const NAME_MAX = 253;
const MESSAGE_MAX = 300;

export function auditRecord(
  known: Pick<AuditRecord, 'id' | 'time' | 'method' | 'controller'> & Partial<AuditRecord>,
  caller: Caller | null,
  arrival: Arrival,
): AuditRecord {
  return {
    caller: caller?.name ?? 'nobody',
    role: caller?.role ?? '',
    // Two who hold certificates of one name are told apart by these.
    certificateSerial: caller?.certificate?.serial ?? '',
    address: arrival.address,
    transport: arrival.transport,
    streamBeginTime: undefined,
    streamEndTime: undefined,
    streamBeginId: '',
    target: undefined,
    requestId: '',
    validateOnly: false,
    revisionBefore: 0n,
    reason: '',
    message: '',
    operation: '',
    furtherCalls: 0,
    changed: false,
    // Both are the record's own place in the store: known once it is read.
    revisionAfter: 0n,
    revision: 0n,
    ...known,
  };
}

/** What a transaction changes, from its own writes, and the revision that this had before. */
export function changeIn(
  view: ClusterView,
  writes: readonly Write[],
  ids: { readonly operationId: string; readonly resourceId: string },
): Pick<AuditRecord, 'target' | 'revisionBefore'> {
  for (const write of writes) {
    const key = parseRecordKey(write.key);
    if (key === null) continue;
    if (key.kind === 'operation' && key.id === ids.operationId) {
      // A call that begins an operation is about the operation's target, even where it writes no record of it yet.
      const target = recordIn('operation', write)?.operation?.target;
      if (target !== undefined) return { target, revisionBefore: revisionOf(view, target.kind as Kind, target.id) };
    }
    if (key.id === ids.resourceId && !key.kind.endsWith('-status')) {
      const record = recordIn(key.kind, write) ?? view.tables[key.kind].get(key.id)?.record;
      const name = (record as { readonly meta?: { readonly name: string } } | undefined)?.meta?.name ?? '';
      return {
        target: { kind: key.kind, id: key.id, name },
        revisionBefore: revisionOf(view, key.kind, key.id),
      };
    }
  }
  return { target: undefined, revisionBefore: 0n };
}

function revisionOf(view: ClusterView, kind: Kind, id: string): bigint {
  return view.tables[kind]?.get(id)?.modRevision ?? 0n;
}

const KINDS_IN_REQUESTS = ['vm', 'volume', 'image', 'network', 'host', 'operation'] as const;

/** What a request is about: the field that names a resource, else its new name. */
export function targetOf(service: string, request: unknown): ResourceRef | undefined {
  const fields = fieldsOf(request);
  for (const kind of KINDS_IN_REQUESTS) {
    const value = fields[kind];
    if (typeof value === 'string' && value !== '') return { kind, id: '', name: printable(value, NAME_MAX) };
  }
  if (typeof fields.name !== 'string' || fields.name === '') return undefined;
  // "busbar.v1.VmService" makes VMs.
  const kind = /(\w+)Service$/.exec(service)?.[1]?.toLowerCase() ?? '';
  return { kind, id: '', name: printable(fields.name, NAME_MAX) };
}

/** The id of what a request named, if there is such a thing. */
export function resolved(view: ClusterView, target: ResourceRef | undefined): ResourceRef | undefined {
  if (target === undefined) return undefined;
  const entry = view.tables[target.kind as Kind]?.find(target.name);
  if (entry === undefined) return target;
  const meta = (entry.record as { readonly meta?: { readonly name: string } }).meta;
  return { ...target, id: entry.id, name: meta?.name ?? '' };
}

/** The parts of a request that its record may show. */
export function labelsOf(request: unknown): Pick<AuditRecord, 'requestId' | 'validateOnly'> {
  const { requestId, validateOnly } = fieldsOf(request);
  const wellFormed = typeof requestId === 'string' && /^[-A-Za-z0-9_.:]{0,128}$/.test(requestId);
  return { requestId: wellFormed ? requestId : '', validateOnly: validateOnly === true };
}

function fieldsOf(request: unknown): Readonly<Record<string, unknown>> {
  if (request === null || typeof request !== 'object') return {};
  const { part } = request as { readonly part?: { readonly $case?: string; readonly value?: unknown } | null };
  // An upload says in its first part what it is.
  return part?.$case === 'header' ? fieldsOf(part.value) : (request as Record<string, unknown>);
}

/** Why a call was refused. */
export function refusalOf(error: unknown): Pick<AuditRecord, 'reason' | 'message'> {
  if (error === null) return { reason: '', message: '' };
  // What a bug says may hold anything; it is in the controller's log.
  if (!(error instanceof BusbarError)) return { reason: 'INTERNAL', message: '' };
  const fields = error.fields.map(({ field }) => field.replace(/\b(labels|hostSelector)\..*/, '$1'));
  // The messages of invalid requests quote what was sent.
  const message = error.kind === 'invalid' ? (fields.length === 0 ? '' : `wrong: ${fields.join(', ')}`) : error.message;
  return { reason: error.reason, message: printable(message, MESSAGE_MAX) };
}

/** Records are read in terminals: what would move a cursor there is replaced, and broken characters with it. */
function printable(text: string, length: number): string {
  return cut(text.slice(0, length + 1).replace(/[\p{Cc}\p{Cs}]/gu, '?'), length);
}
