// SPDX-License-Identifier: Apache-2.0
/** `vm log`: what the guest printed, and with --follow what it prints, also past the death of a controller. */
import { once } from 'node:events';
import { VmServiceDefinition } from '@busbar/proto/gen/busbar/v1/vm';
import type { Metadata } from 'nice-grpc';
import { isUnavailable } from '../api/api.ts';
import { UnreachableError } from '../api/rpc-error.ts';
import type { Session } from '../cli/session.ts';
import { bytesFlag } from '../cli/values.ts';
import { note } from '../output/print.ts';

const PATIENCE_MS = 60_000;
const RETRY_MS = 500;

export async function runLog(
  session: Session,
  vm: string,
  options: { follow?: boolean; tail?: string },
): Promise<void> {
  session.doing = `read the log of VM ${vm}`;
  const api = await session.api();
  const follow = options.follow === true;
  session.endless = follow;
  let tailBytes = options.tail === undefined ? 0n : bytesFlag('--tail', options.tail);
  /** Bytes of a resumed stream that were shown before. */
  let skip = 0;
  let shown = false;
  let lostAt: number | undefined;
  for (;;) {
    let trailer: Metadata | undefined;
    let failed: ((error: unknown, trailer: Metadata | undefined) => unknown) | undefined;
    try {
      const opened = await api.open(VmServiceDefinition);
      failed = opened.failed;
      const request = { vm, tailBytes, follow };
      const stream = opened.client.getVmLog(request, { signal: session.signal, onTrailer: (t) => (trailer = t) });
      for await (const { output } of stream) {
        lostAt = undefined;
        const fresh = output.subarray(Math.min(skip, output.length));
        skip -= output.length - fresh.length;
        if (fresh.length === 0) continue;
        shown = true;
        const shownBytes = session.io.stdout.isTTY === true ? harmless(fresh) : fresh;
        if (!session.io.stdout.write(shownBytes)) await once(session.io.stdout, 'drain', { signal: session.signal });
      }
      return;
    } catch (error) {
      session.signal.throwIfAborted();
      const described = failed === undefined ? error : failed(error, trailer);
      const lost = isUnavailable(described) || described instanceof UnreachableError;
      lostAt ??= performance.now();
      // A log that is read once and broke in the middle would be repeated from its beginning: better an error.
      const resumable = follow || !shown;
      if (!lost || !resumable || performance.now() - lostAt > (follow ? PATIENCE_MS : 5000)) throw described;
      note(session.io, '[busbar] connection to the controller lost, going on through the next; lines may be missing');
      // The API has no position to resume from: begin at its end. One byte is the least that can be asked for.
      if (shown) [tailBytes, skip] = [1n, 1];
      await api.pause(RETRY_MS);
    }
  }
}

/**
 * What a guest printed, for a terminal: control characters other than tab and line ends become dots, so that whoever is root
 * in a guest cannot move the cursor, set the clipboard or fake a prompt on the engineer's screen. A file or pipe gets the bytes as they are.
 */
export function harmless(bytes: Uint8Array): Uint8Array {
  return bytes.map((byte, index) => {
    const shown = byte === 0x09 || byte === 0x0a || byte === 0x0d;
    // C1 controls (U+0080 to U+009F) are 0xc2 and this byte in UTF-8; some terminals obey them as they obey ESC.
    const c1 = byte >= 0x80 && byte <= 0x9f && bytes[index - 1] === 0xc2;
    return (byte < 0x20 && !shown) || byte === 0x7f || c1 ? 0x2e : byte;
  });
}
