// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import { CreateVmRequest, ListVmsResponse } from '@busbar/proto/gen/busbar/v1/vm';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { openRegistry } from '../bounds/registry.ts';
import { Rig } from '../testing/rig.ts';
import { answerJson, checkRequest } from './request-json.ts';

const registry = openRegistry();
const createVm = registry('busbar.v1.CreateVmRequest');

function violations(json: unknown): [string, string, string][] {
  try {
    checkRequest(createVm, json);
  } catch (error) {
    expect(error).toBeInstanceOf(BusbarError);
    expect(error).toMatchObject({ kind: 'invalid', reason: 'INVALID_REQUEST' });
    return (error as BusbarError).fields.map(({ field, problem, expected }) => [field, problem, expected]);
  }
  return [];
}

describe('a request as JSON', () => {
  it.each<[string, unknown]>([
    ['nothing', {}],
    ['null for a field', { name: null, spec: null, labels: null }],
    ['64 bits as text', { spec: { memoryBytes: '9223372036854775807' } }],
    ['64 bits as a number that is exact', { spec: { memoryBytes: 268435456 } }],
    ['32 bits as text', { spec: { cpu: { vcpus: '2' } } }],
    ['an enum by name or number', { spec: { runPolicy: 'RUN_POLICY_RUNNING', firmware: 2 } }],
    ['names of the proto file', { validate_only: true, spec: { memory_bytes: '1', disks: [{ size_bytes: '1' }] } }],
    ['odd keys of a map', { labels: { '': 'x', prototype: 'y', constructor: 'z' } }],
  ])('%s is taken', (_what, json) => expect(violations(json)).toEqual([]));

  const LIST = 'one of name, labels, spec, validateOnly, requestId';
  it.each<[string, unknown, [string, string, string]]>([
    ['an unknown field', { nmae: 'a' }, ['nmae', 'is unknown', LIST]],
    ['a field of Object', { constructor: {} }, ['constructor', 'is unknown', LIST]],
    [
      'an unknown field deep inside',
      { spec: { disks: [{}, { sizeGiB: 1 }] } },
      ['spec.disks[1].sizeGiB', 'is unknown', 'one of name, volume, image, sizeBytes, bus, cache, bootOrder, readOnly'],
    ],
    [
      'a key that an object would drop',
      { labels: { ['__proto__']: 'x' } },
      ['labels', 'has the key "__proto__"', 'another key, JavaScript keeps this one to itself'],
    ],
    ['a number for text', { name: 7 }, ['name', 'is 7', 'a text "…" of well-formed Unicode']],
    ['half a character', { name: '\ud800' }, ['name', 'is "\\ud800"', 'a text "…" of well-formed Unicode']],
    ['text for a truth', { validateOnly: 'false' }, ['validateOnly', 'is "false"', 'true or false']],
    ['an object for a list', { spec: { disks: {} } }, ['spec.disks', 'is {}', 'a list […]']],
    ['null in a list', { spec: { disks: [null] } }, ['spec.disks[0]', 'is null', 'an object {…}']],
    ['a list for an object', { spec: [] }, ['spec', 'is []', 'an object {…}']],
    ['a list for a map', { labels: [] }, ['labels', 'is []', 'an object {"key": …}']],
    ['a number in a map of text', { labels: { a: 1 } }, ['labels.a', 'is 1', 'a text "…" of well-formed Unicode']],
    [
      'a wrong word',
      { spec: { firmware: 'UEFI' } },
      ['spec.firmware', 'is "UEFI"', 'one of FIRMWARE_UNSPECIFIED, FIRMWARE_BIOS, FIRMWARE_UEFI'],
    ],
    [
      'a fraction',
      { spec: { cpu: { vcpus: 1.5 } } },
      ['spec.cpu.vcpus', 'is 1.5', 'a whole number -2147483648 to 2147483647'],
    ],
    [
      'one field by both names',
      { validateOnly: true, validate_only: false },
      ['validate_only', 'is the same as validateOnly', 'each field once'],
    ],
    ['no object', 'x', ['the body', 'is "x"', 'an object {…}']],
    ['null', null, ['the body', 'is null', 'an object {…}']],
  ])('%s is refused', (_what, json, expected) => expect(violations(json)).toEqual([expected]));

  it.each([
    '',
    '0x10',
    '1e3',
    ' 1',
    '1.0',
    '9223372036854775808',
    '-9223372036854775809',
    '1'.repeat(1_000_000),
    true,
    2 ** 60,
  ])('of 64 bits, %j is refused', (memoryBytes) => {
    expect(violations({ spec: { memoryBytes } })).toMatchObject([
      ['spec.memoryBytes', /^is /, 'a whole number as text, such as "1073741824"'].map((part) =>
        part instanceof RegExp ? expect.stringMatching(part) : part,
      ),
    ]);
  });

  it('tells twenty mistakes at most', () => {
    expect(violations(Object.fromEntries(Array.from({ length: 1_000 }, (_, i) => [`x${i}`, 1])))).toHaveLength(20);
  });

  it('refuses what only one of a choice may be', () => {
    const type = registry('busbar.v1.ImportImageRequest');
    expect(() => checkRequest(type, { header: {}, chunk: '' })).toThrow('only one of header, chunk');
  });

  it('whatever it is, it is refused with a reason or can be read', () => {
    const key = fc.constantFrom(
      'name',
      'spec',
      'labels',
      'validateOnly',
      'cpu',
      'disks',
      'memoryBytes',
      'firmware',
      'x',
    );
    const { value } = fc.letrec((tie) => ({
      value: fc.oneof(
        { depthSize: 'small' },
        fc.jsonValue(),
        fc.array(tie('value'), { maxLength: 3 }),
        fc.dictionary(key, tie('value'), { maxKeys: 4 }),
      ),
    }));
    let taken = 0;
    fc.assert(
      fc.property(value, (json) => {
        if (violations(json).length > 0) return;
        taken++;
        const message = CreateVmRequest.fromJSON(json);
        // What was read survives the wire: nothing of the wrong type has got in.
        expect(CreateVmRequest.decode(CreateVmRequest.encode(message).finish())).toEqual(message);
      }),
      { numRuns: 2_000 },
    );
    expect(taken).toBeGreaterThan(10);
  });

  it('every type of every request can be checked', () => {
    const visited = new Set<string>();
    const visit = (typeName: string) => {
      if (visited.has(typeName)) return;
      visited.add(typeName);
      const type = registry(typeName);
      if (typeName.startsWith('google.')) expect(typeName).toBe('google.protobuf.Timestamp');
      for (const field of type.fields) {
        // The value of each scalar type is looked at without "does not know the type".
        expect(() => checkRequest(type, { [field.jsonName]: field.fieldKind === 'list' ? [{}] : {} })).not.toThrow(
          /yet/,
        );
        if (field.message !== undefined) visit(field.message.typeName);
      }
    };
    for (const { definition } of new Rig().services)
      for (const { name } of Object.values(definition.methods)) visit(`busbar.v1.${name}Request`);
    expect(visited.size).toBeGreaterThan(30);
  });
});

describe('an answer as JSON', () => {
  it('has its lists also when they are empty, in the order of the proto file', () => {
    const json = ListVmsResponse.toJSON(ListVmsResponse.fromPartial({ revision: 7n }));
    expect(JSON.stringify(answerJson(registry('busbar.v1.ListVmsResponse'), json))).toBe('{"vms":[],"revision":"7"}');
  });
});
