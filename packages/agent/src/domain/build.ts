// SPDX-License-Identifier: Apache-2.0
import type { DomainSpec } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { DiskBus, Firmware, MachineType, WatchdogAction } from '@busbar/proto/gen/busbar/v1/vm';
import type { StartRequest } from '../driver/host-driver.ts';
import { DeviceNames, diskElement } from './disks.ts';
import type { DomainPaths, HostFacts } from './facts.ts';
import { metadataElement } from './metadata.ts';
import { nicElement } from './nics.ts';
import { element, type XmlElement } from './xml.ts';

/**
 * The libvirt domain for a VM on this host. Pure. libvirt's name of the domain is the VM's name: it
 * is unique in the cluster, and it is what a person looks for in `virsh list` and in log files.
 */
export function buildDomain(request: StartRequest, host: HostFacts): XmlElement {
  const { vmId, name, epoch, domain: spec } = request;
  return element(
    'domain',
    { type: host.kvmUsable ? 'kvm' : 'qemu' },
    element('name', {}, name),
    element('uuid', {}, vmId),
    element('metadata', {}, metadataElement({ vmId, name, epoch, specRevision: spec.specRevision })),
    element('memory', { unit: 'b' }, spec.memoryBytes),
    element('vcpu', { placement: 'static' }, spec.vcpus),
    osElement(spec, host.paths),
    element('features', {}, element('acpi'), element('apic'), element('vmport', { state: 'off' })),
    cpuElement(spec, host.kvmUsable),
    clockElement(),
    // The cluster decides what happens next, not libvirt: only a guest's own reboot stays inside.
    element('on_poweroff', {}, 'destroy'),
    element('on_reboot', {}, 'restart'),
    element('on_crash', {}, 'destroy'),
    // Hosts do not sleep, so that guests do not either.
    element('pm', {}, element('suspend-to-mem', { enabled: 'no' }), element('suspend-to-disk', { enabled: 'no' })),
    devicesElement(spec, host),
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

function cpuElement(spec: DomainSpec, kvm: boolean): XmlElement {
  const { topology, cpuModel } = spec;
  const product = topology === undefined ? 0 : topology.sockets * topology.cores * topology.threads;
  const shape =
    topology !== undefined && product === spec.vcpus
      ? element('topology', { sockets: topology.sockets, cores: topology.cores, threads: topology.threads })
      : null;
  const isHostModel = cpuModel === '' || cpuModel === 'host-model' || cpuModel === 'host-passthrough';
  // Emulation cannot show the host's CPU; the most that it can show is what comes nearest.
  if (cpuModel === 'max' || (isHostModel && !kvm)) return element('cpu', { mode: 'maximum' }, shape);
  if (cpuModel === 'host-passthrough') return element('cpu', { mode: 'host-passthrough', migratable: 'on' }, shape);
  if (isHostModel) return element('cpu', { mode: 'host-model' }, shape);
  return element(
    'cpu',
    { mode: 'custom', match: 'exact', check: 'partial' },
    element('model', { fallback: 'forbid' }, cpuModel),
    shape,
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

function devicesElement(spec: DomainSpec, host: HostFacts): XmlElement {
  const names = new DeviceNames();
  const disks = spec.disks.map((disk) => diskElement(disk, names, host.rbd));
  return element(
    'devices',
    {},
    ...disks,
    spec.cloudInit === undefined ? null : seedElement(spec, names, host.paths.seedIso),
    spec.disks.some(({ bus }) => bus === DiskBus.SCSI)
      ? element('controller', { type: 'scsi', model: 'virtio-scsi' })
      : null,
    // Nothing here needs USB, and its emulation wakes the host's CPU a hundred times a second.
    element('controller', { type: 'usb', model: 'none' }),
    ...spec.nics.map(nicElement),
    spec.serialConsole ? serialElement(host.paths) : null,
    spec.guestAgent
      ? element('channel', { type: 'unix' }, element('target', { type: 'virtio', name: 'org.qemu.guest_agent.0' }))
      : null,
    watchdogElement(spec.watchdog),
    element('rng', { model: 'virtio' }, element('backend', { model: 'random' }, '/dev/urandom')),
    element('memballoon', { model: 'virtio' }),
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
