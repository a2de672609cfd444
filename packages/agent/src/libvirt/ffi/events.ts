// SPDX-License-Identifier: Apache-2.0
import type { ConnectPtr, DomainPtr, FunctionPtr } from './handles.ts';
import type { LibvirtEvent } from './methods.ts';
import { type Libvirt, registerCallback } from './signatures.ts';

/** virDomainEventID. */
export const EVENT = { lifecycle: 0, reboot: 1, watchdog: 3, ioErrorReason: 6, agentLifecycle: 18 } as const;

export interface EventHandlers {
  readonly close: FunctionPtr;
  readonly domain: readonly { readonly id: number; readonly callback: FunctionPtr }[];
}

/**
 * Makes the functions that libvirt calls; once per process, for all connections. libvirt's thread
 * waits until each has returned, so they copy, emit and return. The two getters used read memory
 * that belongs to the domain object alone.
 */
export function registerHandlers(
  libvirt: Libvirt,
  emit: (event: LibvirtEvent) => void,
  onClose: (conn: ConnectPtr, reason: number) => void,
): EventHandlers {
  const buffer = new Uint8Array(37);
  const uuidOf = (dom: DomainPtr): string => {
    libvirt.virDomainGetUUIDString(dom, buffer);
    return Buffer.from(buffer.subarray(0, 36)).toString('latin1');
  };
  const lifecycle = (_conn: ConnectPtr, dom: DomainPtr, event: number, detail: number): number => {
    emit({ type: 'lifecycle', uuid: uuidOf(dom), event, detail });
    return 0;
  };
  const ioError = (
    _conn: ConnectPtr,
    dom: DomainPtr,
    path: string | null,
    _alias: string,
    _action: number,
    reason: string | null,
  ) => emit({ type: 'io-error', uuid: uuidOf(dom), path: path ?? '', reason: reason ?? '' });
  const other = (what: 'reboot' | 'watchdog' | 'agent') => (_conn: ConnectPtr, dom: DomainPtr) =>
    emit({ type: 'other', what, uuid: uuidOf(dom) });
  return {
    close: registerCallback(onClose, 'close'),
    domain: [
      { id: EVENT.lifecycle, callback: registerCallback(lifecycle, 'lifecycle') },
      { id: EVENT.reboot, callback: registerCallback(other('reboot'), 'generic') },
      { id: EVENT.watchdog, callback: registerCallback(other('watchdog'), 'watchdog') },
      { id: EVENT.ioErrorReason, callback: registerCallback(ioError, 'ioError') },
      { id: EVENT.agentLifecycle, callback: registerCallback(other('agent'), 'agent') },
    ],
  };
}
