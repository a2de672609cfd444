// SPDX-License-Identifier: Apache-2.0
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { run } from '@busbar/cli/run';
import { Collector } from '@busbar/cli/testing/cli';
import { grpcServer } from '@busbar/controller/api/grpc-server';
import { takeOverAuthorities } from '@busbar/controller/certificate/take-over';
import { edgeServer } from '@busbar/controller/edge/server';
import { Rig } from '@busbar/controller/testing/rig';
import { systemClock } from '@busbar/core/clock/clock';
import { silentLogger } from '@busbar/core/log';
import { parseSealedAuthorities } from '@busbar/pki/sealed-authorities';
import { fixedTls } from '@busbar/pki/tls/source';

export interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command line of the real CLI in this process, as if it were on a machine whose home is `home`. */
export async function cli(home: string, args: readonly string[], stdin = ''): Promise<Ended> {
  const [stdout, stderr] = [new Collector(), new Collector()];
  const input = new PassThrough();
  input.end(stdin);
  const env = { BUSBAR_CONFIG: join(home, 'config.yaml'), XDG_CACHE_HOME: join(home, 'cache') };
  const now = () => new Date();
  const io = { stdin: input, stdout, stderr, env, directory: home, home, now, onInterrupt: () => () => {} };
  const code = await run(args, io);
  return { code, stdout: stdout.text, stderr: stderr.text };
}

/** A controller with the files that `busbar cluster init` wrote, its store in memory, behind both of its listeners. */
export interface Plant {
  readonly rig: Rig;
  readonly grpc: string;
  readonly edge: string;
  stop(): void;
}

export async function startPlant(directory: string): Promise<Plant> {
  const file = (name: string) => readFileSync(join(directory, 'pki', name));
  const rig = new Rig(1, new Date(), file('seal.key'));
  rig.usesCrypto = true;
  await rig.start();
  const { clock } = rig;
  const { store } = rig.api;
  const sealed = parseSealedAuthorities(file('authorities.sealed.json').toString(), 'authorities.sealed.json');
  const deps = { store, clock, logger: silentLogger };
  await rig.run(takeOverAuthorities(deps, sealed, new AbortController().signal));
  const tls = fixedTls({ ca: file('ca.crt'), certificate: file('controller.crt'), key: file('controller.key') });
  const transport = {
    cluster: 'test',
    services: rig.services,
    trail: rig.trail,
    admission: rig.admission,
    tls,
    clock: systemClock,
    logger: silentLogger,
  };
  const server = grpcServer({ ...transport, sessions: rig.api.sessions });
  const edge = edgeServer(transport);
  const [port, edgePort] = [await server.listen('127.0.0.1:0'), await edge.listen('127.0.0.1:0')];
  const ticking = setInterval(() => void clock.advance(5), 1);
  return {
    rig,
    grpc: `127.0.0.1:${port}`,
    edge: `127.0.0.1:${edgePort}`,
    stop() {
      clearInterval(ticking);
      server.close();
      edge.close();
      rig.stop();
    },
  };
}
