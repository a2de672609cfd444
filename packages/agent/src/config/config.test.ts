// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import { describe, expect, it } from 'vitest';
import { parseAgentFile } from './config.ts';

const GOOD = `
cluster: plant
host: host1
role: hypervisor
managementAddress: 10.77.0.11
storageAddress: 10.77.1.11
controllers:
  - {host: host1, address: "10.77.0.11:7443"}
  - {host: host2, address: "[fd00::2]:7443"}
tls: {ca: /etc/busbar/ca.pem, certificate: /etc/busbar/host.pem, key: /etc/busbar/host.key}
libvirt: {uri: "qemu:///system"}
storage: {driver: rbd, pool: vms, monitors: [10.77.1.11, "10.77.1.12:6789"], user: busbar, keyFile: /etc/busbar/rbd.key}
stateDir: /var/lib/busbar
runDir: /run/busbar
logDir: /var/log/busbar
`;

function refusal(text: string): BusbarError {
  try {
    parseAgentFile(text, 'agent.yaml');
  } catch (error) {
    if (error instanceof BusbarError) return error;
    throw error;
  }
  throw new Error('it was accepted');
}

describe('agent.yaml', () => {
  it('is accepted for a hypervisor with either storage, and for a witness', () => {
    expect(parseAgentFile(GOOD, 'agent.yaml')).toMatchObject({ role: 'hypervisor', storage: { pool: 'vms' } });
    const dir = GOOD.replace(/storage: .*/, 'storage: {driver: dir, path: /srv/vms}');
    expect(parseAgentFile(dir, 'agent.yaml')).toMatchObject({ storage: { driver: 'dir', path: '/srv/vms' } });
    const witness = GOOD.replace(/^(libvirt|storage): .*$/gm, '').replace('role: hypervisor', 'role: witness');
    expect(parseAgentFile(witness, 'agent.yaml').role).toBe('witness');
  });

  it.each([
    ['host: host1', 'host: Host_1', 'host', /is "Host_1"; right is: a lower-case DNS label/],
    [
      'managementAddress: 10.77.0.11',
      'managementAddress: 10.77.0',
      'managementAddress',
      /is "10.77.0"; right is: an IP address/,
    ],
    ['"10.77.0.11:7443"', '10.77.0.11', 'controllers[0].address', /HOST:PORT/],
    ['"[fd00::2]:7443"', '"10.77.0.11:7443"', 'controllers', /each controller address once/],
    ['host: host2', 'host: host1', 'controllers', /each controller host once/],
    ['keyFile: /etc/busbar/rbd.key', 'keyFile: rbd.key', 'storage.keyFile', /is "rbd.key"; right is: an absolute path/],
    ['monitors: [10.77.1.11, "10.77.1.12:6789"]', 'monitors: []', 'storage.monitors', /at least one/],
    ['driver: rbd', 'driver: zfs', 'storage.driver', /is "zfs"; right is: driver: rbd/],
    [
      'stateDir: /var/lib/busbar',
      'statedir: /var/lib/busbar',
      'stateDir',
      /stateDir is missing[\s\S]*statedir is not a known field/,
    ],
    ['logDir: /var', 'metrics: {listen: "7803"}\nlogDir: /var', 'metrics.listen', /is "7803"; right is: HOST:PORT/],
    ['logDir: /var', 'log: {level: loud}\nlogDir: /var', 'log.level', /is "loud"; right is: debug, info, warn, error/],
    ['role: hypervisor', 'role: boss', 'role', /is "boss"; right is: role: hypervisor or role: witness/],
    ['libvirt: {uri: "qemu:///system"}', '', 'libvirt', /libvirt is missing/],
    ['libvirt: {uri: "qemu:///system"}', 'libvirt: {uri: system}', 'libvirt.uri', /qemu:\/\/\/system/],
  ])('says what is wrong with %s → %s', (good, bad, field, message) => {
    const error = refusal(GOOD.replace(good, bad));
    expect(error.message).toMatch(message);
    expect(error.fields.map((violation) => violation.field)).toContain(field);
  });

  it('says so when it is empty or no YAML', () => {
    expect(refusal('').message).toMatch(/right is/);
    expect(refusal('a: [').message).toMatch(/is not YAML/);
  });
});
