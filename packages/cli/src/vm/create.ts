// SPDX-License-Identifier: Apache-2.0
/** `vm create`, by flags or from a file with one Vm document. */
import {
  CpuPolicy,
  CreateVmRequest,
  CreateVmResponse,
  type DeepPartial,
  Firmware,
  Hugepages,
  MachineType,
  RunPolicy,
  VmServiceDefinition,
  type VmSpec,
} from '@busbar/proto/gen/busbar/v1/vm';
import { usageError } from '../cli/exit.ts';
import { parseLabels } from '../cli/options.ts';
import type { ChangeOptions, Session } from '../cli/session.ts';
import { bytesFlag, intFlag, nameArgument, readInput, readTextFile } from '../cli/values.ts';
import { runChange } from '../operation/change.ts';
import { renderPlacement } from './preview.ts';
import { vms } from './resource.ts';

export interface CreateOptions extends ChangeOptions {
  readonly file?: string;
  readonly vcpus?: string;
  readonly memory?: string;
  readonly image?: string;
  readonly diskSize?: string;
  readonly dataDisk?: readonly string[];
  readonly network?: readonly string[];
  readonly firmware?: string;
  readonly machineType?: string;
  readonly cpuPolicy?: string;
  readonly hugepages?: string;
  readonly userData?: string;
  readonly networkConfig?: string;
  readonly ha?: boolean;
  readonly stopped?: boolean;
  readonly label?: readonly string[];
}

const SPEC_FLAGS = [
  'vcpus',
  'memory',
  'image',
  'diskSize',
  'dataDisk',
  'network',
  'firmware',
  'machineType',
  'cpuPolicy',
  'hugepages',
  'userData',
  'networkConfig',
  'ha',
  'stopped',
  'label',
] as const;

interface Wanted {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly spec: DeepPartial<VmSpec>;
}

export async function runCreate(session: Session, name: string | undefined, options: CreateOptions): Promise<void> {
  const wanted =
    options.file === undefined
      ? fromFlags(session, name, options)
      : await fromFile(session, name, options.file, options);
  const request = CreateVmRequest.create({
    ...wanted,
    validateOnly: options.dryRun === true,
    requestId: session.requestId(options),
  });
  await runChange(session, options, {
    doing: `create VM ${wanted.name}`,
    target: `vm/${wanted.name}`,
    done: 'created',
    message: CreateVmResponse,
    preview: (response) => renderPlacement(response.placement),
    send: (api) => api.call(VmServiceDefinition, (client, callOptions) => client.createVm(request, callOptions)),
    refresh: async (api, response) => ({ ...response, vm: await vms.get(api, response.vm?.meta?.id || wanted.name) }),
  });
}

async function fromFile(
  session: Session,
  name: string | undefined,
  file: string,
  options: CreateOptions,
): Promise<Wanted> {
  const flag = SPEC_FLAGS.find((key) => options[key] !== undefined);
  if (flag !== undefined || name !== undefined) {
    const extra =
      flag === undefined
        ? `the name ${name}`
        : `--${flag.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    throw usageError(
      '-f takes everything from the file',
      `${extra} is given too`,
      'leave it out, or write it into the file',
    );
  }
  const { parseManifests } = await import('../manifest/parse.ts');
  const [only, ...more] = parseManifests(await readInput(session.io, file), file);
  if (only?.kind !== 'Vm' || more.length > 0) {
    throw usageError(
      `${file} is not one VM`,
      'vm create takes one document of kind Vm',
      `busbar apply -f ${file} takes any`,
    );
  }
  return { name: only.name, labels: only.labels ?? {}, spec: only.spec as DeepPartial<VmSpec> };
}

function fromFlags(session: Session, given: string | undefined, options: CreateOptions): Wanted {
  if (given === undefined)
    throw usageError('the VM has no name', 'neither a name nor -f is given', 'busbar vm create --help shows examples');
  const name = nameArgument(given);
  const { vcpus, memory } = options;
  if (vcpus === undefined || memory === undefined) {
    throw usageError(
      `VM ${name} is incomplete`,
      `${vcpus === undefined ? '--vcpus' : '--memory'} is missing`,
      'add e.g. --vcpus 2 --memory 512MiB',
    );
  }
  const bootSize = options.diskSize === undefined ? 0n : bytesFlag('--disk-size', options.diskSize);
  const boot =
    options.image === undefined && bootSize === 0n
      ? []
      : [{ name: 'boot', image: options.image ?? '', sizeBytes: bootSize, bootOrder: 1 }];
  const data = (options.dataDisk ?? []).map((size, index) => ({
    name: index === 0 ? 'data' : `data${index + 1}`,
    sizeBytes: bytesFlag('--data-disk', size),
  }));
  const nics = (options.network ?? []).map((network, index) => ({ name: `nic${index}`, network }));
  const { userData, networkConfig } = options;
  const read = (file: string | undefined) => (file === undefined ? '' : readTextFile(session.io, file));
  const cloudInit = { userData: read(userData), networkConfig: read(networkConfig) };
  return {
    name,
    labels: parseLabels(options.label ?? []),
    spec: {
      cpu: {
        vcpus: intFlag('--vcpus', vcpus, 512),
        ...choice('--cpu-policy', options.cpuPolicy, 'policy', {
          shared: CpuPolicy.SHARED,
          dedicated: CpuPolicy.DEDICATED,
          realtime: CpuPolicy.REALTIME,
        }),
      },
      memoryBytes: bytesFlag('--memory', memory),
      ...choice('--firmware', options.firmware, 'firmware', { bios: Firmware.BIOS, uefi: Firmware.UEFI }),
      ...choice('--machine-type', options.machineType, 'machineType', { q35: MachineType.Q35, pc: MachineType.PC }),
      ...choice('--hugepages', options.hugepages, 'hugepages', {
        none: Hugepages.HUGEPAGES_NONE,
        '2m': Hugepages.HUGEPAGES_2M,
        '1g': Hugepages.HUGEPAGES_1G,
      }),
      disks: [...boot, ...data],
      nics,
      ...(userData === undefined && networkConfig === undefined ? {} : { cloudInit }),
      ...(options.ha === true ? { ha: { enabled: true } } : {}),
      runPolicy: options.stopped === true ? RunPolicy.STOPPED : RunPolicy.RUNNING,
    },
  };
}

function choice<K extends string, V>(
  flag: string,
  given: string | undefined,
  key: K,
  values: Readonly<Record<string, V>>,
): { [k in K]?: V } {
  if (given === undefined) return {};
  const value = Object.entries(values).find(([name]) => name === given.toLowerCase())?.[1];
  if (value === undefined) {
    const known = Object.keys(values).join(', ');
    throw usageError(
      `${flag} ${given} is not allowed`,
      `${JSON.stringify(given)} is not known`,
      `write one of ${known}`,
    );
  }
  return { [key]: value } as { [k in K]?: V };
}
