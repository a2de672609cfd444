// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { mountedControllers, unfit } from './machine.ts';

const version1 = ['cpu', 'freezer', 'memory']
  .map((name) => `cgroup /sys/fs/cgroup/${name} cgroup rw,${name} 0 0\n`)
  .join('');
const privileged = 'Name:\tnode\nCapEff:\t000001ffffffffff\n';
const fit = { uid: 0, status: privileged, mounts: version1 };

describe('what a lab asks of the machine', () => {
  it('is root, its capabilities and cgroup version 1', () => {
    expect(unfit(fit)).toBeUndefined();
    expect(mountedControllers(version1)).toEqual(['cpu', 'memory', 'freezer']);
  });

  it.each([
    ['no root', { ...fit, uid: 1000 }, /needs root.*\n.*sudo/],
    [
      'root of a container',
      { ...fit, status: 'CapEff:\t00000000a80425fb\n' },
      /CAP_NET_ADMIN and CAP_SYS_ADMIN.*\n.*--privileged/,
    ],
    [
      'version 2 alone',
      { ...fit, mounts: 'cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n' },
      /version 1.*cpu and freezer are.*\n.*systemd.unified_cgroup_hierarchy=0/,
    ],
    [
      'one controller less',
      { ...fit, mounts: version1.replaceAll('freezer', 'pids') },
      /freezer is not mounted.*\n.*mount -t cgroup -o NAME/,
    ],
  ])('%s: is said, with what to do', (_, machine, words) => {
    expect(unfit(machine)).toMatch(words);
  });
});
