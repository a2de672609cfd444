// SPDX-License-Identifier: Apache-2.0
import koffi from 'koffi';
import type { ConnectPtr, DomainArrayPtr, DomainPtr, ErrorPtr, FunctionPtr, SecretPtr } from './handles.ts';

/**
 * The part of libvirt.so.0 that Busbar uses, as in libvirt 9.0's headers. All of it is in every
 * libvirt since 2.0: the library never changes a function once released.
 */

type OutInt = [number];
type OutLong = [number | bigint];
type OutPtr<P> = [P | null];
type Nothing = null;

/** Calls that talk to the daemon. They block, hence run in the thread pool and end in a callback. */
interface Blocking {
  virConnectOpen(uri: string): ConnectPtr | null;
  virConnectClose(conn: ConnectPtr): number;
  virConnectSetKeepAlive(conn: ConnectPtr, intervalSeconds: number, count: number): number;
  virConnectRegisterCloseCallback(conn: ConnectPtr, cb: FunctionPtr, opaque: Nothing, free: Nothing): number;
  virConnectUnregisterCloseCallback(conn: ConnectPtr, cb: FunctionPtr): number;
  virConnectDomainEventRegisterAny(
    conn: ConnectPtr,
    dom: Nothing,
    eventId: number,
    cb: FunctionPtr,
    opaque: Nothing,
    free: Nothing,
  ): number;
  virConnectGetVersion(conn: ConnectPtr, version: OutLong): number;
  virConnectGetLibVersion(conn: ConnectPtr, version: OutLong): number;
  virConnectGetCapabilities(conn: ConnectPtr): string | null;
  virConnectListAllDomains(conn: ConnectPtr, domains: OutPtr<DomainArrayPtr>, flags: number): number;
  virDomainLookupByUUIDString(conn: ConnectPtr, uuid: string): DomainPtr | null;
  virDomainGetState(domain: DomainPtr, state: OutInt, reason: OutInt, flags: number): number;
  virDomainGetMetadata(domain: DomainPtr, type: number, uri: string, flags: number): string | null;
  virDomainGetXMLDesc(domain: DomainPtr, flags: number): string | null;
  virDomainCreateXML(conn: ConnectPtr, xml: string, flags: number): DomainPtr | null;
  virDomainDestroyFlags(domain: DomainPtr, flags: number): number;
  virDomainShutdownFlags(domain: DomainPtr, flags: number): number;
  virDomainUpdateDeviceFlags(domain: DomainPtr, xml: string, flags: number): number;
  virDomainGetBlockInfo(domain: DomainPtr, disk: string, info: [BlockInfo], flags: number): number;
  virDomainBlockResize(domain: DomainPtr, disk: string, size: bigint, flags: number): number;
  virSecretDefineXML(conn: ConnectPtr, xml: string, flags: number): SecretPtr | null;
  virSecretLookupByUUIDString(conn: ConnectPtr, uuid: string): SecretPtr | null;
  virSecretUndefine(secret: SecretPtr): number;
  virSecretSetValue(secret: SecretPtr, value: Uint8Array, size: number, flags: number): number;
  virEventRunDefaultImpl(): number;
}

/** Calls that touch memory only: no lock that another thread holds while it waits, so safe on the JS thread. */
interface Immediate {
  virInitialize(): number;
  virEventRegisterDefaultImpl(): number;
  virEventAddTimeout(frequencyMs: number, cb: FunctionPtr, opaque: Nothing, free: Nothing): number;
  virSetErrorFunc(userData: Nothing, handler: FunctionPtr): void;
  virConnGetLastError(conn: ConnectPtr): ErrorPtr | null;
  virConnResetLastError(conn: ConnectPtr): void;
  virDomainGetName(domain: DomainPtr): string;
  virDomainGetUUIDString(domain: DomainPtr, buffer: Uint8Array): number;
  virDomainGetID(domain: DomainPtr): number;
  virDomainFree(domain: DomainPtr): number;
  virSecretFree(secret: SecretPtr): number;
}

const POINTER = 'void *';

/** virDomainBlockInfo. Only the capacity is what QEMU says to the guest. */
export interface BlockInfo {
  capacity: number | bigint;
}
koffi.struct('BusbarBlockInfo', { capacity: 'uint64_t', allocation: 'uint64_t', physical: 'uint64_t' });

const BLOCKING: Readonly<Record<keyof Blocking, string>> = {
  virConnectOpen: `${POINTER} virConnectOpen(str)`,
  virConnectClose: `int virConnectClose(${POINTER})`,
  virConnectSetKeepAlive: `int virConnectSetKeepAlive(${POINTER}, int, uint)`,
  virConnectRegisterCloseCallback: `int virConnectRegisterCloseCallback(${POINTER}, ${POINTER}, ${POINTER}, ${POINTER})`,
  virConnectUnregisterCloseCallback: `int virConnectUnregisterCloseCallback(${POINTER}, ${POINTER})`,
  virConnectDomainEventRegisterAny: `int virConnectDomainEventRegisterAny(${POINTER}, ${POINTER}, int, ${POINTER}, ${POINTER}, ${POINTER})`,
  virConnectGetVersion: `int virConnectGetVersion(${POINTER}, _Out_ ulong *)`,
  virConnectGetLibVersion: `int virConnectGetLibVersion(${POINTER}, _Out_ ulong *)`,
  virConnectGetCapabilities: `str! virConnectGetCapabilities(${POINTER})`,
  virConnectListAllDomains: `int virConnectListAllDomains(${POINTER}, _Out_ void **, uint)`,
  virDomainLookupByUUIDString: `${POINTER} virDomainLookupByUUIDString(${POINTER}, str)`,
  virDomainGetState: `int virDomainGetState(${POINTER}, _Out_ int *, _Out_ int *, uint)`,
  virDomainGetMetadata: `str! virDomainGetMetadata(${POINTER}, int, str, uint)`,
  virDomainGetXMLDesc: `str! virDomainGetXMLDesc(${POINTER}, uint)`,
  virDomainCreateXML: `${POINTER} virDomainCreateXML(${POINTER}, str, uint)`,
  virDomainDestroyFlags: `int virDomainDestroyFlags(${POINTER}, uint)`,
  virDomainShutdownFlags: `int virDomainShutdownFlags(${POINTER}, uint)`,
  virDomainUpdateDeviceFlags: `int virDomainUpdateDeviceFlags(${POINTER}, str, uint)`,
  virDomainGetBlockInfo: `int virDomainGetBlockInfo(${POINTER}, str, _Out_ BusbarBlockInfo *, uint)`,
  virDomainBlockResize: `int virDomainBlockResize(${POINTER}, str, uint64_t, uint)`,
  virSecretDefineXML: `${POINTER} virSecretDefineXML(${POINTER}, str, uint)`,
  virSecretLookupByUUIDString: `${POINTER} virSecretLookupByUUIDString(${POINTER}, str)`,
  virSecretUndefine: `int virSecretUndefine(${POINTER})`,
  virSecretSetValue: `int virSecretSetValue(${POINTER}, uint8_t *, size_t, uint)`,
  virEventRunDefaultImpl: 'int virEventRunDefaultImpl()',
};

const IMMEDIATE: Readonly<Record<keyof Immediate, string>> = {
  virInitialize: 'int virInitialize()',
  virEventRegisterDefaultImpl: 'int virEventRegisterDefaultImpl()',
  virEventAddTimeout: `int virEventAddTimeout(int, ${POINTER}, ${POINTER}, ${POINTER})`,
  virSetErrorFunc: `void virSetErrorFunc(${POINTER}, ${POINTER})`,
  virConnGetLastError: `${POINTER} virConnGetLastError(${POINTER})`,
  virConnResetLastError: `void virConnResetLastError(${POINTER})`,
  virDomainGetName: `str virDomainGetName(${POINTER})`,
  virDomainGetUUIDString: `int virDomainGetUUIDString(${POINTER}, uint8_t *)`,
  virDomainGetID: `uint virDomainGetID(${POINTER})`,
  virDomainFree: `int virDomainFree(${POINTER})`,
  virSecretFree: `int virSecretFree(${POINTER})`,
};

/** Every function in koffi's notation. A test compares them with libvirt's own declarations. */
export const PROTOTYPES = { ...BLOCKING, ...IMMEDIATE };

type Promised<F> = F extends (...args: infer A) => infer R ? (...args: A) => Promise<R> : never;
export type Libvirt = { readonly [K in keyof Blocking]: Promised<Blocking[K]> } & Readonly<Immediate>;

/** Shapes of the functions that libvirt calls. Pointers in them are only valid during the call. */
export const CALLBACKS = {
  close: koffi.proto('void BusbarClose(void *conn, int reason, void *opaque)'),
  lifecycle: koffi.proto('int BusbarLifecycle(void *conn, void *dom, int event, int detail, void *opaque)'),
  generic: koffi.proto('void BusbarGeneric(void *conn, void *dom, void *opaque)'),
  watchdog: koffi.proto('void BusbarWatchdog(void *conn, void *dom, int action, void *opaque)'),
  ioError: koffi.proto(
    'void BusbarIoError(void *conn, void *dom, str path, str alias, int action, str reason, void *opaque)',
  ),
  agent: koffi.proto('void BusbarAgent(void *conn, void *dom, int state, int reason, void *opaque)'),
  error: koffi.proto('void BusbarError(void *userData, void *error)'),
} as const;

export function loadLibvirt(): Libvirt {
  const library = koffi.load('libvirt.so.0');
  const table: Record<string, unknown> = {};
  for (const [name, prototype] of Object.entries(IMMEDIATE)) table[name] = library.func(prototype);
  for (const [name, prototype] of Object.entries(BLOCKING)) {
    const native = library.func(prototype);
    table[name] = (...args: unknown[]) =>
      new Promise((resolve, reject) => {
        native.async(...args, (error: Error | null, result: unknown) => {
          if (error) reject(error);
          else resolve(result);
        });
      });
  }
  return table as unknown as Libvirt;
}

/** A harmless C function with the shape of a timeout callback: `int abs(int)`. */
export function harmlessFunction(): FunctionPtr {
  return koffi.load('libc.so.6').symbol('abs') as FunctionPtr;
}

export function registerCallback(callback: (...args: never[]) => unknown, type: keyof typeof CALLBACKS): FunctionPtr {
  return koffi.register(callback, koffi.pointer(CALLBACKS[type])) as FunctionPtr;
}

/** Takes the pointers out of an array that libvirt allocated, and frees the array (not what it points to). */
export function takeDomainArray(array: DomainArrayPtr, count: number): DomainPtr[] {
  const domains = (koffi.decode(array, 'void *', count) as bigint[]).map((value) => value as DomainPtr);
  koffi.free(array);
  return domains;
}

/** The head of virError; what follows is deprecated or of no use. */
const virErrorHead = koffi.struct('BusbarVirErrorHead', { code: 'int', domain: 'int', message: 'str' });

export interface RawError {
  readonly code: number;
  /** Part of libvirt that raised it. */
  readonly domain: number;
  readonly message: string;
}

export function decodeError(error: ErrorPtr | bigint): RawError {
  const { code, domain, message } = koffi.decode(error, virErrorHead) as RawError & { message: string | null };
  return { code, domain, message: message ?? '' };
}
