// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import type { DomainNic } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { BridgeKind } from '@busbar/proto/gen/busbar/v1/host';
import { NicModel } from '@busbar/proto/gen/busbar/v1/vm';
import { childrenNamed, element, find, type XmlElement } from './xml.ts';

export function nicElement(nic: DomainNic): XmlElement {
  const openVswitch = nic.bridgeKind === BridgeKind.OPEN_VSWITCH;
  if ((nic.vlanTag > 0 || nic.trunkVlans.length > 0) && !openVswitch) {
    // libvirt tags on Linux bridges only from 11.0 on, and refuses in words that help nobody.
    throw new BusbarError({
      kind: 'invalid',
      reason: 'NIC_INVALID',
      message: `NIC ${nic.name} wants VLAN ${[nic.vlanTag, ...nic.trunkVlans].filter((tag) => tag > 0).join(', ')} on the Linux bridge ${nic.bridge}`,
      hint: 'use an Open vSwitch bridge, or a Linux bridge that is on the VLAN already',
    });
  }
  return element(
    'interface',
    { type: 'bridge' },
    nic.macAddress === '' ? null : element('mac', { address: nic.macAddress }),
    element('source', { bridge: nic.bridge }),
    openVswitch ? vlanElement(nic) : null,
    openVswitch ? element('virtualport', { type: 'openvswitch' }) : null,
    element('model', { type: nic.model === NicModel.E1000E ? 'e1000e' : 'virtio' }),
    element('link', { state: 'up' }),
    nic.bootOrder > 0 ? element('boot', { order: nic.bootOrder }) : null,
  );
}

/**
 * Of a switch port. Always said, because a port of Open vSwitch without a word about VLANs is a trunk of all of them: the
 * guest would choose its VLAN by writing a tag. Tag 0 makes an access port for frames without a tag.
 */
function vlanElement(nic: DomainNic): XmlElement {
  const isTrunk = nic.trunkVlans.length > 0;
  const tags = isTrunk ? nic.trunkVlans : [nic.vlanTag];
  return element('vlan', isTrunk ? { trunk: 'yes' } : {}, ...tags.map((id) => element('tag', { id })));
}

/**
 * The NICs of a running domain whose link is not as wanted, with the link changed. Everything else
 * stays as libvirt told it: an update that differs in anything else is refused.
 */
export function nicsToChange(domain: XmlElement, up: boolean): XmlElement[] {
  const devices = find(domain, 'devices');
  const nics = devices === undefined ? [] : childrenNamed(devices, 'interface');
  // No link element means up.
  const isUp = (nic: XmlElement) => find(nic, 'link')?.attributes.state !== 'down';
  return nics
    .filter((nic) => isUp(nic) !== up)
    .map((nic) => ({
      ...nic,
      children: [
        ...nic.children.filter((child) => typeof child === 'string' || child.name !== 'link'),
        element('link', { state: up ? 'up' : 'down' }),
      ],
    }));
}
