// SPDX-License-Identifier: Apache-2.0
import { inside } from './lab.ts';

/** All records of the store, each with the revision of its last change; not what only calls and their answers leave. */
export async function records(host: string): Promise<ReadonlyMap<string, string>> {
  const pki = '/etc/busbar/pki';
  const tls = ['--cacert', `${pki}/etcd-ca.crt`, '--cert', `${pki}/etcd-client.crt`, '--key', `${pki}/etcd-client.key`];
  const command = [
    'etcdctl',
    '--endpoints',
    'https://127.0.0.1:2379',
    ...tls,
    'get',
    '--prefix',
    'busbar/',
    '-w',
    'json',
  ];
  const { kvs } = JSON.parse(await inside(host, 'env', 'ETCDCTL_API=3', ...command)) as {
    kvs: { key: string; value?: string; mod_revision: number }[];
  };
  const text = (base64: string) => Buffer.from(base64, 'base64').toString();
  return new Map(
    kvs
      .map(({ key, value = '', mod_revision }): [string, string] => [text(key), `${mod_revision} ${text(value)}`])
      .filter(([key]) => !/^busbar\/(request|guard|audit|event)\//.test(key)),
  );
}
