// SPDX-License-Identifier: Apache-2.0
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { systemClock } from '@busbar/core/clock/clock';
import { silentLogger } from '@busbar/core/log';
import { describe } from 'vitest';
import { find, parseXml } from '../domain/xml.ts';
import { bootSectorDisk } from '../driver/boot-sector.fixture.ts';
import { hostDriverConformance } from '../driver/conformance.ts';
import { fileDisk } from '../driver/domain.fixture.ts';
import { LibvirtHostDriver } from './driver.ts';
import { PrivateLibvirtd } from './private-libvirtd.fixture.ts';

describe('LibvirtHostDriver', () => {
  hostDriverConformance(async () => {
    const libvirtd = await PrivateLibvirtd.create();
    const { dir, uri } = libvirtd;
    const disk = join(dir, 'guest.raw');
    await writeFile(disk, bootSectorDisk());
    const virsh = (...args: string[]) => libvirtd.exec('virsh', '-c', uri, ...args);
    return {
      open: () =>
        new LibvirtHostDriver(
          { uri, stateDir: join(dir, 'state'), runDir: join(dir, 'r'), logDir: join(dir, 'serial'), rbd: null },
          {
            clock: systemClock,
            logger: silentLogger,
            qemuLogDir: libvirtd.qemuLogDir,
            netNamespace: libvirtd.netNamespace,
          },
        ),
      // Read-only, so that several guests may have it at once.
      guest: { disks: [fileDisk(disk, { readOnly: true })] },
      failingStart: async (request) => ({
        request: { ...request, domain: { ...request.domain, disks: [fileDisk(join(dir, 'nothing.raw'))] } },
        words: 'nothing.raw',
      }),
      crash: async (vmId) => {
        process.kill(await libvirtd.qemuOf(vmId), 'SIGKILL');
      },
      linksUp: async (vmId) => {
        const nic = find(parseXml(await virsh('dumpxml', vmId)), 'devices', 'interface');
        return nic !== undefined && find(nic, 'link')?.attributes.state !== 'down';
      },
      disk: async (volumeId) => {
        const path = join(dir, `${volumeId}.raw`);
        await writeFile(path, Buffer.alloc(1024 ** 2));
        return fileDisk(path, { volumeId, bootOrder: 0 });
      },
      close: () => libvirtd.destroy(),
    };
  });
});
