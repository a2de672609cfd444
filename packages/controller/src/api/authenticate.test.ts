// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { agentHostOf, callerOf } from './authenticate.ts';

const ANNA = 'spiffe://lab/client/anna';

describe('the caller of a client certificate', () => {
  it.each(['viewer', 'operator', 'admin'] as const)('has the role %s that it carries', (role) => {
    expect(callerOf([ANNA, `spiffe://lab/role/${role}`], 'lab')).toEqual({ name: 'client/anna', role });
  });

  it.each([
    ['no role', [ANNA]],
    ['an unknown role', [ANNA, 'spiffe://lab/role/root']],
    ['two roles', [ANNA, 'spiffe://lab/role/viewer', 'spiffe://lab/role/admin']],
    ['two identities', [ANNA, 'spiffe://lab/client/bert', 'spiffe://lab/role/viewer']],
    ["another cluster's identity", ['spiffe://plant/client/anna', 'spiffe://lab/role/admin']],
    ["another cluster's role", [ANNA, 'spiffe://plant/role/admin']],
    ["a host's identity", ['spiffe://lab/host/host1', 'spiffe://lab/role/admin']],
    ['nothing', []],
  ])('with %s is nobody', (_what, uris) => expect(callerOf(uris, 'lab')).toBeNull());

  it('is told apart from an agent', () => {
    expect(agentHostOf(['spiffe://lab/host/host1'], 'lab')).toBe('host1');
    expect(agentHostOf(['spiffe://lab/host/host1', 'spiffe://lab/host/host2'], 'lab')).toBeNull();
    expect(agentHostOf(['spiffe://plant/host/host1'], 'lab')).toBeNull();
    expect(agentHostOf([ANNA, 'spiffe://lab/role/admin'], 'lab')).toBeNull();
  });
});
