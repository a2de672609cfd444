// SPDX-License-Identifier: Apache-2.0
import { harmlessFunction, type Libvirt } from './signatures.ts';

/** How long a new file descriptor may wait until the loop looks at it, as libvirt's own tools have it. */
const WAKE_MS = 500;

/**
 * Runs libvirt's own event loop in one thread of the pool, for ever. It has to run before the first
 * connection is opened, else calls stall. The timeout that wakes it has a C function as its
 * callback: one in JS would make the loop wait for the JS thread twice a second. (A loop written in
 * JS lost events in six of nine runs: docs/adr/0002-native-libraries-in-child-processes.md.)
 */
export function startEventLoop(libvirt: Libvirt): void {
  if (libvirt.virInitialize() < 0 || libvirt.virEventRegisterDefaultImpl() < 0) {
    throw new Error('libvirt cannot be initialised');
  }
  if (libvirt.virEventAddTimeout(WAKE_MS, harmlessFunction(), null, null) < 0) {
    throw new Error('libvirt has no event loop');
  }
  void run(libvirt);
}

async function run(libvirt: Libvirt): Promise<never> {
  for (;;) {
    if ((await libvirt.virEventRunDefaultImpl()) < 0) {
      // Without a loop every call hangs: end the process, its parent starts another.
      setImmediate(() => {
        throw new Error("libvirt's event loop failed");
      });
      return new Promise<never>(() => {});
    }
  }
}
