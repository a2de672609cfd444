// SPDX-License-Identifier: Apache-2.0
import { Vm, VmPhase } from '@busbar/proto/gen/busbar/v1/vm';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { CliError } from '../cli/exit.ts';
import { vms } from '../vm/resource.ts';
import { compileFilter, OPERATORS, parseFilter } from './filter.ts';

// A limit for hanging on a machine that is busy with other tests, not a measure.
vi.setConfig({ testTimeout: 60_000 });

const NOW = new Date('2026-03-01T12:30:00Z');
const MIB = 1024n ** 2n;

const vm = Vm.fromPartial({
  meta: { name: 'web', createTime: new Date('2026-03-01T10:00:00Z'), labels: { plant: 'north', 'example.com/x': '1' } },
  spec: {
    cpu: { vcpus: 2 },
    memoryBytes: 2048n * MIB,
    shutdownTimeoutMs: 60_000,
    disks: [
      { name: 'boot', bus: 'DISK_BUS_VIRTIO', sizeBytes: 10n },
      { name: 'data', bus: 'DISK_BUS_SATA', sizeBytes: 1024n * MIB },
    ],
  },
  status: { phase: VmPhase.RUNNING, host: 'host1', message: 'a "b", c' },
});

async function matches(filter: string): Promise<boolean> {
  return (await compileFilter(vms, filter, '--filter'))(vm, NOW);
}

async function refusal(filter: string): Promise<{ what: string; why: string; do: string }> {
  const error: unknown = await compileFilter(vms, filter, '--filter').catch((thrown: unknown) => thrown);
  if (!(error instanceof CliError)) throw new Error(`${filter} was not refused: ${String(error)}`);
  return { what: error.what, why: error.why.join(), do: error.hint };
}

describe('what matches', () => {
  it.each([
    'phase=running',
    'phase=RUNNING',
    'phase!=stopped',
    'phase~run',
    'name=web',
    'vcpus=2',
    'vcpus<3,vcpus>1,vcpus<=2,vcpus>=2',
    'memory>1GiB',
    'memory = 2048MiB , host = host1',
    'age>2h',
    'age<1d',
    'age<151m',
    'labels.plant=north',
    'meta.labels.plant=north',
    'labels.example.com/x=1',
    'labels.none!=x',
    'spec.cpu.vcpus=2',
    'spec.memory_bytes=2GiB',
    'spec.shutdownTimeoutMs=1min',
    'spec.disks.bus=sata',
    'spec.disks.sizeBytes>=1GiB',
    'spec.ha.enabled=false',
    'spec.guestAgentDisabled=false',
    'status.failedStarts=0',
    'meta.createTime<2026-03-02',
    'meta.createTime>2026-03-01T09:59:59Z',
    'message="a \\"b\\", c"',
    'message~"B\\""',
    'wanted!=running',
  ])('%s', async (filter) => expect(await matches(filter)).toBe(true));

  it.each([
    'phase=stopped',
    'phase!=running',
    'memory<2GiB',
    'age<2h',
    'labels.plant=south',
    'labels.none=x',
    'labels.none~',
    'spec.disks.bus!=sata',
    'spec.disks.bus=scsi',
    'phase=running,host=host2',
    'spec.ha.enabled=true',
  ])('not %s', async (filter) => expect(await matches(filter)).toBe(false));
});

describe('what is refused, with term, position and what is right', () => {
  it.each([
    ['', 1, 'a term is missing', 'write terms such as phase=running,memory>1GiB'],
    ['phase=running,', 15, 'a term is missing', 'write terms such as'],
    ['phase', 1, '"phase": it has no operator', 'write NAME followed by one of != <= >= = < > ~'],
    ['=x', 1, 'the name is missing', 'write a column or a path before it'],
    ['name="web', 6, 'the quote is not closed', 'write a second " after the value'],
    ['name="web"x', 11, 'something follows the value', 'write a comma'],
    ['phase=running,phse=x', 15, '"phse=x": there is no column "phse"', 'did you mean phase?'],
    ['phase=runing', 1, '"runing" is not known', 'did you mean running?'],
    ['phase=x', 1, '"x" is not known', 'write one of creating, stopped, pending'],
    ['host=host1,memory>1gib', 12, '"memory>1gib": "1gib" has the unknown unit "gib"', 'write GiB'],
    ['memory~1GiB', 1, 'memory is a size, which ~ does not fit', 'write one of != <= >= = < >'],
    ['name<b', 1, 'name is text, which < does not fit', 'write one of = != ~'],
    ['age>3x', 1, '"3x" is no age', 'write a number with s, min, h or d'],
    ['spec.cpu=2', 1, 'spec.cpu is not a single value', 'spec.cpu.vcpus'],
    ['spec.cpus.vcpus=2', 1, 'there is no field "cpus" in spec', 'did you mean spec.cpu?'],
    ['meta.labels=x', 1, 'meta.labels is not a single value', 'write meta.labels.KEY'],
    ['spec.ha.enabled=yes', 1, '"yes" is neither true nor false', 'write true or false'],
    ['meta.createTime>yesterday', 1, '"yesterday" is no time', 'write e.g. 2026-03-01'],
    ['vcpus=two', 1, '"two" is no whole number', 'write a whole number'],
  ])('%s', async (filter, position, why, hint) => {
    const error = await refusal(filter);
    expect(error.what).toBe(`--filter is not understood at character ${position}`);
    expect(error.why).toContain(why);
    expect(error.do).toContain(hint);
  });
});

describe('the grammar', () => {
  it('never throws, and a problem lies within the text', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', maxLength: 60 }), (text) => {
        const parsed = parseFilter(text);
        if (parsed.ok) return;
        expect(parsed.error.position).toBeGreaterThanOrEqual(1);
        expect(parsed.error.position).toBeLessThanOrEqual(text.length + 1);
        expect(parsed.error.expected).not.toBe('');
      }),
    );
  });

  it('ends with a CliError or a predicate, whatever is typed', async () => {
    const piece = fc.oneof(
      fc.constantFrom(
        ...OPERATORS,
        ',',
        '"',
        '\\',
        ' ',
        'phase',
        'running',
        'memory',
        '1GiB',
        'labels.',
        'spec.disks',
        '.',
      ),
      fc.string({ maxLength: 5 }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 12 }), async (pieces) => {
        try {
          (await compileFilter(vms, pieces.join(''), '--filter'))(vm, NOW);
        } catch (error) {
          expect(error).toBeInstanceOf(CliError);
        }
      }),
      { numRuns: 500 },
    );
  });

  it('takes every value in quotes', () => {
    fc.assert(
      fc.property(fc.constantFrom(...OPERATORS), fc.string({ unit: 'grapheme', maxLength: 40 }), (op, value) => {
        const quoted = `"${value.replaceAll(/["\\]/g, '\\$&')}"`;
        const parsed = parseFilter(`a${op}x,name ${op} ${quoted} , b${op}y`);
        expect(parsed.ok && parsed.value.map((term) => [term.name, term.op, term.value])).toEqual([
          ['a', op, 'x'],
          ['name', op, value],
          ['b', op, 'y'],
        ]);
      }),
    );
  });

  it('has limits', () => {
    expect(parseFilter('x'.repeat(5000))).toMatchObject({ ok: false, error: { expected: 'at most 4096' } });
    expect(parseFilter('a=b,'.repeat(40))).toMatchObject({
      ok: false,
      error: { problem: 'it has more than 32 terms' },
    });
  });
});
