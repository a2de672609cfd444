// SPDX-License-Identifier: Apache-2.0
import { BusbarError, errorChain } from '@busbar/core/errors';
import type { Logger } from '@busbar/core/log';
import { includesRole, type Role } from '@busbar/pki/role';
import type { Seal } from '@busbar/pki/seal';
import type { VmRecord } from '@busbar/proto/gen/busbar/store/v1/store';
import { CloudInit } from '@busbar/proto/gen/busbar/v1/vm';
import { invalid } from '../api/validation.ts';

/**
 * A VM's cloud-init data may hold passwords. In records they are sealed (VmRecord.sealedCloudInit, while spec.cloudInit
 * is never set); they are opened for the agent that starts the VM and for callers who could read them in the guest anyway
 * because they may open its console. Bound to the VM's id: nobody who writes to etcd can give one VM another's data.
 */
const contextOf = (vmId: string): string => `vm-user-data/${vmId}`;
const REDACTED: CloudInit = { userData: '', networkConfig: '', redacted: true };

export function sealCloudInit(seal: Seal, vmId: string, given: CloudInit | undefined): string {
  return given === undefined ? '' : seal.seal(CloudInit.encode(given).finish(), contextOf(vmId));
}

/** Of a new VM: there is nothing to keep. */
export function assertNotRedacted(given: CloudInit | undefined): void {
  if (given?.redacted === true) throw nothingToKeep('is true');
}

/** Of an update: what was exported without the data leaves them as they are. */
export function resealCloudInit(seal: Seal, vmId: string, given: CloudInit | undefined, kept: string): string {
  if (given?.redacted !== true) return sealCloudInit(seal, vmId, given);
  if (kept === '') throw nothingToKeep('is true, and the VM has no cloud-init data to keep');
  return kept;
}

function nothingToKeep(problem: string): BusbarError {
  const expected = 'userData and networkConfig themselves (exported by an operator; a viewer does not get them)';
  return invalid([{ field: 'spec.cloudInit.redacted', problem, expected }]);
}

/** Throws SEAL_BROKEN. */
function openCloudInit(seal: Seal, record: VmRecord): CloudInit | undefined {
  if (record.sealedCloudInit === '') return undefined;
  return CloudInit.decode(seal.open(record.sealedCloudInit, contextOf(record.meta?.id ?? '')));
}

export type CloudInitShown = (record: VmRecord) => CloudInit | undefined;

/** What a caller of this role sees. Data that do not open are shown as such: one VM's must not fail a list of all. */
export function cloudInitFor(seal: Seal, role: Role | null): CloudInitShown {
  return (record) => {
    if (record.sealedCloudInit === '') return undefined;
    if (role === null || !includesRole(role, 'operator')) return REDACTED;
    try {
      return openCloudInit(seal, record);
    } catch (error) {
      if (isBroken(error)) return REDACTED;
      throw error;
    }
  };
}

/** What a domain is started with; null when it cannot be opened. */
export type CloudInitOpened = (record: VmRecord) => CloudInit | undefined | null;

/** For the leader, who asks for every VM in every round: each record is opened once, and a broken one is told once. */
export function cloudInitReader(seal: Seal, logger: Logger): CloudInitOpened {
  const opened = new WeakMap<VmRecord, CloudInit | null>();
  return (record) => {
    if (record.sealedCloudInit === '') return undefined;
    const known = opened.get(record);
    if (known !== undefined) return known;
    let data: CloudInit | null;
    try {
      data = openCloudInit(seal, record) ?? null;
    } catch (error) {
      if (!isBroken(error)) throw error;
      const { id, name } = record.meta ?? {};
      logger.error({ vmId: id, vm: name, err: errorChain(error) }, 'VM cannot be started without its cloud-init data');
      data = null;
    }
    opened.set(record, data);
    return data;
  };
}

function isBroken(error: unknown): boolean {
  return error instanceof BusbarError && error.reason === 'SEAL_BROKEN';
}
