// SPDX-License-Identifier: Apache-2.0
// Ceph's configuration and keys as text. Pure.
import { controllerMonCaps } from '@busbar/storage/rbd/access';
import type { HostPlan, LabPlan } from './plan.ts';
import { replicas } from './plan.ts';

export const POOL = 'busbar';
export const CONTROLLER_USER = 'busbar-controller';
/** Enough for a handful of guests; sparse, so that it costs only what is written. */
const OSD_BYTES = 16 * 1024 ** 3;
const CLIENT_KEYRINGS = '/etc/busbar/ceph';

/** A cephx secret: type 1 (AES), seconds and nanoseconds of creation, length, key; little endian, base64. */
export function cephxSecret(key: Uint8Array, createdSeconds: number): string {
  if (key.length !== 16) throw new RangeError(`a cephx key has 16 bytes, not ${key.length}`);
  const header = Buffer.alloc(12);
  header.writeUInt16LE(1, 0);
  header.writeUInt32LE(createdSeconds, 2);
  header.writeUInt32LE(0, 6);
  header.writeUInt16LE(key.length, 10);
  return Buffer.concat([header, key]).toString('base64');
}

export interface CephEntity {
  readonly name: string;
  readonly caps: Readonly<Record<string, string>>;
}

/** Every key of the cluster. The monitors read them when they are made, so that no command has to create any. */
export function cephEntities(plan: LabPlan): readonly CephEntity[] {
  // Hosts have no key: the controllers make one for each start of a VM.
  const controller = { mon: controllerMonCaps(POOL), osd: `profile rbd pool=${POOL}`, mgr: `profile rbd pool=${POOL}` };
  return [
    { name: 'mon.', caps: { mon: 'allow *' } },
    { name: 'client.admin', caps: { mon: 'allow *', osd: 'allow *', mgr: 'allow *', mds: 'allow *' } },
    { name: `client.${CONTROLLER_USER}`, caps: controller },
    ...plan.hosts
      .filter((host) => host.mgr)
      .map((host) => ({ name: `mgr.${host.name}`, caps: { mon: 'profile mgr', osd: 'allow *', mds: 'allow *' } })),
    ...plan.hosts.flatMap((host) =>
      host.osd === undefined
        ? []
        : [{ name: `osd.${host.osd}`, caps: { mon: 'profile osd', mgr: 'profile osd', osd: 'allow *' } }],
    ),
  ];
}

export function renderKeyring(
  entries: readonly {
    readonly name: string;
    readonly secret: string;
    readonly caps?: Readonly<Record<string, string>>;
  }[],
): string {
  return entries
    .map(({ name, secret, caps }) => {
      const lines = Object.entries(caps ?? {}).map(
        ([service, cap]) => `\tcaps ${service} = "${cap.replaceAll('"', '\\"')}"\n`,
      );
      return `[${name}]\n\tkey = ${secret}\n${lines.join('')}`;
    })
    .join('');
}

/** Both protocols of a monitor: librbd inside QEMU and the kernel of a guest agent may each know only one. */
export const monitorAddresses = (host: HostPlan): string => `[v2:${host.storage}:3300,v1:${host.storage}:6789]`;

/** One file for all hosts. */
export function renderCephConf(plan: LabPlan): string {
  const { size, minSize } = replicas(plan);
  const osds = plan.hosts.filter((host) => host.osd !== undefined);
  const sections: [string, Record<string, string | number | boolean>][] = [
    [
      'global',
      {
        fsid: plan.spec.fsid,
        mon_initial_members: plan.voters.map((host) => host.name).join(','),
        mon_host: plan.voters.map(monitorAddresses).join(','),
        public_network: plan.storageSubnet,
        cluster_network: plan.storageSubnet,
        auth_cluster_required: 'cephx',
        auth_service_required: 'cephx',
        auth_client_required: 'cephx',
        osd_pool_default_size: size,
        osd_pool_default_min_size: minSize,
        osd_pool_default_pg_num: 32,
        osd_pool_default_pgp_num: 32,
        // Splitting placement groups in the middle of a test would be a fault that nobody ordered.
        osd_pool_default_pg_autoscale_mode: 'off',
        // Standard error goes through svlogd, which caps it.
        log_to_file: false,
        log_to_stderr: true,
        err_to_stderr: true,
        mon_cluster_log_to_file: false,
      },
    ],
    [
      'mon',
      {
        auth_allow_insecure_global_id_reclaim: false,
        // With the stock 5 s and 5 s the monitors of a lab take 15 s to commit anything after one of them died, so that
        // fencing would have to wait for them; with these, 4 s. No election happened by itself under a load of 37.
        mon_lease: 0.8,
        mon_election_timeout: 1,
        mon_allow_pool_delete: true,
        // What follows would only warn of the lab being a lab: one pool copy on one host, a full laptop, two busy cores.
        mon_warn_on_pool_no_redundancy: false,
        mon_data_avail_warn: 3,
        mon_data_avail_crit: 1,
        mon_pg_warn_min_per_osd: 0,
        mon_warn_on_slow_ping_time: 60_000,
        // The default of two reporters never marks an OSD down when only one is left to report.
        mon_osd_min_down_reporters: Math.max(1, Math.min(2, osds.length - 1)),
      },
    ],
    [
      'mgr',
      {
        mgr_initial_modules: '',
        // Python modules that a lab has no use for make up most of the manager's start and memory.
        mgr_disabled_modules:
          'alerts cephadm cli_api dashboard diskprediction_local influx insights iostat k8sevents localpool mds_autoscaler mirroring nfs osd_perf_query osd_support prometheus restful rook selftest snap_schedule stats telegraf test_orchestrator zabbix',
        mgr_stats_period: 2,
      },
    ],
    [
      'osd',
      {
        bluestore_block_size: OSD_BYTES,
        bluestore_block_create: true,
        // A guess from what a file's disk looks like; without it every OSD is the same.
        osd_class_update_on_start: false,
        osd_memory_target: 939_524_096, // the least that Ceph accepts
        bluestore_cache_autotune: false,
        bluestore_cache_size: 64 * 1024 ** 2,
        // The stock write buffers are 256 MiB, four of them.
        bluestore_rocksdb_options:
          'compression=kNoCompression,max_write_buffer_number=2,min_write_buffer_number_to_merge=1,recycle_log_file_num=2,write_buffer_size=33554432,writable_file_max_buffer_size=0,compaction_readahead_size=2097152,max_background_compactions=1,max_total_wal_size=134217728',
        osd_op_num_shards: 2,
        osd_op_num_threads_per_shard: 1,
        osd_max_backfills: 2,
      },
    ],
    ...osds.map((host): [string, Record<string, string>] => [
      `osd.${host.osd}`,
      { crush_location: `root=default host=${host.name}` },
    ]),
    [`client.${CONTROLLER_USER}`, { keyring: `${CLIENT_KEYRINGS}/${CONTROLLER_USER}.keyring` }],
  ];
  return sections
    .map(
      ([name, settings]) =>
        `[${name}]\n${Object.entries(settings)
          .map(([key, value]) => `${key} = ${value}\n`)
          .join('')}`,
    )
    .join('\n');
}
