// SPDX-License-Identifier: Apache-2.0
import {
  DiskBus,
  DiskCache,
  Firmware,
  IsolationPolicy,
  MachineType,
  NicModel,
  RunPolicy,
  type VmSpec,
  WatchdogAction,
} from '@busbar/proto/gen/busbar/v1/vm';
import { z } from 'zod';
import { count, innerName, invalid, labels, oneOf, reference } from '../api/validation.ts';
import { list, text, word } from '../bounds/schema.ts';
import { checkNeeds, cpuNeeds, cpuWithDefaults, GROUP, GROUP_RULE, needs, needsWithDefaults, rules } from './needs.ts';

const MIB = 1024n ** 2n;
const TIB = 1024n ** 4n;

/** Limits of the emulated machine, not wishes: QEMU's q35 takes 288 to 512 CPUs depending on version, 28 PCI slots are left for disks and NICs. */
const VCPUS_MAX = 512;
const DISKS_MAX = 16;
const NICS_MAX = 16;
export const VOLUME_MIN_BYTES = MIB;
export const VOLUME_MAX_BYTES = 64n * TIB;
/** Largest NoCloud data: it is kept in the cluster store, whose values are limited to 1.5 MiB. */
const CLOUD_INIT_MAX_BYTES = 64 * 1024;

const bootOrder = count(0, 32);

const MODEL_RULE = 'a libvirt CPU model, host-model or host-passthrough';
const cpu = z
  .object({
    vcpus: count(1, VCPUS_MAX),
    topology: z.object({ sockets: count(0, VCPUS_MAX), cores: count(0, VCPUS_MAX), threads: count(0, 8) }).optional(),
    model: word(64, /^[A-Za-z0-9][-A-Za-z0-9_.]*$|^$/, MODEL_RULE),
    ...cpuNeeds,
  })
  .superRefine((value, context) => {
    const topology = value.topology;
    if (topology === undefined || (topology.sockets | topology.cores | topology.threads) === 0) return;
    const product = topology.sockets * topology.cores * topology.threads;
    if (product !== value.vcpus) {
      context.addIssue({
        code: 'custom',
        path: ['topology'],
        message: `sockets × cores × threads = ${value.vcpus} vCPUs (it is ${product})`,
      });
    }
  });

const disk = z
  .object({
    name: innerName,
    volume: text(253, 'a name or an id'),
    image: text(253, 'a name or an id'),
    sizeBytes: z
      .bigint()
      .refine((v) => v === 0n || (v >= VOLUME_MIN_BYTES && v <= VOLUME_MAX_BYTES), '1 MiB to 64 TiB')
      .refine((v) => v % 512n === 0n, 'a multiple of 512 bytes'),
    bus: oneOf(DiskBus),
    cache: oneOf(DiskCache),
    bootOrder,
    readOnly: z.boolean(),
  })
  .superRefine((value, context) => {
    if (value.volume !== '' && (value.image !== '' || value.sizeBytes !== 0n)) {
      context.addIssue({
        code: 'custom',
        path: ['volume'],
        message: 'either a volume, or image and/or sizeBytes of one to create',
      });
    }
    if (value.volume === '' && value.image === '' && value.sizeBytes === 0n) {
      context.addIssue({ code: 'custom', path: ['sizeBytes'], message: 'a volume, an image or a size' });
    }
  });

/** Bit 0 of the first byte marks a group address, which no NIC may own (IEEE 802). */
const MAC_RULE = 'a unicast MAC address such as 52:54:00:12:34:56 in lower case, or nothing';
const mac = word(17, /^$|^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$/, MAC_RULE);

const nic = z.object({
  name: innerName,
  network: reference,
  macAddress: mac,
  model: oneOf(NicModel),
  bootOrder,
});

const cloudInitText = text(CLOUD_INIT_MAX_BYTES, 'at most 64 KiB in all');

const spec = z
  .object(
    {
      runPolicy: oneOf(RunPolicy),
      cpu: cpu.optional(),
      memoryBytes: z
        .bigint()
        .min(16n * MIB, '16 MiB to 16 TiB')
        .max(16n * TIB, '16 MiB to 16 TiB')
        .refine((v) => v % MIB === 0n, 'a multiple of 1 MiB'),
      machineType: oneOf(MachineType),
      firmware: oneOf(Firmware),
      disks: list(disk, 0, DISKS_MAX, `at most ${DISKS_MAX} disks`),
      nics: list(nic, 0, NICS_MAX, `at most ${NICS_MAX} NICs`),
      serialConsoleDisabled: z.boolean(),
      guestAgentDisabled: z.boolean(),
      watchdog: oneOf(WatchdogAction),
      cloudInit: z
        .object({ userData: cloudInitText, networkConfig: cloudInitText, redacted: z.boolean() })
        .refine((v) => !v.redacted || (v.userData === '' && v.networkConfig === ''), 'either data or redacted')
        .refine(
          (v) => Buffer.byteLength(v.userData) + Buffer.byteLength(v.networkConfig) <= CLOUD_INIT_MAX_BYTES,
          'at most 64 KiB in all',
        )
        .optional(),
      ha: z.object({ enabled: z.boolean(), priority: count(0, 1000) }).optional(),
      isolationPolicy: oneOf(IsolationPolicy),
      placement: z
        .object({
          hostSelector: labels,
          pinnedHost: text(253, 'a host name'),
          preferredHosts: list(reference, 0, 64, 'at most 64 hosts'),
          antiAffinityGroup: text(63, GROUP_RULE).refine((v) => v === '' || GROUP.test(v), GROUP_RULE),
          rules,
        })
        .optional(),
      shutdownTimeoutMs: z
        .number()
        .refine((v) => v === 0 || (v >= 1_000 && v <= 3_600_000), '1000 to 3600000 ms, or 0 for the default'),
      ...needs,
    },
    'the VM: {cpu: {vcpus: …}, memoryBytes: …}',
  )
  .superRefine((value, context) => {
    checkNeeds(value, (path, message) => context.addIssue({ code: 'custom', path: [...path], message }));
    if (value.cpu === undefined) context.addIssue({ code: 'custom', path: ['cpu'], message: 'vCPUs: cpu: {vcpus: …}' });
    for (const list of ['disks', 'nics'] as const) {
      const seen = new Set<string>();
      value[list].forEach((item, index) => {
        if (seen.has(item.name))
          context.addIssue({ code: 'custom', path: [list, index, 'name'], message: `a name used once among ${list}` });
        seen.add(item.name);
      });
    }
    const orders = [...value.disks, ...value.nics].map((item) => item.bootOrder).filter((order) => order > 0);
    if (new Set(orders).size !== orders.length) {
      context.addIssue({ code: 'custom', path: ['disks'], message: 'each bootOrder used once among disks and NICs' });
    }
  });

/** The schema of a spec as a caller sends it. */
export const vmSpecSchema = spec as unknown as z.ZodType<VmSpec>;

/**
 * Fills in what the caller left open, so that what is stored and echoed back is the whole truth. The
 * same spec for the same VM id always gives the same result.
 */
export function withDefaults(given: VmSpec, vmId: string): VmSpec {
  const anyBoot = [...given.disks, ...given.nics].some((item) => item.bootOrder > 0);
  const ha = given.ha ?? { enabled: false, priority: 0 };
  return {
    ...given,
    runPolicy: given.runPolicy === RunPolicy.UNSPECIFIED ? RunPolicy.RUNNING : given.runPolicy,
    machineType: given.machineType === MachineType.UNSPECIFIED ? MachineType.Q35 : given.machineType,
    firmware: given.firmware === Firmware.UNSPECIFIED ? Firmware.BIOS : given.firmware,
    cpu: given.cpu === undefined ? undefined : cpuWithDefaults(given.cpu),
    ...needsWithDefaults(given),
    ha,
    isolationPolicy:
      given.isolationPolicy !== IsolationPolicy.UNSPECIFIED
        ? given.isolationPolicy
        : ha.enabled
          ? IsolationPolicy.ISOLATE
          : IsolationPolicy.KEEP_RUNNING,
    shutdownTimeoutMs: given.shutdownTimeoutMs || 60_000,
    disks: given.disks.map((item, index) => ({
      ...item,
      bus: item.bus === DiskBus.UNSPECIFIED ? DiskBus.VIRTIO : item.bus,
      cache: item.cache === DiskCache.UNSPECIFIED ? DiskCache.NONE : item.cache,
      bootOrder: !anyBoot && index === 0 ? 1 : item.bootOrder,
    })),
    nics: given.nics.map((item) => ({
      ...item,
      model: item.model === NicModel.UNSPECIFIED ? NicModel.VIRTIO : item.model,
      macAddress: item.macAddress || derivedMac(vmId, item.name),
    })),
    placement: given.placement ?? {
      hostSelector: {},
      pinnedHost: '',
      preferredHosts: [],
      antiAffinityGroup: '',
      rules: [],
    },
  };
}

/** 52:54:00 is QEMU's locally administered prefix; the rest is FNV-1a of VM id and NIC name. A clash is 1 in 16 million per pair. */
function derivedMac(vmId: string, nicName: string): string {
  let hash = 0x811c9dc5;
  for (const char of `${vmId}/${nicName}`) hash = Math.imul(hash ^ (char.codePointAt(0) ?? 0), 0x01000193) >>> 0;
  const hex = (hash & 0xffffff).toString(16).padStart(6, '0');
  return `52:54:00:${hex.slice(0, 2)}:${hex.slice(2, 4)}:${hex.slice(4, 6)}`;
}

/** What cannot change after creation: the disks' names and origins. */
export function assertSameDisks(before: VmSpec, after: VmSpec): void {
  const shape = (s: VmSpec) => JSON.stringify(s.disks.map((d) => [d.name, d.volume, d.image, String(d.sizeBytes)]));
  if (shape(before) === shape(after)) return;
  throw invalid([
    {
      field: 'spec.disks',
      problem: `changes from ${before.disks.map((d) => d.name).join(', ') || 'none'} to ${after.disks.map((d) => d.name).join(', ') || 'none'}`,
      expected: 'the same disks with the same volume, image and sizeBytes (resize with ResizeVolume)',
    },
  ]);
}
