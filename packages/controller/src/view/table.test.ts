// SPDX-License-Identifier: Apache-2.0
import type { Revision } from '@busbar/core/ids';
import { AuditRecord } from '@busbar/proto/gen/busbar/v1/audit';
import { describe, expect, it } from 'vitest';
import { encodeRecord, recordKey } from '../records/kinds.ts';
import { Table } from './table.ts';

const kv = (id: string, value: string, revision: bigint) => ({
  key: recordKey('audit', id),
  value,
  createRevision: revision as Revision,
  modRevision: revision as Revision,
});
const audit = (id: string) => encodeRecord('audit', AuditRecord.fromPartial({ id, method: 'M' }));

describe('records that are decoded when somebody looks', () => {
  it('are counted, found and in order', () => {
    const table = new Table('audit');
    for (const [i, id] of ['b', 'a', 'c'].entries())
      expect(table.take(id, kv(id, audit(id), BigInt(i + 1)))).toBe(true);
    expect([table.size, table.revisionOf('c'), table.delete('c'), table.delete('c')]).toEqual([3, 3n, '', undefined]);
    expect(table.get('a')?.record).toMatchObject({ id: 'a', method: 'M' });
    expect(table.get('a')).toBe(table.get('a'));
    expect(table.sorted().map(({ id }) => id)).toEqual(['a', 'b']);
    expect(table.oldestFirst().map(({ id }) => id)).toEqual(['b', 'a']);
  });

  it('are told of and left out when they cannot be read', () => {
    const told: string[] = [];
    const table = new Table('audit', (id) => told.push(id));
    table.take('good', kv('good', audit('good'), 1n));
    table.take('bad', kv('bad', '{', 2n));
    expect(told).toEqual([]);
    expect(table.oldestFirst().map(({ id }) => id)).toEqual(['good']);
    expect(table.get('bad')).toBeUndefined();
    expect([told, table.size]).toEqual([['bad'], 1]);
  });
});
