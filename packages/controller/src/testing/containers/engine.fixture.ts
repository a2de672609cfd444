// SPDX-License-Identifier: Apache-2.0
// A test process that starts an engine and a container, freezes the container, and is then killed by its parent.

import { startEngine } from './engine.ts';
import { etcdImages } from './images.ts';
import { EtcdContainers } from './members.ts';

process.once('message', (directory: string) => {
  void (async () => {
    delete process.env.BUSBAR_TEST_ETCD_IMAGES;
    process.env.DOCKER_HOST = (await startEngine()).address;
    const [image = ''] = await etcdImages();
    const members = new EtcdContainers(directory, image);
    await members.start('frozen', [`--data-dir=${directory}/data`]);
    await members.freeze('frozen');
    process.send?.(process.env.DOCKER_HOST);
  })();
});
