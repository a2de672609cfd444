// SPDX-License-Identifier: Apache-2.0
/** `host set`: what placement keeps away from VMs on a host, what the host fails together with, and its devices. */
import { parseCpuList } from '@busbar/core/cpu-list';
import {
  type DeviceClass,
  HostServiceDefinition,
  type HostSpec,
  UpdateHostRequest,
  UpdateHostResponse,
} from '@busbar/proto/gen/busbar/v1/host';
import { usageError } from '../cli/exit.ts';
import type { ChangeOptions, Session } from '../cli/session.ts';
import { bytesFlag } from '../cli/values.ts';
import { runChange } from '../operation/change.ts';
import { hosts } from './resource.ts';

export interface SetOptions extends ChangeOptions {
  readonly reservedCpus?: string;
  readonly reservedMemory?: string;
  readonly rack?: string;
  readonly powerFeed?: string;
  readonly ringSegment?: string;
  readonly deviceClass?: readonly string[];
}

const NONE = 'none';

export async function setHost(session: Session, host: string, options: SetOptions): Promise<void> {
  const { reservedCpus, reservedMemory, rack, powerFeed, ringSegment, deviceClass } = options;
  const given: Partial<HostSpec> = {
    ...(reservedCpus === undefined ? {} : { reservedCpus: cpusFlag(reservedCpus) }),
    ...(reservedMemory === undefined ? {} : { reservedMemoryBytes: memoryFlag(reservedMemory) }),
  };
  const inDomains = [rack, powerFeed, ringSegment].some((word) => word !== undefined);
  const classes = (deviceClass ?? []).map(classFlag);
  if (Object.keys(given).length === 0 && !inDomains && classes.length === 0)
    throw usageError('nothing is to be set', 'no flag says what', 'busbar host set --help shows the flags');
  await runChange(session, options, {
    doing: `set host ${host}`,
    target: `host/${host}`,
    done: 'set',
    message: UpdateHostResponse,
    async send(api) {
      const before = await hosts.get(api, host);
      const was = before.spec;
      const spec: Partial<HostSpec> = { ...given };
      if (inDomains)
        spec.failureDomains = {
          rack: wordFlag(rack, was?.failureDomains?.rack),
          powerFeed: wordFlag(powerFeed, was?.failureDomains?.powerFeed),
          ringSegment: wordFlag(ringSegment, was?.failureDomains?.ringSegment),
        };
      if (classes.length > 0) spec.deviceClasses = merged(was?.deviceClasses ?? [], classes);
      const request = UpdateHostRequest.create({
        host,
        spec,
        updateMask: Object.keys(spec).map((field) => `spec.${field}`),
        // Parts of fields are kept as they were read: without this, what somebody else set meanwhile would vanish.
        revision: session.ifRevision(options) || (before.meta?.revision ?? 0n),
        validateOnly: options.dryRun === true,
        requestId: session.requestId(options),
      });
      return api.call(HostServiceDefinition, (client, callOptions) => client.updateHost(request, callOptions));
    },
  });
}

function cpusFlag(text: string): number[] {
  if (text === NONE) return [];
  if (/^\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*$/.test(text)) return parseCpuList(text);
  throw usageError(
    `--reserved-cpus ${text} is not allowed`,
    `${JSON.stringify(text)} is no list of CPUs`,
    'write e.g. --reserved-cpus 0-1,8 or --reserved-cpus none',
  );
}

/** 0 is the cluster's setting. */
function memoryFlag(text: string): bigint {
  return text === NONE ? 0n : bytesFlag('--reserved-memory', text);
}

function wordFlag(given: string | undefined, before: string | undefined): string {
  if (given === undefined) return before ?? '';
  return given === NONE ? '' : given;
}

function classFlag(text: string): DeviceClass {
  const [name = '', list] = text.split('=', 2);
  if (name !== '' && list === NONE) return { name, devices: [] };
  const devices = (list ?? '').split(',').filter((device) => device !== '');
  if (name !== '' && devices.length > 0) return { name, devices };
  throw usageError(
    `--device-class ${text} is not allowed`,
    `${JSON.stringify(text)} is no class with devices`,
    'write e.g. --device-class process-bus-nic=0000:3b:00.1,8086:1521 or --device-class gps=none',
  );
}

/** Classes that are not named stay; one without devices goes. */
function merged(before: readonly DeviceClass[], given: readonly DeviceClass[]): DeviceClass[] {
  const named = new Map(before.map((one) => [one.name, one]));
  for (const one of given) named.set(one.name, one);
  return [...named.values()].filter(({ devices }) => devices.length > 0);
}
