// SPDX-License-Identifier: Apache-2.0
import { etcdImages } from '../testing/containers/images.ts';
import { EtcdContainers } from '../testing/containers/members.ts';
import { etcdConformance } from './etcd/conformance.ts';
import { EtcdTestCluster } from './etcd/test-cluster.ts';

// The same suite as etcd.conformance.test.ts, on each image: what holds for Debian's etcd 3.4 holds for 3.5 and 3.6.
for (const image of await etcdImages()) {
  const runtime = (directory: string) => new EtcdContainers(directory, image);
  etcdConformance(`etcd in containers of ${image}`, (size) => EtcdTestCluster.start(size, { runtime }));
}
