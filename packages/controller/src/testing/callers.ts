// SPDX-License-Identifier: Apache-2.0
import type { Role } from '@busbar/pki/role';
import type { Caller } from '../api/call.ts';
import type { Admission } from '../certificate/admission.ts';

/** A caller as the transports make them, without a certificate having been made. */
export function testCaller(role: Role = 'admin', name = 'client/test'): Caller {
  const uris = [`spiffe://test/${name}`, `spiffe://test/role/${role}`];
  const [notBefore, notAfter] = [new Date('2000-01-01T00:00:00Z'), new Date('2100-01-01T00:00:00Z')];
  return { name, role, certificate: { serial: '4a', uris, ips: [], notBefore, notAfter } };
}

/** For tests of what comes after it. */
export const ADMIT_ALL: Admission = {
  check() {},
  checkAgent() {},
  onEnd: () => ({ [Symbol.dispose]() {} }),
  onRevoked: () => ({ [Symbol.dispose]() {} }),
};
