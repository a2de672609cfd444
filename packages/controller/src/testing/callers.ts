// SPDX-License-Identifier: Apache-2.0
import type { Role } from '@busbar/pki/role';
import type { Caller } from '../api/call.ts';
import type { Admission } from '../certificate/admission.ts';

/** A caller as the transports make them, without a certificate having been made. */
export function testCaller(role: Role = 'admin', name = 'client/test'): Caller {
  const uris = [`spiffe://test/${name}`, `spiffe://test/role/${role}`];
  return { name, role, certificate: { serial: '4a', uris, ips: [], notAfter: new Date('2100-01-01T00:00:00Z') } };
}

/** For tests of what comes after it. */
export const ADMIT_ALL: Admission = {
  check() {},
  checkAgent() {},
  onRevoked: () => ({ [Symbol.dispose]() {} }),
};
