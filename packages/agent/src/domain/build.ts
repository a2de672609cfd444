// SPDX-License-Identifier: Apache-2.0
import type { DomainSpec } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { CpuPolicy, DiskBus, Firmware, MachineType, WatchdogAction } from '@busbar/proto/gen/busbar/v1/vm';
import type { StartRequest } from '../driver/host-driver.ts';
import { DeviceNames, diskElement, IoThreads } from './disks.ts';
import type { DomainPaths, HostFacts } from './facts.ts';
import { metadataElement } from './metadata.ts';
import { nicElement } from './nics.ts';
import { tuningOf } from './tuning.ts';
import {
  cputuneElement,
  guestNumaElement,
  hostdevElement,
  memoryBackingElement,
  numatuneElement,
  vcpuElement,
} from './tuning-xml.ts';
import { element, type XmlElement } from './xml.ts';

/**
 * The libvirt domain for a VM on this host. Pure. libvirt's name of the domain is the VM's name: it
 * is unique in the cluster, and it is what a person looks for in `virsh list` and in log files.
 */
export function buildDomain(request: StartRequest, host: HostFacts): XmlElement {
  const { vmId, name, epoch, domain: spec } = request;
  const tuning = tuningOf(spec, host.cpus);
  const isRealtime = spec.cpuPolicy === CpuPolicy.REALTIME;
  return element(
    'domain',
    { type: host.kvmUsable ? 'kvm' : 'qemu' },
    element('name', {}, name),
    element('uuid', {}, vmId),
    element('metadata', {}, metadataElement({ vmId, name, epoch, specRevision: spec.specRevision })),
    element('memory', { unit: 'b' }, spec.memoryBytes),
    memoryBackingElement(tuning, isRealtime),
    vcpuElement(spec.vcpus, tuning),
    spec.ioThreads === 0 ? null : element('iothreads', {}, spec.ioThreads),
    cputuneElement(tuning),
    numatuneElement(tuning),
    osElement(spec, host.paths),
    featuresElement(isRealtime, host.kvmUsable),
    cpuElement(spec, host.kvmUsable, guestNumaElement(tuning)),
    clockElement(),
    // The cluster decides what happens next, not libvirt: only a guest's own reboot stays inside.
    element('on_poweroff', {}, 'destroy'),
    element('on_reboot', {}, 'restart'),
    element('on_crash', {}, 'destroy'),
    // Hosts do not sleep, so that guests do not either.
    element('pm', {}, element('suspend-to-mem', { enabled: 'no' }), element('suspend-to-disk', { enabled: 'no' })),
    devicesElement(spec, host, tuning.devices),
    host.uid === null ? null : userElement(host.uid),
  );
}

/** The plus signs keep libvirt from taking the numbers for names. It hands QEMU's files over at the start, and takes them back. */
function userElement(uid: number): XmlElement {
  const label = element('label', {}, `+${uid}:+${uid}`);
  return element('seclabel', { type: 'static', model: 'dac', relabel: 'yes' }, label);
}

/** Performance counters cost an exit now and then, and a guest whose vCPUs have their CPUs need not yield when it waits. */
function featuresElement(isRealtime: boolean, kvm: boolean): XmlElement {
  return element(
    'features',
    {},
    element('acpi'),
    element('apic'),
    element('vmport', { state: 'off' }),
    isRealtime ? element('pmu', { state: 'off' }) : null,
    isRealtime && kvm ? element('kvm', {}, element('hint-dedicated', { state: 'on' })) : null,
  );
}

function osElement(spec: DomainSpec, paths: DomainPaths): XmlElement {
  const machine = spec.machineType === MachineType.PC ? 'pc' : 'q35';
  const uefi = spec.firmware === Firmware.UEFI;
  return element(
    'os',
    { firmware: uefi ? 'efi' : undefined },
    element('type', { arch: 'x86_64', machine }, 'hvm'),
    // libvirt finds the firmware by QEMU's descriptor files, so it works on every distribution.
    uefi
      ? element(
          'firmware',
          {},
          element('feature', { enabled: 'no', name: 'secure-boot' }),
          element('feature', { enabled: 'no', name: 'enrolled-keys' }),
        )
      : null,
    uefi ? element('nvram', {}, paths.nvram) : null,
  );
}

function cpuElement(spec: DomainSpec, kvm: boolean, numa: XmlElement | null): XmlElement {
  const { topology } = spec;
  // hint-dedicated asks for it, and a realtime VM is bound to its host's hardware anyway.
  const cpuModel = spec.cpuModel === '' && spec.cpuPolicy === CpuPolicy.REALTIME ? 'host-passthrough' : spec.cpuModel;
  const product = topology === undefined ? 0 : topology.sockets * topology.cores * topology.threads;
  const shape =
    topology !== undefined && product === spec.vcpus
      ? element('topology', { sockets: topology.sockets, cores: topology.cores, threads: topology.threads })
      : null;
  const isHostModel = cpuModel === '' || cpuModel === 'host-model' || cpuModel === 'host-passthrough';
  // Emulation cannot show the host's CPU; the most that it can show is what comes nearest.
  if (cpuModel === 'max' || (isHostModel && !kvm)) return element('cpu', { mode: 'maximum' }, shape, numa);
  if (cpuModel === 'host-passthrough')
    return element('cpu', { mode: 'host-passthrough', migratable: 'on' }, shape, numa);
  if (isHostModel) return element('cpu', { mode: 'host-model' }, shape, numa);
  return element(
    'cpu',
    { mode: 'custom', match: 'exact', check: 'partial' },
    element('model', { fallback: 'forbid' }, cpuModel),
    shape,
    numa,
  );
}

/** The timers that keep guests' clocks right when their vCPUs are late, as libosinfo recommends them. */
function clockElement(): XmlElement {
  return element(
    'clock',
    { offset: 'utc' },
    element('timer', { name: 'rtc', tickpolicy: 'catchup' }),
    element('timer', { name: 'pit', tickpolicy: 'delay' }),
    element('timer', { name: 'hpet', present: 'no' }),
  );
}

function devicesElement(spec: DomainSpec, host: HostFacts, passedThrough: readonly string[]): XmlElement {
  const names = new DeviceNames();
  const ioThreads = new IoThreads(spec.ioThreads);
  const disks = spec.disks.map((disk) => diskElement(disk, names, host.rbd, ioThreads));
  return element(
    'devices',
    {},
    ...disks,
    spec.cloudInit === undefined ? null : seedElement(spec, names, host.paths.seedIso),
    spec.disks.some(({ bus }) => bus === DiskBus.SCSI)
      ? element('controller', { type: 'scsi', model: 'virtio-scsi' }, ...ioThreads.driver())
      : null,
    // Nothing here needs USB, and its emulation wakes the host's CPU a hundred times a second.
    element('controller', { type: 'usb', model: 'none' }),
    ...spec.nics.map(nicElement),
    ...passedThrough.map(hostdevElement),
    spec.serialConsole ? serialElement(host.paths) : null,
    spec.guestAgent
      ? element('channel', { type: 'unix' }, element('target', { type: 'virtio', name: 'org.qemu.guest_agent.0' }))
      : null,
    watchdogElement(spec.watchdog),
    element('rng', { model: 'virtio' }, element('backend', { model: 'random' }, '/dev/urandom')),
    // A realtime guest's memory is locked: there is nothing to give back.
    element('memballoon', { model: spec.cpuPolicy === CpuPolicy.REALTIME ? 'none' : 'virtio' }),
    element('panic', { model: 'isa' }),
  );
}

/**
 * QEMU listens; the agent connects and shares the line among its readers. The log is written by
 * virtlogd, so it goes on while the agent and libvirtd are down; it begins anew with each start.
 */
function serialElement(paths: DomainPaths): XmlElement {
  return element(
    'serial',
    { type: 'unix' },
    element('source', { mode: 'bind', path: paths.consoleSocket }),
    element('log', { file: paths.serialLog, append: 'off' }),
    element('target', { type: 'isa-serial', port: 0 }),
  );
}

/**
 * A guest that boots from virtio gets the seed as one more virtio disk, the last: cloud-init finds it by its label on any
 * disk, and a small guest kernel need not have AHCI for a CD-ROM (finding one costs seconds under emulation).
 */
function seedElement(spec: DomainSpec, names: DeviceNames, iso: string): XmlElement {
  const virtio = spec.disks.some(({ bus }) => bus === DiskBus.VIRTIO);
  const target = () => {
    if (virtio) return { dev: names.next('virtio'), bus: 'virtio' };
    // The old machine has IDE built in, and its guests may know nothing newer.
    return spec.machineType === MachineType.PC ? { dev: 'hdc', bus: 'ide' } : { dev: names.next('sata'), bus: 'sata' };
  };
  return element(
    'disk',
    { type: 'file', device: virtio ? 'disk' : 'cdrom' },
    element('driver', { name: 'qemu', type: 'raw' }),
    element('source', { file: iso }),
    element('target', target()),
    element('readonly'),
  );
}

function watchdogElement(action: WatchdogAction): XmlElement | null {
  switch (action) {
    case WatchdogAction.RESET:
      return element('watchdog', { model: 'i6300esb', action: 'reset' });
    case WatchdogAction.POWEROFF:
      return element('watchdog', { model: 'i6300esb', action: 'poweroff' });
    case WatchdogAction.PAUSE:
      return element('watchdog', { model: 'i6300esb', action: 'pause' });
    case WatchdogAction.UNSPECIFIED:
    case WatchdogAction.UNRECOGNIZED:
      return null;
  }
}
