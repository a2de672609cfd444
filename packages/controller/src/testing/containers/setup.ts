// SPDX-License-Identifier: Apache-2.0
// Before the first and after the last test of the vitest project "container".
import { findEngine } from './engine.ts';
import { OWNER, removeContainers } from './labels.ts';
import { ownMark } from './remains.ts';

export default async function setup(): Promise<() => Promise<void>> {
  const engine = await findEngine();
  const owner = ownMark();
  // The test workers inherit these.
  process.env.DOCKER_HOST = engine.address;
  process.env[OWNER] = owner;
  process.env.TESTCONTAINERS_RYUK_DISABLED = 'true';
  // The containers are on this machine's network. Else it would look for a bridge, where we are in a container ourselves.
  process.env.TESTCONTAINERS_HOST_OVERRIDE = '127.0.0.1';
  try {
    await removeContainers('');
  } catch (error) {
    await engine.stop();
    throw error;
  }
  console.info(`containers run on ${engine.what}`);
  return async () => {
    await removeContainers(owner).finally(() => engine.stop());
  };
}
