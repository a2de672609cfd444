// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import type { Hello, HostReport } from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { HostInventory } from '@busbar/proto/gen/busbar/v1/host';
import { FLOOR_BYTES, type Limits } from '../bounds/limits.ts';

/**
 * What one agent may say. A host is not trusted with more than itself: what it says is held in every controller's memory,
 * and of some the leader makes records in etcd, whose requests end at 1.5 MiB and whose whole store at a few GiB.
 */
interface Bounds {
  readonly textMax: number;
  readonly listMax: number;
  readonly bytesMax: number;
}

/** Names, ids and versions. */
const HELLO: Bounds = { textMax: 256, listMax: 0, bytesMax: 2_048 };
/** The largest machines have some 2,000 CPUs and, with virtual functions, some 4,000 PCI devices of 60 bytes each. */
const INVENTORY: Bounds = { textMax: 16_384, listMax: 8_192, bytesMax: 512 * 1_024 };
/** A reason from QEMU's log is a few KiB; hosts run hundreds of VMs, and ends not yet forgotten come on top. */
const REPORT: Bounds = { textMax: 65_536, listMax: 8_192, bytesMax: 2 * 1_024 ** 2 };

/**
 * Of what agents say on the wire, looked at before it is decoded. 64 Ki values are the inventory of the largest machine, or 2,000
 * domains with all that is observed of them.
 */
const SESSION: Limits = {
  wireBytesMax: REPORT.bytesMax + FLOOR_BYTES,
  jsonBytesMax: 0,
  valuesMax: 65_536,
  depthMax: 16,
};
/** A ticket, and chunks of 16 KiB. */
const ATTACH: Limits = { wireBytesMax: FLOOR_BYTES, jsonBytesMax: 0, valuesMax: 64, depthMax: 8 };
export const AGENT_LIMITS = { session: SESSION, attach: ATTACH } as const;

export function checkHello(hello: Hello): void {
  check('hello', hello, HELLO);
}

export function checkInventory(inventory: HostInventory): void {
  check('inventory', inventory, INVENTORY);
}

export function checkReport(report: HostReport): void {
  check('report', report, REPORT);
}

function check(what: string, message: object, bounds: Bounds): void {
  const found = new Inside(bounds);
  const excess = found.excess(message);
  if (excess === null && found.bytes <= bounds.bytesMax) return;
  throw new BusbarError({
    kind: 'invalid',
    reason: 'SESSION_MESSAGE_TOO_LARGE',
    message: `the agent's ${what} is out of bounds: ${excess ?? `it has ${found.bytes} bytes, at most ${bounds.bytesMax} are taken`}`,
    hint: 'no sound agent says this much: look at the host and its log',
  });
}

/** A field on the wire beside a text: its tag and its length or number. */
const FIELD_BYTES = 2;

/** Looks at everything in a message. Paths are made for what is told alone: a report has thousands of values. */
class Inside {
  readonly #bounds: Bounds;
  /** Of the message on the wire, about: encoding it anew would take longer than all the rest. */
  bytes = 0;

  constructor(bounds: Bounds) {
    this.#bounds = bounds;
  }

  excess(value: unknown): string | null {
    this.bytes += FIELD_BYTES;
    const { textMax, listMax } = this.#bounds;
    if (typeof value === 'string') {
      this.bytes += value.length;
      return value.length > textMax ? ` has ${value.length} characters, at most ${textMax} are taken` : null;
    }
    if (Array.isArray(value)) {
      if (value.length > listMax) return ` has ${value.length} entries, at most ${listMax} are taken`;
      for (let index = 0; index < value.length; index++) {
        const excess = this.excess(value[index]);
        if (excess !== null) return `[${index}]${excess}`;
      }
      return null;
    }
    if (value === null || typeof value !== 'object') return null;
    for (const key in value) {
      const excess = this.excess((value as Record<string, unknown>)[key]);
      if (excess !== null)
        return excess.startsWith(' ') || excess.startsWith('[') ? `${key}${excess}` : `${key}.${excess}`;
    }
    return null;
  }
}
