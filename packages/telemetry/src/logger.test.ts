// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import { withFields } from '@busbar/core/log';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createLogger, type LogLevel } from './logger.ts';
import { REDACTED } from './redact.ts';

function open(level: LogLevel = 'info') {
  const text: string[] = [];
  const destination = { write: (line: string) => void text.push(line) };
  const logger = createLogger({ base: { service: 'busbar-test', host: 'host1' }, level, destination });
  return { logger, text, lines: () => text.map((line) => JSON.parse(line) as Record<string, unknown>) };
}

const PEM = '-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIA\n-----END EC PRIVATE KEY-----';

describe('the log', () => {
  it('is one JSON object per line: who, when, what, and its fields', () => {
    const { logger, text, lines } = open();
    logger.info({ vmId: 'v-1', epoch: '3' }, 'VM changes phase');
    expect(text[0]?.endsWith('}\n')).toBe(true);
    expect(lines()).toEqual([
      {
        level: 30,
        time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/) as string,
        service: 'busbar-test',
        host: 'host1',
        vmId: 'v-1',
        epoch: '3',
        msg: 'VM changes phase',
      },
    ]);
  });

  it('writes what its level lets through', () => {
    const { logger, lines } = open('warn');
    logger.debug({}, 'no');
    logger.info({}, 'no');
    logger.warn({}, 'yes');
    logger.error({}, 'yes');
    expect(lines().map(({ level }) => level)).toEqual([40, 50]);
  });

  it('carries the fields of whom it was made for on every line', () => {
    const { logger, lines } = open();
    const own = withFields(withFields(logger, { operationId: 'o-1' }), { vmId: 'v-1' });
    own.warn({ step: 'start', vmId: 'v-2' }, 'the line itself has the last word');
    own.error({}, 'x');
    expect(lines()).toMatchObject([
      { operationId: 'o-1', vmId: 'v-2', step: 'start' },
      { operationId: 'o-1', vmId: 'v-1', msg: 'x' },
    ]);
  });

  it('holds errors as records, wherever they stand', () => {
    const { logger, lines } = open();
    const cause = new BusbarError({ kind: 'unavailable', reason: 'R', message: 'inner' });
    logger.warn({ err: new Error('outer', { cause }), others: [cause] }, 'm');
    expect(lines()).toMatchObject([
      {
        err: { message: 'outer: inner', chain: [{ message: 'outer' }, { reason: 'R', kind: 'unavailable' }] },
        others: [{ message: 'inner', chain: [{ reason: 'R' }] }],
      },
    ]);
  });

  it.each([
    ['a field', { userData: '#cloud-config' }],
    ['in snake case', { network_config: 'x' }],
    ['in kebab and capitals', { 'Private-Key': 'x' }],
    ['deep inside', { request: { spec: { cloudInit: { userData: 'x' } } } }],
    ['in a list', { hosts: [{ name: 'h', joinToken: 'x' }] }],
    ['whatever its type', { password: { hash: 'x' } }],
    ['a key in a text', { note: `it is ${PEM}, see` }],
    ['a key that was cut off', { note: PEM.slice(0, 40) }],
    ['a key in an error', { err: new Error(`bad PEM: ${PEM}`) }],
    ['a key in the cause of an error', { err: new Error('outer', { cause: new Error(PEM) }) }],
  ])('leaves no secret: %s', (_name, fields) => {
    const { logger, text } = open();
    logger.info(fields, 'm');
    expect(text[0]).toContain(REDACTED);
    expect(text[0]).not.toMatch(/MHcCAQEE|"x"|cloud-config|BEGIN/);
  });

  it('keeps what only looks like one', () => {
    const { logger, lines } = open();
    logger.info({ key: 'busbar/vm/1', token: '', secret: null, tokens: 3 }, 'm');
    expect(lines()).toMatchObject([{ key: 'busbar/vm/1', token: '', secret: null, tokens: 3 }]);
  });

  it('takes whatever it is given: never throws, always one line of JSON', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.anything()), (fields) => {
        const { logger, text, lines } = open();
        logger.info(fields, 'm');
        expect(text).toHaveLength(1);
        expect(lines()[0]).toBeDefined();
      }),
    );
  });
});
