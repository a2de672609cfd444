// SPDX-License-Identifier: Apache-2.0
import { VirtualClock } from '@busbar/core/clock/virtual';
import { BusbarError } from '@busbar/core/errors';
import type { Logger } from '@busbar/core/log';
import type { Role } from '@busbar/pki/role';
import { CreateVmRequest } from '@busbar/proto/gen/busbar/v1/vm';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import type { Noted } from '../audit/trail.ts';
import { ADMIT_ALL, testCaller } from '../testing/callers.ts';
import { Rig } from '../testing/rig.ts';
import type { Arrival } from './arrival.ts';
import type { Caller } from './call.ts';
import { pipeline } from './pipeline.ts';
import type { Access, MethodDefinition } from './service.ts';

const services = new Rig().services;
const rpcs = services.flatMap(({ definition, methods }) =>
  Object.entries(definition.methods).map(([key, rpc]) => ({
    name: `${definition.name}/${key}`,
    definition,
    rpc,
    method: methods[key],
    key,
  })),
);
const signal = new AbortController().signal;

let lines: { level: string; fields: Record<string, unknown>; message: string }[];
let logger: Logger;
let noted: Noted[];
const trail = {
  admit() {},
  note(entry: Noted) {
    noted.push(entry);
    return `record-${noted.length}`;
  },
};
const gate = () => pipeline({ logger, trail, admission: ADMIT_ALL, clock: new VirtualClock() });
beforeEach(() => {
  lines = [];
  noted = [];
  const write = (level: string) => (fields: object, message: string) =>
    void lines.push({ level, fields: fields as Record<string, unknown>, message });
  logger = { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') };
});

async function invoke(entry: (typeof rpcs)[number], by: Role | Caller | null, request: unknown = {}): Promise<unknown> {
  const caller = typeof by === 'string' ? testCaller(by, `client/${by}`) : by;
  if (entry.method === undefined) throw new Error(`${entry.name} is not served`);
  if (!entry.rpc.requestStream && !entry.rpc.responseStream)
    return gate().unary(entry.definition.fullName, entry.rpc, entry.method)(request, caller, signal);
  const stream = gate().stream(entry.definition.fullName, entry.rpc, entry.method);
  async function* one() {
    yield request;
  }
  for await (const message of stream(entry.rpc.requestStream ? one() : request, caller, signal)) return message;
  return undefined;
}

/** What is not to be told from the method's name. */
const ACCESS: Readonly<Record<string, Access>> = {
  'ClusterService/adoptCluster': 'administer',
  'CertificateService/issueCertificate': 'administer',
  'CertificateService/revokeCertificate': 'administer',
  'CertificateService/renewCertificate': 'renew',
  'JoinTokenService/createJoinToken': 'administer',
  'JoinTokenService/deleteJoinToken': 'administer',
  'JoinService/join': 'join',
};
const MACHINE: Caller = { ...testCaller(), name: 'host/host1', role: null };

describe('every RPC of every service', () => {
  it('is served', () => {
    expect(rpcs.length).toBeGreaterThan(30);
    for (const { method, name } of rpcs) expect(method, name).toBeDefined();
  });

  it.each(rpcs.map((entry) => [entry.name, entry] as const))(
    '%s: nobody and, if it changes something, viewers are refused',
    async (name, entry) => {
      const wanted = ACCESS[name] ?? (/^(get|list|watch|wait|explain|drill)/.test(entry.key) ? 'read' : 'write');
      expect(entry.method?.access).toBe(wanted);
      if (wanted === 'join') {
        // The token is the proof: refused for what is in the request, not for the certificate.
        await expect(invoke(entry, null)).rejects.toMatchObject({ kind: 'invalid' });
        return;
      }
      await expect(invoke(entry, null)).rejects.toMatchObject({ kind: 'unauthenticated' });
      expect(lines.at(-1)).toMatchObject({
        level: 'warn',
        fields: { audit: true, caller: 'nobody', result: 'CLIENT_CERTIFICATE_REQUIRED' },
      });
      const tooLow = { kind: 'forbidden', reason: 'ROLE_TOO_LOW' };
      if (wanted === 'write' || wanted === 'administer')
        await expect(invoke(entry, 'viewer')).rejects.toMatchObject(tooLow);
      if (wanted === 'administer') await expect(invoke(entry, 'operator')).rejects.toMatchObject(tooLow);
      await expect(invoke(entry, MACHINE)).rejects.toMatchObject({
        kind: wanted === 'renew' ? 'invalid' : 'unauthenticated',
      });
      // Who tried to change something is on record; who only looked is not.
      const method = `${entry.definition.fullName}/${entry.rpc.name}`;
      const refused = [
        ['nobody', 'CLIENT_CERTIFICATE_REQUIRED'],
        ...(wanted === 'write' || wanted === 'administer' ? [['client/viewer', 'ROLE_TOO_LOW']] : []),
        ...(wanted === 'administer' ? [['client/operator', 'ROLE_TOO_LOW']] : []),
        [MACHINE.name, wanted === 'renew' ? 'INVALID_REQUEST' : 'CLIENT_CERTIFICATE_REQUIRED'],
      ];
      expect(noted.map(({ caller, method: of, details }) => [of, caller?.name ?? 'nobody', details.reason])).toEqual(
        wanted === 'read' ? [] : refused.map(([caller, reason]) => [method, caller, reason]),
      );
    },
  );

  it.each(
    rpcs.filter((entry) => entry.name !== 'ClusterService/getCluster').map((entry) => [entry.name, entry] as const),
  )('%s refuses nonsense as invalid', async (_name, entry) => {
    for (const nonsense of [null, 7, 'x', [], { revision: -1n, pageSize: -1, operation: 7, timeoutMs: -1, vm: {} }]) {
      await expect(invoke(entry, 'admin', nonsense)).rejects.toMatchObject({
        kind: 'invalid',
        reason: 'INVALID_REQUEST',
      });
    }
  });
});

describe('audit', () => {
  let rig: Rig;
  beforeEach(async () => {
    rig = new Rig();
    await rig.start();
  });
  afterEach(() => rig.stop());

  it('tells who did what to which, and keeps secrets out', async () => {
    const bound = rig.services.find((each) => each.definition.name === 'VmService');
    const rpc = bound?.definition.methods.createVm;
    const method = bound?.methods.createVm;
    if (bound === undefined || rpc === undefined || method === undefined) throw new Error('no CreateVm');
    const run = gate().unary(bound.definition.fullName, rpc, method);
    const caller = testCaller('admin', 'client/anna');
    const request = (name: string, memoryBytes: bigint) =>
      CreateVmRequest.fromPartial({
        name,
        spec: { cpu: { vcpus: 1 }, memoryBytes, cloudInit: { userData: 'password: hunter2' } },
      });
    await rig.run(run(request('relay', 64n * 1024n ** 2n), caller, signal));
    await expect(rig.run(run(request('relay', 7n), caller, signal))).rejects.toMatchObject({ kind: 'invalid' });
    expect(
      lines.map(({ level, fields }) => [level, fields.caller, fields.method, fields.target, fields.result]),
    ).toEqual([
      ['info', 'client/anna', 'busbar.v1.VmService/CreateVm', 'relay', 'ok'],
      ['info', 'client/anna', 'busbar.v1.VmService/CreateVm', 'relay', 'INVALID_REQUEST'],
    ]);
    expect(JSON.stringify(lines)).not.toContain('hunter2');
  });

  it('tells by which certificate a call came, from where and how', async () => {
    const entry = rpcs.find(({ name }) => name === 'VmService/deleteVm');
    if (entry?.method === undefined) throw new Error('no DeleteVm');
    const run = gate().unary(entry.definition.fullName, entry.rpc, entry.method);
    const arrival: Arrival = { transport: 'grpc', address: '10.77.2.9', connection: '' };
    await expect(run({ vm: 'relay' }, testCaller('viewer'), signal, arrival)).rejects.toThrow();
    expect(lines.at(-1)?.fields).toMatchObject({ serial: '4a', address: '10.77.2.9', transport: 'grpc' });
    expect(noted.at(-1)).toMatchObject({ caller: { certificate: { serial: '4a' } }, arrival });
  });

  it('is bounded in the log, however often somebody without a right calls, and nobody is told of not at all', async () => {
    const entry = rpcs.find(({ name }) => name === 'VmService/deleteVm');
    if (entry?.method === undefined) throw new Error('no DeleteVm');
    const clock = new VirtualClock();
    const run = pipeline({ logger, trail, admission: ADMIT_ALL, clock }).unary(
      entry.definition.fullName,
      entry.rpc,
      entry.method,
    );
    const from = (address: string): Arrival => ({ transport: 'https', address, connection: '' });
    const attempt = (caller: Caller | null, address: string) => run({}, caller, signal, from(address)).catch(() => {});
    for (let i = 0; i < 9_066; i++) await attempt(null, '10.77.2.9');
    for (let i = 0; i < 1_000; i++) await attempt(testCaller('viewer', 'client/victor'), `10.77.3.${i % 250}`);
    await attempt(null, '10.77.2.10');
    expect(lines).toHaveLength(41);
    expect(lines.at(-1)?.fields).toMatchObject({ caller: 'nobody', address: '10.77.2.10' });
    await clock.advance(60_000);
    expect(lines.slice(41).map(({ fields }) => [fields.caller, fields.address, fields.further])).toEqual([
      ['nobody', '10.77.2.9', 9_046],
      ['client/victor', undefined, 980],
    ]);
  });

  const definition = { name: 'Import', requestStream: true, responseStream: true } as unknown as MethodDefinition;
  const caller = testCaller('admin', 'client/anna');
  async function* part() {
    yield { part: { $case: 'header', value: { name: 'debian' } } };
  }

  it.each([
    [
      'ends',
      'ok',
      async function* (incoming: AsyncIterable<unknown>) {
        for await (const _ of incoming) yield 1;
      },
    ],
    [
      'is left by its caller',
      'CALLER_GONE',
      async function* (incoming: AsyncIterable<unknown>) {
        for await (const _ of incoming) for (;;) yield 1;
      },
    ],
    [
      'fails',
      'BROKEN',
      async function* (incoming: AsyncIterable<unknown>) {
        for await (const _ of incoming) throw new BusbarError({ kind: 'unavailable', reason: 'BROKEN', message: '' });
        yield 1;
      },
    ],
  ])('a stream that %s is told at its beginning and at its end', async (_name, result, handle) => {
    const method = { access: 'write', schema: z.unknown(), enter: () => null, handle: handle as never } as const;
    try {
      for await (const _ of gate().stream('s', definition, method)(part(), caller, signal))
        if (result === 'CALLER_GONE') break;
    } catch {}
    expect(lines.map(({ fields }) => [fields.target, fields.result])).toEqual([
      ['debian', 'BEGUN'],
      ['debian', result],
    ]);
  });
});
