// SPDX-License-Identifier: Apache-2.0
import { type DescEnum, type DescField, type DescMessage, ScalarType } from '@bufbuild/protobuf';
import type { FieldViolation } from '@busbar/core/errors';
import { fieldPath, invalid, show } from '../api/validation.ts';
import { prototypeKey } from '../bounds/scan-json.ts';

/**
 * Proto3 JSON, strictly. The generated fromJSON takes anything: it ignores a field that it does not know, makes "7" of 7
 * and 0 of false. Over gRPC such a request cannot be written; here a misspelt field would be a change that silently is
 * not made. So a request is first held against its descriptor, and every deviation is told with its path.
 */
type Path = readonly PropertyKey[];
type Report = (path: Path, problem: string, expected: string) => void;

/** Throws INVALID_REQUEST unless `json` is a message of this type. */
export function checkRequest(type: DescMessage, json: unknown): void {
  const violations: FieldViolation[] = [];
  checkMessage(type, json, [], (path, problem, expected) => {
    violations.push({ field: fieldPath(path) || 'the body', problem, expected });
    // The rest is not looked at.
    if (violations.length === VIOLATIONS_MAX) throw invalid(violations);
  });
  if (violations.length > 0) throw invalid(violations);
}

/** As many as for a request that is well-formed and wrong (api/validation.ts). */
const VIOLATIONS_MAX = 20;

function checkMessage(type: DescMessage, value: unknown, path: Path, report: Report): void {
  if (type.typeName === 'google.protobuf.Timestamp') checkTimestamp(value, path, report);
  else if (isObject(value)) checkFields(type, value, path, report);
  else report(path, `is ${show(value)}`, 'an object {…}');
}

function checkFields(type: DescMessage, value: Record<string, unknown>, path: Path, report: Report): void {
  const seen = new Map<DescField, string>();
  const oneofs = new Map<string, string>();
  for (const [key, item] of Object.entries(value)) {
    const field = type.fields.find(({ jsonName, name }) => key === jsonName || key === name);
    if (field === undefined) {
      report([...path, key], 'is unknown', known(type));
      continue;
    }
    const before = seen.get(field);
    if (before !== undefined) report([...path, key], `is the same as ${before}`, 'each field once');
    seen.set(field, key);
    // In proto3 JSON null is the same as leaving the field out.
    if (item === null) continue;
    if (field.oneof !== undefined) {
      const other = oneofs.get(field.oneof.name);
      if (other !== undefined)
        report([...path, key], `is given together with ${other}`, `only one of ${oneofOf(field)}`);
      oneofs.set(field.oneof.name, key);
    }
    checkField(field, item, [...path, key], report);
  }
}

function checkField(field: DescField, value: unknown, path: Path, report: Report): void {
  if (field.fieldKind === 'list') {
    if (Array.isArray(value))
      for (const [index, item] of value.entries()) checkValue(field, item, [...path, index], report);
    else report(path, `is ${show(value)}`, 'a list […]');
  } else if (field.fieldKind === 'map') {
    if (!isObject(value)) report(path, `is ${show(value)}`, 'an object {"key": …}');
    else
      for (const [key, item] of Object.entries(value)) {
        if (key === '__proto__') {
          const { problem, expected } = prototypeKey('');
          report(path, problem, expected);
        } else if (!key.isWellFormed()) report(path, `has the key ${show(key)}`, 'well-formed Unicode');
        checkValue(field, item, [...path, key], report);
      }
  } else checkValue(field, value, path, report);
}

/** A single value: of a plain field, an element of a list, a value of a map. */
function checkValue(field: DescField, value: unknown, path: Path, report: Report): void {
  if (field.message !== undefined) checkMessage(field.message, value, path, report);
  else if (field.enum !== undefined) checkEnum(field.enum, value, path, report);
  else if (field.scalar !== undefined) {
    const expected = scalarProblem(field.scalar, value);
    if (expected !== null) report(path, `is ${show(value)}`, expected);
  }
}

function checkEnum(type: DescEnum, value: unknown, path: Path, report: Report): void {
  // Numbers are allowed by proto3 JSON, for values that have a name.
  if (type.values.some(({ name, number }) => value === name || value === number)) return;
  report(path, `is ${show(value)}`, `one of ${type.values.map(({ name }) => name).join(', ')}`);
}

/** RFC 3339, as proto3 JSON writes it. */
const TIMESTAMP = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)$/;

function checkTimestamp(value: unknown, path: Path, report: Report): void {
  if (typeof value === 'string' && TIMESTAMP.test(value) && !Number.isNaN(Date.parse(value))) return;
  report(path, `is ${show(value)}`, 'a time such as "2026-01-31T13:00:00Z"');
}

const INT64_MIN = -(2n ** 63n);
const INT64_MAX = 2n ** 63n - 1n;

/** What would be right, or null when it is. */
function scalarProblem(type: ScalarType, value: unknown): string | null {
  switch (type) {
    case ScalarType.STRING:
      return typeof value === 'string' && value.isWellFormed() ? null : 'a text "…" of well-formed Unicode';
    case ScalarType.BOOL:
      return typeof value === 'boolean' ? null : 'true or false';
    case ScalarType.BYTES:
      return typeof value === 'string' && /^[A-Za-z0-9+/_-]*={0,2}$/.test(value) ? null : 'base64 "…"';
    case ScalarType.INT32:
      return wholeBetween(value, -(2n ** 31n), 2n ** 31n - 1n) ? null : 'a whole number -2147483648 to 2147483647';
    case ScalarType.UINT32:
      return wholeBetween(value, 0n, 2n ** 32n - 1n) ? null : 'a whole number 0 to 4294967295';
    case ScalarType.INT64:
      // JSON.parse has rounded a larger number already: as text alone it is what was written.
      return wholeBetween(value, INT64_MIN, INT64_MAX) ? null : 'a whole number as text, such as "1073741824"';
    case ScalarType.UINT64:
      return wholeBetween(value, 0n, 2n ** 64n - 1n) ? null : 'a whole number as text, 0 or more';
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return typeof value === 'number' ? null : 'a number';
    default:
      throw new Error(`the check of JSON does not know the type ${ScalarType[type]} yet`);
  }
}

function wholeBetween(value: unknown, min: bigint, max: bigint): boolean {
  if (typeof value === 'number') return Number.isSafeInteger(value) && BigInt(value) >= min && BigInt(value) <= max;
  // 20 characters hold every 64-bit number; BigInt of a megabyte of digits would take minutes.
  return typeof value === 'string' && /^-?\d{1,20}$/.test(value) && BigInt(value) >= min && BigInt(value) <= max;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function known(type: DescMessage): string {
  if (type.fields.length === 0) return `no field: ${type.name} is empty`;
  return `one of ${type.fields.map(({ jsonName }) => jsonName).join(', ')}`;
}

function oneofOf(field: DescField): string {
  return (field.oneof?.fields ?? []).map(({ jsonName }) => jsonName).join(', ');
}

/**
 * An answer as the edge sends it: what the generated toJSON makes, and the answer's own lists also when they are empty, so
 * that `.vms[]` always works. `busbar … -o json` does the same.
 */
export function answerJson(type: DescMessage, json: unknown): Record<string, unknown> {
  const made = json as Record<string, unknown>;
  const answer: Record<string, unknown> = {};
  for (const field of type.fields) {
    const value = made[field.jsonName] ?? (field.fieldKind === 'list' ? [] : undefined);
    if (value !== undefined) answer[field.jsonName] = value;
  }
  return answer;
}
