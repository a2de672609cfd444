// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import { AuditRecord } from '@busbar/proto/gen/busbar/v1/audit';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { plainAddress } from '../api/arrival.ts';
import { decodeRecord, encodeRecord } from '../records/kinds.ts';
import { auditRecord, labelsOf, refusalOf, targetOf } from './record.ts';

/** Every UTF-16 unit, halves of characters included. */
const anyText = fc
  .array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 400 })
  .map((units) => String.fromCharCode(...units));

describe('an audit record', () => {
  it.each([
    ['busbar.v1.VmService', { vm: 'relay' }, { kind: 'vm', id: '', name: 'relay' }],
    ['busbar.v1.VmService', { name: 'relay' }, { kind: 'vm', id: '', name: 'relay' }],
    [
      'busbar.v1.ImageService',
      { part: { $case: 'header', value: { name: 'debian' } } },
      { kind: 'image', name: 'debian' },
    ],
    ['busbar.v1.OperationService', { operation: 'x' }, { kind: 'operation', name: 'x' }],
    ['busbar.v1.VmService', { vm: '\u001b[2J\ud800' }, { kind: 'vm', name: '?[2J?' }],
  ])('of %s %j is about %j', (service, request, target) => {
    expect(targetOf(service, request)).toMatchObject(target);
  });

  it('stays small and storable whatever was sent', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 2 }), anyText, (request, text) => {
        const asked = { vm: text, requestId: text, name: text, ...(request as object) };
        for (const sent of [request, asked]) {
          const error = new BusbarError({ kind: 'conflict', reason: 'X', message: text });
          const record = auditRecord(
            {
              id: 'a',
              time: new Date(0),
              method: 'm',
              controller: 'host1',
              target: targetOf('busbar.v1.VmService', sent),
              ...labelsOf(sent),
              ...refusalOf(error),
            },
            null,
            { transport: 'https', address: plainAddress(text), connection: text },
          );
          const stored = encodeRecord('audit', record);
          expect(stored.length).toBeLessThan(2_500);
          expect(stored.isWellFormed()).toBe(true);
          expect(AuditRecord.toJSON(decodeRecord('audit', stored))).toEqual(AuditRecord.toJSON(record));
        }
      }),
    );
  });

  it('shows of a wrong request its fields, of labels not even the keys, and of a bug nothing', () => {
    const wrong = new BusbarError({
      kind: 'invalid',
      reason: 'INVALID_REQUEST',
      message: 'spec.cloudInit.userData is "hunter2"',
      fields: [
        { field: 'spec.cloudInit.userData', problem: 'is "hunter2"', expected: 'less' },
        { field: 'labels.hunter2', problem: '', expected: '' },
      ],
    });
    expect(refusalOf(wrong)).toEqual({ reason: 'INVALID_REQUEST', message: 'wrong: spec.cloudInit.userData, labels' });
    expect(refusalOf(new TypeError('hunter2'))).toEqual({ reason: 'INTERNAL', message: '' });
    expect(refusalOf(null)).toEqual({ reason: '', message: '' });
  });
});
