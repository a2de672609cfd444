// SPDX-License-Identifier: Apache-2.0
import { SessionRequest } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { beforeEach, describe, expect, it } from 'vitest';
import { Granter } from '../lease/granter.ts';
import { welcomeOf } from '../session/registry.ts';
import { Conversation } from './conversation.ts';

let granter: Granter;
let nowMs: number;
beforeEach(() => {
  granter = new Granter({ startedAtMs: 0, leaseTtlMs: 2_500 });
  nowMs = 10_000;
});
const welcome = welcomeOf({ controller: 'host1', controllers: ['host1', 'host3'] });
const open = (address = '10.0.0.2') =>
  new Conversation({ host: 'host2', address, welcome, hear: (host, boot) => granter.hear(host, boot, nowMs) });
type Message = Parameters<typeof SessionRequest.fromPartial>[0]['message'];
const say = (conversation: Conversation, message: Message) =>
  conversation.take(SessionRequest.fromPartial({ message }))?.message;
const hello = (more: object = {}): Message => ({ $case: 'hello', value: { host: 'host2', bootId: 'b1', ...more } });
const beat = (number: bigint): Message => ({ $case: 'heartbeat', value: { number } });

describe('a connection for heartbeats', () => {
  it('is welcomed and answered', () => {
    const conversation = open();
    expect(say(conversation, hello())).toEqual({ $case: 'welcome', value: welcome });
    expect(say(conversation, beat(7n))).toEqual({ $case: 'heartbeatAck', value: { number: 7n } });
  });

  it('is welcomed by a controller that was just started, and answered when it grants', () => {
    nowMs = 1_000;
    const conversation = open();
    expect(say(conversation, hello())?.$case).toBe('welcome');
    expect(say(conversation, beat(1n))).toBeUndefined();
    nowMs = 2_750;
    expect(say(conversation, beat(2n))).toEqual({ $case: 'heartbeatAck', value: { number: 2n } });
  });

  it('of another boot ends, and so does one whose boot is not admitted any more', () => {
    const original = open();
    say(original, hello());
    expect(() => say(open('10.0.0.9'), hello({ bootId: 'b2' }))).toThrow(
      'boot b2 at 10.0.0.9 is not let in as host "host2": boot b1 at 10.0.0.2 was heard',
    );
    expect(() => say(open('10.0.0.9'), hello())).toThrow('boot b1 at 10.0.0.9 is not let in');
    nowMs += 2_750;
    expect(say(open('10.0.0.9'), hello({ bootId: 'b2' }))?.$case).toBe('welcome');
    expect(() => say(original, beat(1n))).toThrow('boot b1 at 10.0.0.2 is not let in');
  });

  it.each<[string, Message, string]>([
    ['another host’s hello', hello({ host: 'host3' }), 'a connection of host "host2" does not begin with its hello'],
    ['a heartbeat', beat(1n), 'a connection of host "host2" does not begin with its hello'],
    ['nothing', undefined, 'a connection of host "host2" does not begin with its hello'],
    ['a hello of 3,000 characters', hello({ agentVersion: 'x'.repeat(3_000) }), 'out of bounds'],
  ])('that begins with %s ends', (_, message, why) => {
    expect(() => say(open(), message)).toThrow(why);
  });

  it.each<[string, Message]>([
    ['a report', { $case: 'report', value: { sequence: 1n } }],
    ['an inventory', { $case: 'inventory', value: {} }],
    ['a second hello', hello()],
    ['what this version does not know', undefined],
  ])('on which %s is sent ends: that belongs into a session', (_, message) => {
    const conversation = open();
    say(conversation, hello());
    expect(() => say(conversation, message)).toThrow('host "host2" says something else than a heartbeat');
  });
});
