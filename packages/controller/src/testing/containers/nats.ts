// SPDX-License-Identifier: Apache-2.0
// A NATS server in a container, with TLS and client certificates of an authority of its own.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GenericContainer, getContainerRuntimeClient } from 'testcontainers';
import type { EtcdTls } from '../../store/etcd/member.ts';
import { makeCertificates } from '../../store/etcd/test-cluster.ts';
import { NATS_PROGRAM, natsImage } from './images.ts';
import { labels } from './labels.ts';

export interface NatsContainer extends AsyncDisposable {
  /** `host:port`. */
  readonly address: string;
  /** PEM: the authority, and a certificate of it that serves a client as well. */
  readonly tls: EtcdTls;
  freeze(): Promise<void>;
  thaw(): Promise<void>;
  /** As `kill -9`. */
  kill(): Promise<void>;
  /** Starts it again, at the same address. */
  restart(): Promise<void>;
}

export async function startNats(): Promise<NatsContainer> {
  const directory = await mkdtemp(join(tmpdir(), 'busbar-nats-'));
  const tls = await makeCertificates();
  const port = await freePort();
  const file = (name: string) => join(directory, name);
  await writeFile(file('ca.crt'), tls.ca);
  await writeFile(file('nats.crt'), tls.cert);
  await writeFile(file('nats.key'), tls.key, { mode: 0o600 });
  // `verify`: a client without a certificate of the authority is refused.
  const settings = `listen: "127.0.0.1:${port}"
tls {
  ca_file: "${file('ca.crt')}"
  cert_file: "${file('nats.crt')}"
  key_file: "${file('nats.key')}"
  verify: true
}
`;
  await writeFile(file('nats.conf'), settings);
  const started = await new GenericContainer(await natsImage())
    .withEntrypoint([NATS_PROGRAM])
    .withCommand(['--config', file('nats.conf')])
    .withNetworkMode('host')
    .withBindMounts([{ source: directory, target: directory, mode: 'ro' }])
    .withLabels(labels())
    .start();
  const container = (await getContainerRuntimeClient()).container.getById(started.getId());
  return {
    address: `127.0.0.1:${port}`,
    tls,
    freeze: async () => void (await container.pause()),
    thaw: async () => void (await container.unpause()),
    async kill() {
      const exited = container.wait();
      await container.kill({ signal: 'SIGKILL' });
      await exited;
    },
    restart: async () => void (await container.start()),
    async [Symbol.asyncDispose]() {
      await container.remove({ force: true, v: true });
      await rm(directory, { recursive: true, force: true });
    },
  };
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (typeof address !== 'object' || address === null) throw new Error('no free port');
  return address.port;
}
