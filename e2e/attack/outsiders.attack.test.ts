// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { addressOf, clientOf, hostPair, post, VOTELESS, VOTERS } from './lab.ts';

/** Goal: the lab that is attacked is one where the right certificate opens the API and no other does. */
const LIST = '/busbar.v1.VmService/ListVms';

describe('the API of every voter', () => {
  it.each(VOTERS)('%s: answers a viewer, and neither strangers nor the agent of another host', async (host) => {
    const address = await addressOf(host);
    const [viewer, stranger, agent] = await Promise.all([
      post(address, LIST, '{}', { as: clientOf('viewer') }),
      post(address, LIST, '{}'),
      post(address, LIST, '{}', { as: hostPair(VOTELESS, 'agent') }),
    ]);
    expect(viewer?.status).toBe(200);
    expect(stranger?.status).toBe(401);
    expect([401, 403]).toContain(agent?.status);
  });
});
