// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { XMLParser } from 'fast-xml-parser';
import { describe, expect, test } from 'vitest';
import { EVENT, PAUSED, PAUSED_SHUTTING_DOWN, SHUTDOWN_BY_HOST, STATE, STOPPED } from '../words.ts';
import { FLAGS } from './calls.ts';
import { TRANSPORT_DOMAINS, VIR_ERR } from './errors.ts';
import { EVENT as EVENT_ID } from './events.ts';
import { loadLibvirt, PROTOTYPES } from './signatures.ts';

/**
 * Nothing checks a foreign function's signature at run time: a wrong one is a crash or garbage. libvirt describes its own
 * headers in a file (Debian's libvirt-dev); what we wrote by hand is compared with it.
 */
const API = '/usr/share/libvirt/api/libvirt-api.xml';

interface Described {
  readonly name: string;
  readonly return?: { readonly type: string };
  readonly arg?: readonly { readonly type: string }[];
}
interface Value {
  readonly name: string;
  readonly value: string;
}

const api = new XMLParser({
  ignoreAttributes: false,
  attributeNamePrefix: '',
  isArray: (name) => ['arg', 'function', 'enum', 'functype'].includes(name),
  parseAttributeValue: false,
  // The file is libvirt's and full of entities.
  processEntities: { enabled: true, maxTotalExpansions: 1_000_000, maxExpandedLength: 10_000_000 },
}).parse(readFileSync(API, 'utf8')) as {
  readonly api: { readonly symbols: { readonly function: readonly Described[]; readonly enum: readonly Value[] } };
};
const functions = new Map(api.api.symbols.function.map((one) => [one.name, one]));
const constants = new Map(api.api.symbols.enum.map((one) => [one.name, Number(one.value)]));

/** How koffi must be told of a C type; several are right where only the meaning differs. */
function inKoffi(type: string, where: 'argument' | 'return'): readonly string[] {
  switch (type) {
    case 'void':
    case 'int':
    case 'size_t':
      return [type];
    case 'unsigned int':
      return ['uint'];
    case 'const char *':
      return ['str'];
    case 'char *':
      // What is returned is ours to free ("!"); what is passed is filled.
      return where === 'return' ? ['str!'] : ['uint8_t *'];
    case 'const unsigned char *':
      return ['uint8_t *'];
    case 'int *':
    case 'unsigned long *':
      return [`_Out_ ${type.replace('unsigned ', 'u')}`];
    case 'unsigned long long':
      return ['uint64_t'];
    case 'virDomainBlockInfoPtr':
      return ['_Out_ BusbarBlockInfo *'];
    case 'virDomainPtr **':
      return ['_Out_ void **'];
    default:
      // Objects, callbacks and what is handed through to them.
      if (/^(const )?(vir\w+(Ptr|Callback|Func)|vir\w*|void \*)$/.test(type)) return ['void *'];
      throw new Error(`no rule for ${type}`);
  }
}

function split(prototype: string): {
  readonly result: string;
  readonly name: string;
  readonly args: readonly string[];
} {
  const match = /^(.+?) ?\b(vir\w+)\((.*)\)$/.exec(prototype);
  if (match === null) throw new Error(`not a prototype: ${prototype}`);
  const [, result = '', name = '', args = ''] = match;
  return { result: result.trim(), name, args: args === '' ? [] : args.split(', ') };
}

describe('what we say of libvirt is what libvirt says', () => {
  test.each(Object.entries(PROTOTYPES))('%s', (key, prototype) => {
    const ours = split(prototype);
    expect(ours.name).toBe(key);
    const theirs = functions.get(key);
    expect(theirs, 'libvirt has no such function').toBeDefined();
    expect(inKoffi(theirs?.return?.type ?? 'void', 'return')).toContain(ours.result);
    const args = (theirs?.arg ?? []).map(({ type }) => type).filter((type) => type !== 'void');
    expect(ours.args).toHaveLength(args.length);
    for (const [index, type] of args.entries())
      expect(inKoffi(type, 'argument'), `${type}`).toContain(ours.args[index]);
  });

  test('constants', () => {
    const named: Readonly<Record<string, number>> = {
      VIR_CONNECT_LIST_DOMAINS_ACTIVE: FLAGS.listActive,
      VIR_DOMAIN_METADATA_ELEMENT: FLAGS.metadataElement,
      VIR_DOMAIN_AFFECT_LIVE: FLAGS.affectLive,
      VIR_DOMAIN_BLOCK_RESIZE_BYTES: FLAGS.blockResizeBytes,
      VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN: FLAGS.shutdownAcpi,
      VIR_DOMAIN_RUNNING: STATE.running,
      VIR_DOMAIN_BLOCKED: STATE.blocked,
      VIR_DOMAIN_PAUSED: STATE.paused,
      VIR_DOMAIN_SHUTDOWN: STATE.shutdown,
      VIR_DOMAIN_CRASHED: STATE.crashed,
      VIR_DOMAIN_PMSUSPENDED: STATE.pmSuspended,
      VIR_DOMAIN_PAUSED_SHUTTING_DOWN: PAUSED_SHUTTING_DOWN,
      VIR_DOMAIN_PAUSED_POSTCOPY_FAILED: PAUSED.indexOf('paused because a migration failed'),
      VIR_DOMAIN_PAUSED_IOERROR: PAUSED.indexOf('I/O error on a disk'),
      VIR_DOMAIN_PAUSED_WATCHDOG: PAUSED.indexOf('paused by its watchdog'),
      VIR_DOMAIN_PAUSED_CRASHED: PAUSED.indexOf('the guest crashed'),
      VIR_DOMAIN_PAUSED_STARTING_UP: PAUSED.indexOf('starting up'),
      VIR_DOMAIN_EVENT_STOPPED: EVENT.stopped,
      VIR_DOMAIN_EVENT_SHUTDOWN: EVENT.shutdown,
      VIR_DOMAIN_EVENT_CRASHED: EVENT.crashed,
      VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: STOPPED.shutdown,
      VIR_DOMAIN_EVENT_STOPPED_DESTROYED: STOPPED.destroyed,
      VIR_DOMAIN_EVENT_STOPPED_CRASHED: STOPPED.crashed,
      VIR_DOMAIN_EVENT_STOPPED_MIGRATED: STOPPED.migrated,
      VIR_DOMAIN_EVENT_STOPPED_SAVED: STOPPED.saved,
      VIR_DOMAIN_EVENT_STOPPED_FAILED: STOPPED.failed,
      VIR_DOMAIN_EVENT_SHUTDOWN_HOST: SHUTDOWN_BY_HOST,
      VIR_DOMAIN_EVENT_ID_LIFECYCLE: EVENT_ID.lifecycle,
      VIR_DOMAIN_EVENT_ID_REBOOT: EVENT_ID.reboot,
      VIR_DOMAIN_EVENT_ID_WATCHDOG: EVENT_ID.watchdog,
      VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON: EVENT_ID.ioErrorReason,
      VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE: EVENT_ID.agentLifecycle,
      VIR_ERR_NO_SUPPORT: VIR_ERR.noSupport,
      VIR_ERR_DOM_EXIST: VIR_ERR.domExist,
      VIR_ERR_NO_DOMAIN: VIR_ERR.noDomain,
      VIR_ERR_OPERATION_INVALID: VIR_ERR.operationInvalid,
      VIR_ERR_NO_DOMAIN_METADATA: VIR_ERR.noDomainMetadata,
      VIR_FROM_RPC: TRANSPORT_DOMAINS[0] ?? -1,
      VIR_FROM_REMOTE: TRANSPORT_DOMAINS[1] ?? -1,
    };
    const theirs = Object.fromEntries(Object.keys(named).map((name) => [name, constants.get(name)]));
    expect(named).toEqual(theirs);
  });

  test('the library that is installed has every function', () => {
    expect(Object.keys(loadLibvirt()).sort()).toEqual(Object.keys(PROTOTYPES).sort());
  });
});
