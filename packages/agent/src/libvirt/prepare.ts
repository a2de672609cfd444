// SPDX-License-Identifier: Apache-2.0
/** What a start needs on this host besides its XML: directories, cloud-init disk, key of its disks, user of its own. */
import { constants } from 'node:fs';
import { chmod, stat } from 'node:fs/promises';
import { BusbarError } from '@busbar/core/errors';
import type { Logger } from '@busbar/core/log';
import { buildDomain } from '../domain/build.ts';
import type { RbdFacts } from '../domain/facts.ts';
import { buildSeed } from '../domain/seed.ts';
import { serialize } from '../domain/xml.ts';
import type { HostDriverConfig, StartRequest } from '../driver/host-driver.ts';
import type { LibvirtDriverDeps } from './driver.ts';
import { readFacts } from './facts.ts';
import type { LinkCall } from './link.ts';
import { CEPH_SECRET_UUID, diskSecretXml } from './secret.ts';
import type { SharedDir } from './shared-dir.ts';
import { VmUids } from './uids.ts';
import type { VmFiles } from './vm-files.ts';

/** Setting a secret or a device's access list changes memory only. */
const CALL = { lane: 'short', deadlineMs: 5_000 } as const;
const KVM_DEVICE = '/dev/kvm';

interface PrepareDeps {
  readonly config: HostDriverConfig;
  readonly fsRoot: string;
  /** Where libvirtd keeps a directory for each QEMU. */
  readonly qemuStateDir: string;
  readonly files: VmFiles;
  readonly dir: SharedDir;
  /** Null: QEMUs run as qemu.conf says. */
  readonly uids: VmUids | null;
  readonly call: LinkCall;
  readonly logger: Logger;
}

export interface PreparedStart {
  readonly xml: string;
  /** Once libvirt has answered, whatever it said: QEMU has its key by then and is seen by its user, or will never be. */
  done(): Promise<void>;
}

export function startPreparer(
  config: HostDriverConfig,
  deps: Pick<LibvirtDriverDeps, 'fsRoot' | 'qemuStateDir' | 'logger'>,
  own: Pick<PrepareDeps, 'files' | 'dir' | 'call'>,
): (request: StartRequest) => Promise<PreparedStart> {
  const { fsRoot = '/', qemuStateDir = '/var/lib/libvirt/qemu', logger } = deps;
  const uids = config.uidPool ? new VmUids(config.uidPool, { ownDirs: own.files.privateDirs }) : null;
  return (request) => prepareStart({ ...own, config, fsRoot, qemuStateDir, uids, logger }, request);
}

async function prepareStart(deps: PrepareDeps, request: StartRequest): Promise<PreparedStart> {
  const { config, files, uids } = deps;
  const { vmId, epoch, domain } = request;
  const paths = files.paths(vmId);
  const uid = uids === null ? null : await uids.take(vmId, epoch);
  const rbd = rbdOf(config, request);
  const ownSecret = domain.diskAccess !== undefined && rbd !== null;
  const done = async () => {
    if (uid !== null) uids?.started(uid);
    if (ownSecret) await dropSecret(deps, request);
  };
  try {
    const facts = { ...(await readFacts(deps.fsRoot, config, paths)), rbd, uid };
    // First, so that a spec that cannot be built leaves nothing behind.
    const xml = serialize(buildDomain(request, facts));
    await deps.dir.require(domain.disks);
    await files.makeDirectories();
    if (domain.cloudInit !== undefined) await buildSeed(domain.cloudInit, paths.seedIso);
    if (uid !== null) await letThrough(deps.qemuStateDir);
    if (uid !== null && uids !== null && config.uidPool && facts.kvmUsable) {
      const users = [...uids.living(), uid];
      await deps.call('admitToDevice', { path: KVM_DEVICE, users, range: config.uidPool }, CALL);
    }
    if (ownSecret && domain.diskAccess !== undefined) {
      await deps.call('setSecret', { xml: diskSecretXml(vmId), value: domain.diskAccess.key }, CALL);
    }
    return { xml, done };
  } catch (error) {
    await done();
    throw error;
  }
}

/**
 * Debian's package opens it for QEMU's one user and his group. Everybody may pass now, nobody may look: what is below belongs to
 * the QEMU that it is for. At each start, because an upgrade of the package sets it back.
 */
async function letThrough(dir: string): Promise<void> {
  const { mode } = await stat(dir);
  if ((mode & constants.S_IXOTH) === 0) await chmod(dir, (mode & 0o7777) | constants.S_IXOTH);
}

/** As whom the disks are opened; null when none is in Ceph, or this host knows no Ceph. */
function rbdOf({ rbd }: HostDriverConfig, { vmId, domain }: StartRequest): RbdFacts | null {
  if (rbd === null || !domain.disks.some(({ source }) => source?.$case === 'rbd')) return null;
  const { monitors, shared } = rbd;
  if (domain.diskAccess !== undefined) return { monitors, user: domain.diskAccess.user, secretUuid: vmId };
  if (shared !== null) return { monitors, user: shared.user, secretUuid: CEPH_SECRET_UUID };
  throw new BusbarError({
    kind: 'precondition',
    reason: 'DISK_KEY_MISSING',
    message: 'the controller sent no key for the disks, and storage in agent.yaml names none (user, keyFile)',
    hint: 'say "identities: vm" in storage of every controller.yaml',
  });
}

/** One that stays is in libvirtd's memory only, and replaced by the VM's next start here. */
async function dropSecret({ call, logger }: PrepareDeps, { vmId }: StartRequest): Promise<void> {
  await call('dropSecret', { uuid: vmId }, CALL).catch((error: unknown) => {
    logger.warn({ vmId, err: error }, 'libvirt keeps the key of a VM’s disks in memory');
  });
}
