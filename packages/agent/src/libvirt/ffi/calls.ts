// SPDX-License-Identifier: Apache-2.0
import { statSync } from 'node:fs';
import type { MethodArgs } from '@busbar/native/protocol';
import { aclOfMode, decodeAcl, deviceAccess, encodeAcl, withUsers } from './acl.ts';
import { LibvirtError, VIR_ERR } from './errors.ts';
import type { ConnectPtr, DomainArrayPtr, DomainPtr } from './handles.ts';
import type { LibvirtMethods, ListedDomain } from './methods.ts';
import type { Session } from './session.ts';
import { type BlockInfo, type Libvirt, takeDomainArray } from './signatures.ts';

/** AFFECT_LIVE: only what runs, transient domains have no other configuration. */
export const FLAGS = {
  listActive: 1,
  metadataElement: 2,
  affectLive: 1,
  shutdownAcpi: 1,
  blockResizeBytes: 1,
} as const;

export class LibvirtCalls implements Omit<LibvirtMethods, 'connect'> {
  readonly #libvirt: Libvirt;
  readonly #session: () => Session;
  readonly #deviceAccess = deviceAccess();
  /** By UUID and libvirt's id, which is new with every start; nothing changes metadata in between. */
  #metadata = new Map<string, string | null>();

  constructor(libvirt: Libvirt, session: () => Session) {
    this.#libvirt = libvirt;
    this.#session = session;
  }

  capabilities({ untilNs }: { untilNs: bigint }): Promise<string> {
    const session = this.#session();
    return session.run('short', untilNs, 'tell its capabilities', async (conn) => {
      const xml = await this.#libvirt.virConnectGetCapabilities(conn);
      if (xml === null) throw session.failure(conn, 'capabilities');
      return xml;
    });
  }

  setSecret(args: { untilNs: bigint; xml: string; value: Uint8Array }): Promise<null> {
    const session = this.#session();
    return session.run('short', args.untilNs, 'take the secret', async (conn) => {
      const secret = await this.#libvirt.virSecretDefineXML(conn, args.xml, 0);
      if (secret === null) throw session.failure(conn, 'defining the secret');
      try {
        const set = await this.#libvirt.virSecretSetValue(secret, args.value, args.value.length, 0);
        if (set < 0) throw session.failure(conn, 'setting the secret');
      } finally {
        this.#libvirt.virSecretFree(secret);
      }
      return null;
    });
  }

  dropSecret({ untilNs, uuid }: { untilNs: bigint; uuid: string }): Promise<null> {
    const session = this.#session();
    return session.run('short', untilNs, 'forget the secret', async (conn) => {
      const secret = await this.#libvirt.virSecretLookupByUUIDString(conn, uuid);
      if (secret === null) {
        const error = session.failure(conn, 'finding the secret');
        if (error.code === VIR_ERR.noSecret) return null;
        throw error;
      }
      try {
        const undefined_ = await this.#libvirt.virSecretUndefine(secret);
        if (undefined_ < 0) throw session.failure(conn, 'forgetting the secret');
      } finally {
        this.#libvirt.virSecretFree(secret);
      }
      return null;
    });
  }

  async admitToDevice(args: MethodArgs<LibvirtMethods, 'admitToDevice'>): Promise<null> {
    const { path, users, range } = args;
    const acl = this.#deviceAccess.read(path);
    const before = acl === null ? aclOfMode(statSync(path).mode) : decodeAcl(acl);
    const after = withUsers(before, users, (uid) => uid >= range.first && uid < range.first + range.count);
    this.#deviceAccess.write(path, encodeAcl(after));
    return null;
  }

  list({ untilNs, metadataUri }: { untilNs: bigint; metadataUri: string }): Promise<ListedDomain[]> {
    const session = this.#session();
    return session.run('short', untilNs, 'list domains', async (conn) => {
      const out: [DomainArrayPtr | null] = [null];
      const count = await this.#libvirt.virConnectListAllDomains(conn, out, FLAGS.listActive);
      if (count < 0 || out[0] === null) throw session.failure(conn, 'listing domains');
      const domains = takeDomainArray(out[0], count);
      const known = new Map<string, string | null>();
      try {
        const listed: ListedDomain[] = [];
        for (const dom of domains) {
          const one = await this.#describe(conn, session, dom, metadataUri, known);
          if (one !== null) listed.push(one);
        }
        this.#metadata = known;
        return listed;
      } finally {
        for (const dom of domains) this.#libvirt.virDomainFree(dom);
      }
    });
  }

  create({ untilNs, xml }: { untilNs: bigint; xml: string }): Promise<null> {
    const session = this.#session();
    return session.run('long', untilNs, 'start the domain', async (conn) => {
      const dom = await this.#libvirt.virDomainCreateXML(conn, xml, 0);
      if (dom === null) throw session.failure(conn, 'starting the domain');
      this.#libvirt.virDomainFree(dom);
      return null;
    });
  }

  async destroy({ untilNs, uuid }: { untilNs: bigint; uuid: string }): Promise<boolean> {
    const found = await this.#withDomain('abort', untilNs, 'destroy the domain', uuid, (dom) =>
      this.#libvirt.virDomainDestroyFlags(dom, 0),
    );
    return found !== null;
  }

  async shutdown(args: { untilNs: bigint; uuid: string; acpiOnly: boolean }): Promise<boolean> {
    // No flags: the guest agent when it is connected, then ACPI when it fails.
    const found = await this.#withDomain('short', args.untilNs, 'ask the guest to shut down', args.uuid, (dom) =>
      this.#libvirt.virDomainShutdownFlags(dom, args.acpiOnly ? FLAGS.shutdownAcpi : 0),
    );
    return found !== null;
  }

  xml({ untilNs, uuid }: { untilNs: bigint; uuid: string }): Promise<string | null> {
    return this.#withDomain('short', untilNs, 'describe the domain', uuid, (dom) =>
      this.#libvirt.virDomainGetXMLDesc(dom, 0),
    );
  }

  growDisk(args: { untilNs: bigint; uuid: string; target: string; sizeBytes: bigint }): Promise<bigint | null> {
    const capacity = async (dom: DomainPtr): Promise<bigint> => {
      const info: [BlockInfo] = [{ capacity: 0 }];
      const failed = (await this.#libvirt.virDomainGetBlockInfo(dom, args.target, info, 0)) < 0;
      return failed ? -1n : BigInt(info[0].capacity);
    };
    // Not "short": a QEMU that stands still holds the connection, and listings would wait behind it.
    return this.#withDomain('long', args.untilNs, 'grow the disk', args.uuid, async (dom) => {
      const before = await capacity(dom);
      // virDomainBlockResize shrinks as readily as it grows: never ask for less than there is.
      if (before < 0n || before >= args.sizeBytes) return before;
      const flags = FLAGS.blockResizeBytes;
      if ((await this.#libvirt.virDomainBlockResize(dom, args.target, args.sizeBytes, flags)) < 0) return -1n;
      return await capacity(dom);
    });
  }

  async updateDevices(args: { untilNs: bigint; uuid: string; devices: readonly string[] }): Promise<boolean> {
    const found = await this.#withDomain('short', args.untilNs, 'change devices', args.uuid, async (dom) => {
      for (const xml of args.devices) {
        if ((await this.#libvirt.virDomainUpdateDeviceFlags(dom, xml, FLAGS.affectLive)) < 0) return -1;
      }
      return 0;
    });
    return found !== null;
  }

  /** null when there is no such domain, also when it went away during the call. */
  #withDomain<T extends number | string | bigint>(
    lane: 'short' | 'long' | 'abort',
    untilNs: bigint,
    what: string,
    uuid: string,
    call: (dom: DomainPtr) => Promise<T | null>,
  ): Promise<T | null> {
    const session = this.#session();
    return session.run(lane, untilNs, what, async (conn) => {
      const dom = await this.#libvirt.virDomainLookupByUUIDString(conn, uuid);
      if (dom === null) return this.#nullWhenGone(session.failure(conn, what));
      try {
        const value = await call(dom);
        if (value !== null && (typeof value === 'string' || (value as number | bigint) >= 0)) return value;
        return this.#nullWhenGone(session.failure(conn, what));
      } finally {
        this.#libvirt.virDomainFree(dom);
      }
    });
  }

  #nullWhenGone(error: LibvirtError): null {
    if (error.code === VIR_ERR.noDomain) return null;
    // "domain is not running": it ended between look-up and call.
    if (error.code === VIR_ERR.operationInvalid && /not running/.test(error.message)) return null;
    throw error;
  }

  async #describe(
    conn: ConnectPtr,
    session: Session,
    dom: DomainPtr,
    metadataUri: string,
    known: Map<string, string | null>,
  ): Promise<ListedDomain | null> {
    const buffer = new Uint8Array(37);
    this.#libvirt.virDomainGetUUIDString(dom, buffer);
    const uuid = Buffer.from(buffer.subarray(0, 36)).toString('latin1');
    const name = this.#libvirt.virDomainGetName(dom);
    try {
      const state: [number] = [0];
      const reason: [number] = [0];
      if ((await this.#libvirt.virDomainGetState(dom, state, reason, 0)) < 0) throw session.failure(conn, 'state');
      const key = `${uuid} ${this.#libvirt.virDomainGetID(dom)}`;
      let metadata = this.#metadata.get(key);
      if (metadata === undefined) {
        metadata = await this.#libvirt.virDomainGetMetadata(dom, FLAGS.metadataElement, metadataUri, 0);
        if (metadata === null) {
          const error = session.failure(conn, 'metadata');
          if (error.code !== VIR_ERR.noDomainMetadata) throw error;
        }
      }
      known.set(key, metadata);
      return { uuid, name, state: state[0], reason: reason[0], metadata };
    } catch (error) {
      if (error instanceof LibvirtError && error.code === VIR_ERR.noDomain) return null;
      throw error;
    }
  }
}
