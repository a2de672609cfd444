// SPDX-License-Identifier: Apache-2.0
// Text for people. Pure.
import type { LabStatus } from './status.ts';

export function renderTable(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 0, cell.length);
  }
  return rows
    .map(
      (row) =>
        `${row
          .map((cell, column) => cell.padEnd(widths[column] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('');
}

export function renderStatus(status: LabStatus): string {
  const hosts = status.hosts.map((host) => {
    const down = Object.entries(host.services).flatMap(([name, service]) => (service.up ? [] : [name]));
    const total = Object.keys(host.services).length;
    const services =
      host.power === 'off'
        ? '-'
        : `${total - down.length}/${total}${down.length === 0 ? '' : ` (down: ${down.join(' ')})`}`;
    return [
      host.name,
      host.role,
      host.management,
      host.storage,
      host.power,
      host.partitioned.join(',') || '-',
      services,
      host.bootId ?? '-',
    ];
  });
  const { etcd, ceph } = status;
  const lines = [`etcd: ${etcd.healthy.length} of ${etcd.members} members healthy`];
  if (ceph !== undefined) {
    lines.push(
      `ceph: ${ceph.health}, ${ceph.osdsUp} of ${ceph.osds} OSDs up, monitors in quorum: ${ceph.monsInQuorum.join(' ') || 'none'}`,
    );
    lines.push(...ceph.checks.map((check) => `      ${check}`));
  }
  return `${renderTable([['HOST', 'ROLE', 'MANAGEMENT', 'STORAGE', 'POWER', 'CUT OFF', 'SERVICES', 'BOOT ID'], ...hosts])}${lines.join('\n')}\n`;
}

export function renderLabs(
  labs: readonly { name: string; index: number; installed: boolean; hosts: number; witnesses: number; ceph: boolean }[],
): string {
  const rows = labs.map((lab) => [
    lab.name,
    lab.installed ? 'installed' : 'incomplete',
    String(lab.hosts),
    String(lab.witnesses),
    lab.ceph ? 'ceph' : 'directory',
    `10.77.${2 * lab.index}.0/24`,
    `10.78.${lab.index}.0/24`,
  ]);
  return renderTable([['LAB', 'STATE', 'HOSTS', 'WITNESSES', 'DISKS', 'MANAGEMENT', 'VM NETWORK'], ...rows]);
}
