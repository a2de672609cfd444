// SPDX-License-Identifier: Apache-2.0
// A NATS server in a container, configured as in a plant, for the conformance suite of the event bus.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GenericContainer, getContainerRuntimeClient } from 'testcontainers';
import { natsServerConfig } from '../../event/nats-server.ts';
import { answers, freePorts, type NatsUnderTest, TEST_CLUSTER, type TestPki } from '../../event/test-server.ts';
import { waitUntil } from '../../store/examine.fixture.ts';
import { NATS_PROGRAM, natsImage } from './images.ts';
import { labels } from './labels.ts';

export async function natsContainer(pki: TestPki): Promise<NatsUnderTest> {
  const directory = await mkdtemp(join(tmpdir(), 'busbar-nats-'));
  const file = (name: string) => join(directory, name);
  const [port, route] = await freePorts(2);
  const address = `127.0.0.1:${port}`;
  const config = natsServerConfig({
    cluster: TEST_CLUSTER,
    host: 'host1',
    listen: address,
    tls: { ca: file('ca.crt'), certificate: file('server.crt'), key: file('server.key') },
    controllers: ['host1'],
    routes: { listen: `127.0.0.1:${route}`, peers: [] },
  });
  await writeFile(file('ca.crt'), pki.server.ca);
  await writeFile(file('server.crt'), pki.server.cert);
  await writeFile(file('server.key'), pki.server.key, { mode: 0o600 });
  await writeFile(file('nats.conf'), config);
  const started = await new GenericContainer(await natsImage())
    .withEntrypoint([NATS_PROGRAM])
    .withCommand(['--config', file('nats.conf')])
    .withNetworkMode('host')
    .withBindMounts([{ source: directory, target: directory, mode: 'ro' }])
    .withLabels(labels())
    .start();
  const container = (await getContainerRuntimeClient()).container.getById(started.getId());
  const ready = () => waitUntil(() => answers(address));
  await ready();
  return {
    address,
    freeze: async () => void (await container.pause()),
    thaw: async () => void (await container.unpause()),
    async kill() {
      const exited = container.wait();
      await container.kill({ signal: 'SIGKILL' });
      await exited;
    },
    async restart() {
      await container.start();
      await ready();
    },
    async stop() {
      await container.remove({ force: true, v: true });
      await rm(directory, { recursive: true, force: true });
    },
  };
}
