// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import { Hello, HostReport } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { HostInventory } from '@busbar/proto/gen/busbar/v1/host';

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

export function checkHello(hello: Hello): void {
  check('hello', hello, Hello.encode(hello).finish().length, HELLO);
}

export function checkInventory(inventory: HostInventory): void {
  check('inventory', inventory, HostInventory.encode(inventory).finish().length, INVENTORY);
}

export function checkReport(report: HostReport): void {
  check('report', report, HostReport.encode(report).finish().length, REPORT);
}

function check(what: string, message: object, bytes: number, bounds: Bounds): void {
  const excess =
    bytes > bounds.bytesMax
      ? `it has ${bytes} bytes, at most ${bounds.bytesMax} are taken`
      : inside(message, '', bounds);
  if (excess === null) return;
  throw new BusbarError({
    kind: 'invalid',
    reason: 'SESSION_MESSAGE_TOO_LARGE',
    message: `the agent's ${what} is out of bounds: ${excess}`,
    hint: 'no sound agent says this much: look at the host and its log',
  });
}

function inside(value: unknown, path: string, bounds: Bounds): string | null {
  if (typeof value === 'string')
    return value.length > bounds.textMax
      ? `${path} has ${value.length} characters, at most ${bounds.textMax} are taken`
      : null;
  if (Array.isArray(value)) {
    if (value.length > bounds.listMax)
      return `${path} has ${value.length} entries, at most ${bounds.listMax} are taken`;
    for (const [index, item] of value.entries()) {
      const excess = inside(item, `${path}[${index}]`, bounds);
      if (excess !== null) return excess;
    }
    return null;
  }
  if (value === null || typeof value !== 'object') return null;
  for (const [key, item] of Object.entries(value)) {
    const excess = inside(item, path === '' ? key : `${path}.${key}`, bounds);
    if (excess !== null) return excess;
  }
  return null;
}
