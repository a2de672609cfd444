// SPDX-License-Identifier: Apache-2.0
import { type Clock, sleep } from '@busbar/core/clock/clock';
import { BusbarError, errorChain } from '@busbar/core/errors';
import type { VmId } from '@busbar/core/ids';
import type { Logger } from '@busbar/core/log';
import type { Metrics } from '@busbar/core/metrics';
import type { HostInventory } from '@busbar/proto/gen/busbar/v1/host';
import { readLog } from '../console/log-file.ts';
import { SerialLines } from '../console/serial-line.ts';
import { targetOf } from '../domain/disks.ts';
import { METADATA_URI, parseMetadata } from '../domain/metadata.ts';
import { nicsToChange } from '../domain/nics.ts';
import { find, parseXml, serialize, textOf } from '../domain/xml.ts';
import {
  type ConsoleLink,
  type DomainEnd,
  type DomainObservation,
  HOST_DRIVER_REASONS,
  type HostDriver,
  type HostDriverConfig,
  type StartRequest,
} from '../driver/host-driver.ts';
import {
  consoleUnavailable,
  domainExists,
  domainNotFound,
  domainStartFailed,
  hypervisorTimeout,
} from '../driver/refusals.ts';
import { readShownInventory } from '../inventory/read.ts';
import { Ends } from './ends.ts';
import { inOurWords } from './errors.ts';
import type { ListedDomain } from './ffi/methods.ts';
import { LibvirtLink, type LinkCall } from './link.ts';
import { ObservedPlacements } from './observed.ts';
import { type PreparedStart, startPreparer } from './prepare.ts';
import { whyFailed } from './qemu-log.ts';
import { QemuProcesses } from './qemu-process.ts';
import { cephSecretXml, readCephKey } from './secret.ts';
import { SharedDir } from './shared-dir.ts';
import { startOrUndo } from './undo.ts';
import { VmFiles } from './vm-files.ts';
import { EVENT, stateOf } from './words.ts';

export interface LibvirtDriverDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics?: Metrics | undefined;
  /** Where libvirtd writes QEMU's logs [/var/log/libvirt/qemu]. */
  readonly qemuLogDir?: string;
  /** Where libvirtd keeps a directory for each QEMU [/var/lib/libvirt/qemu]. */
  readonly qemuStateDir?: string;
  /** The network namespace that this host's QEMUs are in [ours]. */
  readonly netNamespace?: string;
  /** Root of /sys, /proc and /etc for the inventory [/]. */
  readonly fsRoot?: string;
  /** When a start is given up and undone [50 s]. */
  readonly startDeadlineMs?: number;
}

/** Longer than keepalive takes to notice a frozen libvirtd (4 s), so that this is told as what it is. */
const CALL_DEADLINE_MS = 5000;
/** Asking every QEMU on the host for its abilities, once after an upgrade. */
const CAPABILITIES_DEADLINE_MS = 15_000;
const START_DEADLINE_MS = 50_000;
/** libvirt's answer to a start that was given up. */
const START_UNDO_MS = 10_000;
/** Longer than destroyDomain takes at most in a sane world; with the start's, below the reconciler's backstop (75 s). */
const UNDO_DEADLINE_MS = 20_000;
/**
 * libvirt waits 10 s between SIGTERM and SIGKILL. Taking the power promises less: what the guest
 * flushed is safe in any case, and QEMU may well hang because the storage does.
 */
const KILL_AFTER_MS = 1000;
const DESTROY_DEADLINE_MS = 10_000;
const KILL_DEADLINE_MS = 5000;

export class LibvirtHostDriver implements HostDriver {
  readonly kind = 'libvirt';
  readonly #config: HostDriverConfig;
  readonly #deps: LibvirtDriverDeps;
  readonly #link: LibvirtLink;
  readonly #files: VmFiles;
  readonly #dir: SharedDir;
  readonly #prepareStart: (request: StartRequest) => Promise<PreparedStart>;
  readonly #lines: SerialLines;
  readonly #processes: QemuProcesses;
  readonly #ends = new Ends();
  readonly #observed: ObservedPlacements;
  readonly #starting = new Set<VmId>();
  /** Starts given up whose destroy has not come back, also beyond its deadline: it would hit the next start. */
  readonly #undoing = new Set<VmId>();
  readonly #hints = new Set<() => void>();
  readonly #closed = new AbortController();
  #eventsMissed = true;
  #cpuModel = '';

  constructor(config: HostDriverConfig, deps: LibvirtDriverDeps) {
    this.#config = config;
    this.#deps = deps;
    this.#files = new VmFiles(config);
    this.#dir = new SharedDir(config.dir);
    this.#observed = new ObservedPlacements(deps.clock);
    this.#lines = new SerialLines(deps.clock);
    this.#processes = new QemuProcesses(deps.clock, {
      ...(deps.netNamespace === undefined ? {} : { netNamespace: deps.netNamespace }),
    });
    this.#link = new LibvirtLink({
      uri: config.uri,
      clock: deps.clock,
      logger: deps.logger,
      metrics: deps.metrics,
      onConnected: (call) => this.#prepare(call),
      onChange: () => {
        this.#eventsMissed = true;
        this.#hint();
      },
      onEvent: (event) => {
        this.#ends.onEvent(event);
        if (event.type === 'lifecycle' && event.event === EVENT.stopped) this.#ended(event.uuid as VmId);
        this.#hint();
      },
    });
    const own = { files: this.#files, dir: this.#dir, call: this.#link.call.bind(this.#link) };
    this.#prepareStart = startPreparer(config, deps, own);
  }

  start(): void {
    this.#link.start();
    const left = 'what is left of making cloud-init disks cannot be removed';
    this.#files.sweep().catch((error: unknown) => this.#deps.logger.warn({ err: error }, left));
  }

  /** Process id of the child that hosts libvirt; for tests. */
  get childPid(): number | null {
    return this.#link.childPid;
  }

  async inventory(): Promise<HostInventory> {
    const inventory = await readShownInventory(this.#deps.fsRoot ?? '/', this.#config.pretendTopology);
    const { libvirt, hypervisor } = this.#link.versions;
    if (inventory.versions !== undefined) Object.assign(inventory.versions, { libvirt, qemu: hypervisor });
    if (inventory.cpu !== undefined) inventory.cpu.libvirtModel = await this.#libvirtCpuModel();
    return inventory;
  }

  async listDomains(): Promise<readonly DomainObservation[]> {
    const missed = this.#eventsMissed;
    await this.#dir.look();
    const listed = await this.#link.call('list', { metadataUri: METADATA_URI }, SHORT);
    const domains = listed.flatMap((domain) => this.#observe(domain));
    await this.#observed.refresh(domains, (vmId) => this.#link.call('xml', { uuid: vmId }, SHORT));
    this.#ends.listed(domains, missed);
    if (missed) {
      this.#eventsMissed = false;
      const present = new Set(domains.map(({ vmId }) => vmId));
      await this.#files.removeSeedsExcept((vmId) => present.has(vmId) || this.#starting.has(vmId));
    }
    return domains.map((domain) => ({ ...domain, placement: this.#observed.of(domain.vmId, domain.epoch) }));
  }

  haveProcess(vmIds: readonly VmId[]): Promise<ReadonlySet<VmId>> {
    return this.#processes.which(vmIds);
  }

  async startDomain(request: StartRequest): Promise<void> {
    const { vmId, name, epoch } = request;
    if (!this.#link.connected) await this.#link.call('list', { metadataUri: METADATA_URI }, SHORT);
    // Also what libvirt does not know: a QEMU that it lost must not get a twin.
    const isBusy = this.#starting.has(vmId) || this.#undoing.has(vmId);
    if (isBusy || (await this.#processes.find(vmId)).length > 0) throw domainExists(vmId, name);
    this.#starting.add(vmId);
    this.#ends.starting(vmId, epoch);
    try {
      await this.#start(request);
      this.#ends.started(vmId);
    } catch (error) {
      this.#ends.startFailed(vmId);
      throw error;
    } finally {
      this.#starting.delete(vmId);
    }
  }

  async shutdownDomain(vmId: VmId): Promise<void> {
    try {
      await this.#link.call('shutdown', { uuid: vmId, acpiOnly: false }, SHORT);
    } catch (error) {
      // A guest agent that is connected and does not answer; the power button works without it.
      if (!(error instanceof BusbarError) || error.reason !== 'HYPERVISOR_TIMEOUT') throw inOurWords(error);
      await this.#link.call('shutdown', { uuid: vmId, acpiOnly: true }, SHORT);
    }
  }

  async destroyDomain(vmId: VmId): Promise<void> {
    this.#ends.destroying(vmId);
    const options = { lane: 'abort', deadlineMs: DESTROY_DEADLINE_MS } as const;
    const byLibvirt = this.#link.call('destroy', { uuid: vmId }, options).then(
      () => 'done' as const,
      (error: unknown) => error,
    );
    const timer = new AbortController();
    const isSlow = () => 'slow' as const;
    const slow = sleep(this.#deps.clock, KILL_AFTER_MS, timer.signal).then(isSlow, isSlow);
    const outcome = await Promise.race([byLibvirt, slow]);
    timer.abort();
    // After libvirt's success too: what it does not know of must end as well.
    const killed = await this.#kill(vmId);
    if (outcome === 'done') return;
    if (killed > 0) this.#deps.logger.warn({ vmId, killed }, 'QEMU was killed, as libvirt did not end it');
    // libvirt sees its QEMU gone and clears up; without it, the next one to start does.
    const last = outcome === 'slow' ? await byLibvirt : outcome;
    if (last !== 'done') this.#deps.logger.warn({ vmId, err: last }, 'libvirt did not end a domain');
    if (!this.#link.connected && killed > 0) this.#ends.killed(vmId);
    this.#hint();
  }

  async setLinks(vmId: VmId, up: boolean): Promise<void> {
    try {
      const xml = await this.#link.call('xml', { uuid: vmId }, SHORT);
      if (xml === null) throw domainNotFound(vmId);
      const devices = nicsToChange(parseXml(xml), up).map((nic) => serialize(nic));
      if (devices.length === 0) return;
      if (!(await this.#link.call('updateDevices', { uuid: vmId, devices }, SHORT))) throw domainNotFound(vmId);
    } catch (error) {
      throw inOurWords(error);
    }
  }

  async growDisk(vmId: VmId, disk: { readonly volumeId: string; readonly sizeBytes: bigint }): Promise<bigint> {
    try {
      const xml = await this.#link.call('xml', { uuid: vmId }, SHORT);
      const target = xml === null ? undefined : targetOf(parseXml(xml), disk.volumeId);
      if (target === undefined) throw domainNotFound(vmId);
      const has = await this.#link.call('growDisk', { uuid: vmId, target, sizeBytes: disk.sizeBytes }, BESIDE);
      if (has === null) throw domainNotFound(vmId);
      return has;
    } catch (error) {
      throw inOurWords(error);
    }
  }

  onHint(listener: () => void): Disposable {
    const entry = () => listener();
    this.#hints.add(entry);
    return { [Symbol.dispose]: () => this.#hints.delete(entry) };
  }

  takeEnds(): readonly DomainEnd[] {
    return this.#ends.take();
  }

  health(): { readonly healthy: boolean; readonly message: string } {
    const message = this.#link.connected ? this.#dir.problem : this.#link.why;
    return { healthy: this.#link.connected && message === '', message };
  }

  async openConsole(vmId: VmId, signal: AbortSignal): Promise<ConsoleLink> {
    const unavailable = (why: string) => consoleUnavailable(vmId, why);
    const either = AbortSignal.any([signal, this.#closed.signal]);
    try {
      const line = await this.#lines.open(await this.#files.consoleOf(vmId), either, unavailable);
      return { output: line.reader.output, write: (input) => line.write(input), close: () => line.reader.close() };
    } catch (error) {
      if (error instanceof BusbarError) throw error;
      // Nobody listens: no such domain, or it has no console. Works without libvirt only while it has one.
      if ((await this.#link.call('xml', { uuid: vmId }, SHORT)) === null) throw domainNotFound(vmId);
      throw consoleUnavailable(vmId, 'it has none', error);
    }
  }

  async *readSerialLog(
    vmId: VmId,
    options: { readonly tailBytes: number; readonly follow: boolean; readonly signal: AbortSignal },
  ): AsyncIterable<Uint8Array> {
    const signal = AbortSignal.any([options.signal, this.#closed.signal]);
    try {
      yield* readLog(this.#files.paths(vmId).serialLog, { ...options, signal, clock: this.#deps.clock });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw domainNotFound(vmId);
      throw error;
    }
  }

  async close(): Promise<void> {
    this.#closed.abort();
    this.#hints.clear();
    await Promise.all([this.#link.close(), this.#lines.close()]);
  }

  async #prepare(call: LinkCall): Promise<void> {
    const { rbd } = this.#config;
    await this.#files.closeFormerConsoles();
    if (!rbd?.shared) return;
    await call('setSecret', { xml: cephSecretXml(), value: await readCephKey(rbd.shared.keyFile) }, SHORT);
  }

  async #start(request: StartRequest): Promise<void> {
    const { vmId, name } = request;
    let prepared: PreparedStart;
    try {
      prepared = await this.#prepareStart(request);
    } catch (error) {
      // Its whole chain is in the words already.
      throw domainStartFailed(name, errorChain(error));
    }
    try {
      await this.#create({ vmId, name, xml: prepared.xml });
    } finally {
      await prepared.done();
    }
  }

  async #create({ vmId, name, xml }: { vmId: VmId; name: string; xml: string }): Promise<void> {
    const deadlineMs = this.#deps.startDeadlineMs ?? START_DEADLINE_MS;
    const long = { lane: 'long', deadlineMs: deadlineMs + START_UNDO_MS } as const;
    const limits = { name, deadlineMs, undoDeadlineMs: UNDO_DEADLINE_MS };
    try {
      await startOrUndo(this.#deps.clock, limits, {
        create: async () => void (await this.#link.call('create', { xml }, long)),
        undo: () => this.#undoStart(vmId, name),
        isGone: async () => (await this.#processes.find(vmId)).length === 0 && !(await this.#exists(vmId)),
      });
    } catch (error) {
      if (error instanceof BusbarError) {
        // The driver's own words: libvirt is away, or the outcome is unknown.
        if (error.reason.startsWith('HYPERVISOR_')) throw error;
        if (error.reason === HOST_DRIVER_REASONS.domainStartFailed) {
          await this.#files.removeSeed(vmId);
          throw error;
        }
      }
      if (/already (active|exists|defined)/.test(errorChain(error)) && (await this.#exists(vmId))) {
        throw domainExists(vmId, name);
      }
      await this.#files.removeSeed(vmId);
      throw domainStartFailed(name, await whyFailed(this.#deps.qemuLogDir, name, error), error);
    }
  }

  /** Ends a start that takes too long, e.g. because QEMU waits for storage; `create` then returns. */
  async #undoStart(vmId: VmId, name: string): Promise<void> {
    this.#deps.logger.warn({ vmId, name }, 'a start takes too long and is undone');
    this.#undoing.add(vmId);
    try {
      await this.destroyDomain(vmId);
    } catch (error) {
      this.#deps.logger.error({ vmId, vm: name, err: error }, 'a start that takes too long cannot be undone');
      throw error;
    } finally {
      this.#undoing.delete(vmId);
    }
  }

  async #exists(vmId: VmId): Promise<boolean> {
    return (await this.#link.call('xml', { uuid: vmId }, SHORT)) !== null;
  }

  async #kill(vmId: VmId): Promise<number> {
    const found = await this.#processes.find(vmId);
    const dead = await Promise.all(found.map((qemu) => this.#processes.kill(qemu, KILL_DEADLINE_MS)));
    if (dead.includes(false)) throw hypervisorTimeout('let QEMU die (it hangs in the kernel)', KILL_DEADLINE_MS);
    return found.length;
  }

  #observe(domain: ListedDomain): DomainObservation[] {
    const metadata = domain.metadata === null ? null : parseMetadata(domain.metadata);
    // Somebody copied our XML for a domain of their own: it is not the VM.
    if (metadata === null || metadata.vmId !== domain.uuid) return [];
    const { state, message } = stateOf(domain.state, domain.reason);
    const ioError = state === 'paused' && message.startsWith('I/O error') ? this.#ends.ioError(metadata.vmId) : '';
    return [{ ...metadata, state, message: ioError === '' ? message : ioError, placement: undefined }];
  }

  #ended(vmId: VmId): void {
    if (this.#starting.has(vmId)) return;
    const left = 'a cloud-init disk cannot be removed';
    this.#files.removeSeed(vmId).catch((error: unknown) => this.#deps.logger.warn({ vmId, err: error }, left));
  }

  async #libvirtCpuModel(): Promise<string> {
    if (this.#cpuModel !== '' || !this.#link.connected) return this.#cpuModel;
    try {
      const xml = await this.#link.call('capabilities', {}, { lane: 'short', deadlineMs: CAPABILITIES_DEADLINE_MS });
      this.#cpuModel = textOf(find(parseXml(xml), 'host', 'cpu', 'model'));
    } catch (error) {
      this.#deps.logger.warn({ err: error }, 'libvirt does not tell its capabilities');
    }
    return this.#cpuModel;
  }

  #hint(): void {
    for (const listener of [...this.#hints]) listener();
  }
}

const SHORT = { lane: 'short', deadlineMs: CALL_DEADLINE_MS } as const;
/** What a QEMU that stands still may hold: listings do not wait behind it. */
const BESIDE = { lane: 'long', deadlineMs: CALL_DEADLINE_MS } as const;
