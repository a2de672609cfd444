// SPDX-License-Identifier: Apache-2.0
import type { ClusterView } from '../view/view.ts';

/**
 * The hosts that are reached over a bridge themselves: it has their management or storage address, or an interface on top
 * of it has (br0.20). A guest plugged in there is on the hosts' own segment.
 *
 * As the agents see it. An Open vSwitch port of another name that carries an address of the host does not show.
 */
export function hostsOnBridge(view: ClusterView, bridge: string): readonly string[] {
  return view.tables['host-status']
    .sorted()
    .filter(({ record: { inventory } }) => {
      const own = [inventory?.managementAddress, inventory?.storageAddress].filter((address) => address);
      return inventory?.interfaces.some(
        ({ name, addresses }) =>
          (name === bridge || name.startsWith(`${bridge}.`)) &&
          addresses.some((address) => own.includes(address.split('/')[0])),
      );
    })
    .map(({ id }) => id);
}
