// SPDX-License-Identifier: Apache-2.0
import type { ClusterView } from '../view/view.ts';
import type { CertificateNews } from './protocol.ts';

/** Tells what becomes of certificates as the view learns of it, each once: what admission knows of the agents' ones. */
export function tellCertificates(view: ClusterView, tell: (news: CertificateNews) => void): Disposable {
  const told = new Map<string, string>();
  let seen: unknown;
  const look = () => {
    const certificates = view.tables.certificate.sorted();
    // The same list as long as nothing in it changes.
    if (certificates === seen) return;
    seen = certificates;
    const revoked: string[] = [];
    const replaced: { serial: string; at: Date }[] = [];
    for (const { id: serial, record } of certificates) {
      const { revokeTime, replaceTime } = record.certificate ?? {};
      const state = revokeTime === undefined ? `${replaceTime?.getTime() ?? ''}` : 'revoked';
      if (state === '' || told.get(serial) === state) continue;
      told.set(serial, state);
      if (revokeTime !== undefined) revoked.push(serial);
      else if (replaceTime !== undefined) replaced.push({ serial, at: replaceTime });
    }
    if (revoked.length + replaced.length > 0) tell({ revoked, replaced });
  };
  look();
  return view.changes.onFlush(look);
}
