// SPDX-License-Identifier: Apache-2.0
// Members of an etcd test cluster as containers.
import { GenericContainer, getContainerRuntimeClient, type StartedTestContainer } from 'testcontainers';
import type { EtcdRuntime } from '../../store/etcd/test-process.ts';
import { ETCD_PROGRAM } from './images.ts';
import { labels } from './labels.ts';

/**
 * On the machine's own network: members have to know each other's addresses before they exist, and so it needs neither
 * bridge nor name service. The cluster's directory is mounted where it is, so that data and certificates have one path.
 */
export class EtcdContainers implements EtcdRuntime {
  readonly #directory: string;
  readonly #image: string;
  readonly #containers = new Map<string, StartedTestContainer>();

  constructor(directory: string, image: string) {
    this.#directory = directory;
    this.#image = image;
  }

  async start(name: string, args: readonly string[]): Promise<void> {
    if (this.#containers.has(name)) return (await this.#engine(name)).start();
    const container = await new GenericContainer(this.#image)
      .withEntrypoint([ETCD_PROGRAM])
      .withCommand([...args])
      .withNetworkMode('host')
      .withBindMounts([{ source: this.#directory, target: this.#directory, mode: 'rw' }])
      .withLabels(labels())
      .start();
    this.#containers.set(name, container);
  }

  async freeze(name: string): Promise<void> {
    await (await this.#engine(name)).pause();
  }

  async thaw(name: string): Promise<void> {
    const container = await this.#engine(name);
    if ((await container.inspect()).State.Paused) await container.unpause();
  }

  async kill(name: string): Promise<void> {
    const container = await this.#engine(name);
    if (!(await container.inspect()).State.Running) return;
    const exited = container.wait();
    await container.kill({ signal: 'SIGKILL' });
    await exited;
  }

  async stop(): Promise<void> {
    for (const name of this.#containers.keys()) await (await this.#engine(name)).remove({ force: true, v: true });
    this.#containers.clear();
  }

  async #engine(name: string) {
    const container = this.#containers.get(name);
    if (container === undefined) throw new Error(`there is no container of the etcd member ${name}`);
    return (await getContainerRuntimeClient()).container.getById(container.getId());
  }
}
