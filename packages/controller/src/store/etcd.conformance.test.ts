// SPDX-License-Identifier: Apache-2.0
import { etcdConformance } from './etcd/conformance.ts';
import { EtcdTestCluster } from './etcd/test-cluster.ts';

etcdConformance('etcd', (size) => EtcdTestCluster.start(size));
