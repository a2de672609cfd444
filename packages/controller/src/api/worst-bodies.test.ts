// SPDX-License-Identifier: Apache-2.0
import { AgentServiceDefinition, SessionRequest } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { limitsOf } from '../bounds/limits.ts';
import { openRegistry } from '../bounds/registry.ts';
import { wireShapes } from '../bounds/scan-wire.ts';
import { type Bodies, largest, worstJson, worstWire } from '../bounds/worst.fixture.ts';
import { requestOf } from '../edge/body.ts';
import { AGENT_LIMITS, checkInventory, checkReport } from '../session/bounds.ts';
import { ADMIT_ALL, testCaller } from '../testing/callers.ts';
import { Rig } from '../testing/rig.ts';
import { type AnyMethod, pipeline } from './pipeline.ts';
import { boundedDecode, requestTypeName, Unreadable } from './request-bounds.ts';
import type { MethodDefinition } from './service.ts';
import { errorAnswerOf, statusOf } from './status.ts';

/**
 * No request of any caller holds the event loop for 50 ms. For each RPC and transport the worst bodies that descriptors and
 * schemas suggest go the way of a request in process, from its bytes to its refusal or to where its handler first waits.
 * What is measured is CPU time of this process, and a body counts as too dear only when it is in each of several tries: a busy
 * machine makes a try slower, never faster.
 */
const HOLD_MAX_MS = 50;
const TRIES = 6;

const registry = openRegistry();
const shapeOf = wireShapes();
const rig = new Rig();
const services = rig.services;
const gate = pipeline({
  logger: { debug() {}, info() {}, warn() {}, error() {} } as never,
  trail: { note: () => null, admit() {} },
  admission: ADMIT_ALL,
  clock: rig.clock,
});

beforeAll(() => rig.start());
afterAll(() => rig.stop());

async function cpuMs(work: () => unknown): Promise<number> {
  const before = process.cpuUsage();
  work();
  // What goes on at once after the first waits is the same hold.
  await new Promise((resolve) => setImmediate(resolve));
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1_000;
}

/** The bodies that were too dear in every try, with the cheapest of them. */
async function tooDear(bodies: Bodies, work: (body: Buffer) => unknown): Promise<string[]> {
  const found: string[] = [];
  for (const [name, body] of bodies) {
    let best = Number.POSITIVE_INFINITY;
    for (let tries = 0; tries < TRIES && best > HOLD_MAX_MS; tries++)
      best = Math.min(best, await cpuMs(() => work(body)));
    if (best > HOLD_MAX_MS) found.push(`${name} (${body.length} bytes): ${Math.round(best)} ms`);
  }
  return found;
}

/** Calls, and forgets what comes of it: a handler may wait for things that do not come here. */
function begin(
  service: string,
  rpc: MethodDefinition,
  method: AnyMethod,
  message: unknown,
  refused: (error: unknown) => void,
) {
  const signal = AbortSignal.abort();
  if (rpc.requestStream || rpc.responseStream) {
    const request = rpc.requestStream
      ? (async function* () {
          yield message;
        })()
      : message;
    void gate.stream(service, rpc, method)(request, testCaller(), signal)[Symbol.asyncIterator]().next().catch(refused);
  } else void gate.unary(service, rpc, method)(message, testCaller(), signal).catch(refused);
}

const rpcs = services.flatMap(({ definition, methods }) =>
  Object.entries(definition.methods).map(([key, rpc]) => ({
    name: `${definition.name}/${rpc.name}`,
    service: definition.fullName,
    rpc,
    // No call waits for a place, which would spare it the rest.
    method: { ...(methods[key] as AnyMethod), enter: () => null },
    type: registry(requestTypeName(definition.fullName, rpc.name)),
  })),
);

type Rpc = (typeof rpcs)[number];

const longestOf = ({ method }: Rpc) =>
  ['a', '\u0001', '€'].map(
    (character) => [`the longest, of ${JSON.stringify(character)}`, largest(method.schema, character)] as const,
  );

describe('the worst requests hold nobody up', { timeout: 120_000 }, () => {
  it.each(rpcs)('over gRPC: $name', async (each) => {
    const { service, rpc, method, type } = each;
    const limits = limitsOf(method.schema, method.bytesMax);
    const decode = boundedDecode(rpc.requestType, { limits, shape: shapeOf(type) });
    const longest = longestOf(each).map(
      ([name, message]) => [name, Buffer.from(rpc.requestType.encode(message as never).finish())] as const,
    );
    const bodies = [...worstWire(type, limits), ...longest].filter(([, { length }]) => length <= limits.wireBytesMax);
    expect(
      await tooDear(bodies, (body) => {
        const message = decode(body);
        if (message instanceof Unreadable) statusOf(message.error);
        else begin(service, rpc, method, message, statusOf);
      }),
    ).toEqual([]);
  });

  it.each(rpcs.filter(({ rpc }) => !rpc.requestStream))('over HTTPS: $name', async (each) => {
    const { service, rpc, method, type } = each;
    const limits = limitsOf(method.schema, method.bytesMax);
    const toJson = rpc.requestType as unknown as { toJSON(message: unknown): unknown };
    const longest = longestOf(each).map(
      ([name, message]) => [name, Buffer.from(JSON.stringify(toJson.toJSON(message)))] as const,
    );
    const bodies = [...worstJson(type, limits), ...longest].filter(([, { length }]) => length <= limits.jsonBytesMax);
    const refused = (error: unknown) => void JSON.stringify(errorAnswerOf(error));
    expect(
      await tooDear(bodies, (body) => {
        try {
          begin(service, rpc, method, requestOf(body, type, rpc, limits), refused);
        } catch (error) {
          refused(error);
        }
      }),
    ).toEqual([]);
  });
});

describe('the worst messages of an agent', () => {
  const { fullName, methods } = AgentServiceDefinition;
  const say = (message: Parameters<typeof SessionRequest.fromPartial>[0]['message']) =>
    Buffer.from(SessionRequest.encode(SessionRequest.fromPartial({ message })).finish());
  const placement = { vcpuCpus: ['1', '2'], ioThreadCpus: ['3'], numaNodes: [0, 1], devices: ['0000:00:00.0'] };
  const domain = { vmId: '01234567-89ab-4cde-8f01-23456789abcd', epoch: 5n, message: 'paused', placement };
  const domains = (count: number) => Array.from({ length: count }, () => domain);
  const pciDevices = Array.from({ length: 6_000 }, (_, i) => ({ address: `0000:${i}`, vendorProduct: '8086:1521' }));
  // As large as they may be, and as many things as there may be.
  const longest: Bodies = [
    ['domains', say({ $case: 'report', value: { domains: domains(4_500) } })],
    ['too many domains', say({ $case: 'report', value: { domains: domains(4_900) } })],
    ['empty domains', say({ $case: 'report', value: { domains: Array.from({ length: 60_000 }, () => ({})) } })],
    ['one long text', say({ $case: 'report', value: { message: '€'.repeat(690_000) } })],
    ['devices', say({ $case: 'inventory', value: { pciDevices } })],
  ];

  it.each(Object.keys(AGENT_LIMITS) as (keyof typeof AGENT_LIMITS)[])(
    'hold nobody up: %s',
    { timeout: 120_000 },
    async (key) => {
      const rpc = methods[key];
      const type = registry(requestTypeName(fullName, rpc.name));
      const limits = AGENT_LIMITS[key];
      const decode = boundedDecode(rpc.requestType, { limits, shape: shapeOf(type) });
      const bodies = [...worstWire(type, limits), ...(key === 'session' ? longest : [])];
      for (const [name, { length }] of bodies) expect(length, name).toBeLessThanOrEqual(limits.wireBytesMax);
      expect(
        await tooDear(bodies, (body) => {
          const message = decode(body);
          try {
            if (message instanceof Unreadable) throw message.error;
            const said = (message as SessionRequest).message;
            if (said?.$case === 'report') checkReport(said.value);
            if (said?.$case === 'inventory') checkInventory(said.value);
          } catch (error) {
            statusOf(error);
          }
        }),
      ).toEqual([]);
    },
  );
});
