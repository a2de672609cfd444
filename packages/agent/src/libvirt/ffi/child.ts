// SPDX-License-Identifier: Apache-2.0
/** Entry of the child process that hosts libvirt. */
import { serveNative } from '@busbar/native/serve';
import { LibvirtCalls } from './calls.ts';
import { CHILD_CODES, LibvirtError } from './errors.ts';
import { registerHandlers } from './events.ts';
import { startEventLoop } from './loop.ts';
import type { LibvirtEvent, LibvirtMethods } from './methods.ts';
import { Session } from './session.ts';
import { decodeError, loadLibvirt, type RawError, registerCallback } from './signatures.ts';

serveNative<LibvirtMethods, LibvirtEvent>((context) => {
  const libvirt = loadLibvirt();
  let lastError: RawError | null = null;
  // Also keeps libvirt from writing every error to stderr.
  const onError = (_userData: null, error: bigint | null) => {
    if (error !== null) lastError = decodeError(error);
  };
  libvirt.virSetErrorFunc(null, registerCallback(onError, 'error'));
  startEventLoop(libvirt);

  let session: Session | null = null;
  const handlers = registerHandlers(
    libvirt,
    (event) => context.emit(event),
    (conn, reason) => {
      if (session?.owns(conn) !== true) return;
      session.close();
      session = null;
      context.emit({ type: 'closed', reason });
    },
  );
  const current = (): Session => {
    if (session === null) throw new LibvirtError('not connected', CHILD_CODES.connectionLost);
    return session;
  };
  const calls = new LibvirtCalls(libvirt, current);

  return {
    async connect({ uri, untilNs }) {
      session?.close();
      session = null;
      const opened = await Session.open({ libvirt, handlers, lastError: () => lastError }, uri, untilNs);
      session = opened;
      return await opened.run('short', untilNs, 'tell its version', async (conn) => {
        const [library, hypervisor]: [[number | bigint], [number | bigint]] = [[0], [0]];
        if ((await libvirt.virConnectGetLibVersion(conn, library)) < 0) throw opened.failure(conn, 'version');
        if ((await libvirt.virConnectGetVersion(conn, hypervisor)) < 0) throw opened.failure(conn, 'version');
        return { libvirt: Number(library[0]), hypervisor: Number(hypervisor[0]) };
      });
    },
    capabilities: async (args) => await calls.capabilities(args),
    setSecret: async (args) => await calls.setSecret(args),
    dropSecret: async (args) => await calls.dropSecret(args),
    admitToDevice: async (args) => await calls.admitToDevice(args),
    list: async (args) => await calls.list(args),
    create: async (args) => await calls.create(args),
    destroy: async (args) => await calls.destroy(args),
    shutdown: async (args) => await calls.shutdown(args),
    xml: async (args) => await calls.xml(args),
    growDisk: (args) => calls.growDisk(args),
    updateDevices: async (args) => await calls.updateDevices(args),
  };
});
