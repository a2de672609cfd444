// SPDX-License-Identifier: Apache-2.0
import { type Clock, systemClock } from '@busbar/core/clock/clock';
import { type Logger, silentLogger } from '@busbar/core/log';
import type { Metrics } from '@busbar/core/metrics';
import { type Random, systemRandom } from '@busbar/core/random';
import { whyNotConfined } from '@busbar/native/confined';
import { StorageConfig } from './config.ts';
import { dirDriver } from './dir/driver.ts';
import type { StorageDriver } from './driver.ts';
import { rbdDriver } from './rbd/driver.ts';
import { newSimPool, type SimPool, simDriver } from './sim/driver.ts';

export interface StorageDeps {
  readonly clock?: Clock;
  readonly random?: Random;
  readonly logger?: Logger;
  readonly metrics?: Metrics | undefined;
  /** For tests: the driver `dir` takes a directory as it is, however it is mounted. */
  readonly anyMount?: boolean;
  /** The pool that simulated hosts share; without it the driver `sim` gets one of its own. */
  readonly simPool?: SimPool;
}

/** Connects with the first call: a cluster that is down does not keep the controller from starting. */
export function openStorage(config: unknown, deps: StorageDeps = {}): StorageDriver {
  const checked = StorageConfig.parse(config);
  const clock = deps.clock ?? systemClock;
  switch (checked.driver) {
    case 'rbd':
      return rbdDriver(checked, {
        clock,
        logger: deps.logger ?? silentLogger,
        random: deps.random ?? systemRandom,
        metrics: deps.metrics,
      });
    case 'dir':
      return dirDriver(checked, { clock, whyUnsafe: mountCheck(checked.path, deps.anyMount === true) });
    case 'sim': {
      const pool =
        deps.simPool ?? newSimPool(checked.totalBytes === undefined ? {} : { totalBytes: checked.totalBytes });
      return simDriver(pool, { clock, random: deps.random ?? systemRandom });
    }
  }
}

function mountCheck(path: string, anyMount: boolean): () => Promise<string> {
  return async () => {
    const why = await whyNotConfined(path);
    return anyMount ? '' : why;
  };
}
