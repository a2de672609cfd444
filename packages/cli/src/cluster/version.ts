// SPDX-License-Identifier: Apache-2.0
import { ClusterServiceDefinition } from '@busbar/proto/gen/busbar/v1/cluster';
import type { Command } from 'commander';
import packageJson from '../../package.json' with { type: 'json' };
import { examples } from '../cli/options.ts';
import type { Session } from '../cli/session.ts';
import { print } from '../output/print.ts';

export function define(noun: Command, session: Session): void {
  examples(noun.option('--client', 'only this command; ask no controller'), [
    'busbar version',
    'busbar version --client -o json',
  ]);
  noun.action(async (options: { client?: boolean }) => {
    const client = packageJson.version;
    const controller = options.client === true ? undefined : await controllerVersion(session);
    await print(session, {
      json: () => ({ client, ...(controller === undefined ? {} : { controller }) }),
      table: () =>
        `busbar ${client}\ncontroller ${controller ?? (options.client === true ? 'not asked' : 'does not answer')}\n`,
    });
  });
}

/** Knowing one's own version must work also without a cluster. */
async function controllerVersion(session: Session): Promise<string | undefined> {
  try {
    const api = await session.api();
    const { cluster } = await api.call(ClusterServiceDefinition, (client, options) => client.getCluster({}, options));
    return cluster?.version;
  } catch {
    session.signal.throwIfAborted();
    return undefined;
  }
}
