// SPDX-License-Identifier: Apache-2.0
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Clock } from '@busbar/core/clock/clock';
import { errorChain } from '@busbar/core/errors';
import type { Logger } from '@busbar/core/log';
import type { TlsFiles } from '@busbar/pki/tls/files';
import { type Renewer, renewInPlace } from '@busbar/pki/tls/renewal';
import { openTlsSource } from '@busbar/pki/tls/source';

const run = promisify(execFile);
/** A libvirtd that is busy answers within a second. */
const RELOAD_DEADLINE_MS = 10_000;

/**
 * libvirtd's certificates, by the names that its `pkipath` looks for: one as server, one as client of its peers. Those that
 * are replaced, by us or by hand, libvirtd is told to read; open connections and guests go on. A trouble with them is told
 * and is no trouble of the VMs. Resolves when the signal aborts.
 */
export async function keepLibvirtCertificates(
  deps: {
    readonly pki: string;
    readonly renewer: Renewer;
    readonly clock: Clock;
    readonly logger: Logger;
    readonly reload?: () => Promise<void>;
  },
  signal: AbortSignal,
): Promise<void> {
  const { pki, clock, logger, renewer, reload = tellLibvirtd } = deps;
  const keep = async (name: 'server' | 'client'): Promise<void> => {
    const at = (file: string) => join(pki, file);
    const files: TlsFiles = { ca: at('cacert.pem'), certificate: at(`${name}cert.pem`), key: at(`${name}key.pem`) };
    try {
      const source = await openTlsSource({ files, clock, logger });
      // The client's are read for each connection.
      using _ = source.onChange(() => {
        if (name === 'server') void reload().catch((error: unknown) => complain(error, 'libvirtd does not take'));
      });
      await Promise.all([source.run(signal), renewInPlace({ source, files, renewer, clock, logger }, signal)]);
    } catch (error) {
      complain(error, 'cannot look after');
    }
  };
  function complain(error: unknown, what: string): void {
    logger.warn({ pki, err: errorChain(error) }, `${what} libvirt's certificates`);
  }
  await Promise.all([keep('server'), keep('client')]);
}

async function tellLibvirtd(): Promise<void> {
  await run('virt-admin', ['server-update-tls', 'libvirtd'], { timeout: RELOAD_DEADLINE_MS });
}
