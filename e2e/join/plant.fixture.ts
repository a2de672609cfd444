// SPDX-License-Identifier: Apache-2.0
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { run } from '@busbar/cli/run';
import { Collector } from '@busbar/cli/testing/cli';
import { callerOf, presented } from '@busbar/controller/api/authenticate';
import { toErrorInfo } from '@busbar/controller/api/error-info';
import { type GrpcServer, grpcServer } from '@busbar/controller/api/grpc-server';
import { pipeline } from '@busbar/controller/api/pipeline';
import { statusOf } from '@busbar/controller/api/status';
import { takeOverAuthorities } from '@busbar/controller/certificate/take-over';
import { Rig } from '@busbar/controller/testing/rig';
import { silentLogger } from '@busbar/core/log';
import { parseSealedAuthorities } from '@busbar/pki/sealed-authorities';
import { fixedTls } from '@busbar/pki/tls/source';
import { JoinRequest, JoinResponse } from '@busbar/proto/gen/busbar/v1/join';
import { Status } from 'nice-grpc-common';

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
  const tls = { ca: file('ca.crt'), certificate: file('controller.crt'), key: file('controller.key') };
  const server: GrpcServer = grpcServer({
    cluster: 'test',
    services: rig.services,
    sessions: rig.api.sessions,
    admission: rig.admission,
    tls: fixedTls(tls),
    logger: silentLogger,
  });
  const port = await server.listen('127.0.0.1:0');
  const edge = joinEdge(rig, tls);
  edge.listen(0, '127.0.0.1');
  await once(edge, 'listening');
  const ticking = setInterval(() => void clock.advance(5), 1);
  return {
    rig,
    grpc: `127.0.0.1:${port}`,
    edge: `127.0.0.1:${(edge.address() as AddressInfo).port}`,
    stop() {
      clearInterval(ticking);
      server.close();
      edge.close();
      edge.closeAllConnections();
      rig.stop();
    },
  };
}

/** What the JSON edge is to a host that joins: this one method, through the same pipeline. */
function joinEdge(rig: Rig, tls: { ca: Buffer; certificate: Buffer; key: Buffer }): Server {
  const bound = rig.services.find(({ definition }) => definition.name === 'JoinService');
  const rpc = bound?.definition.methods.join;
  const method = bound?.methods.join;
  if (bound === undefined || rpc === undefined || method === undefined) throw new Error('no JoinService');
  const gate = pipeline(silentLogger, rig.admission).unary(bound.definition.fullName, rpc, method);
  const { ca, certificate: cert, key } = tls;
  return createServer({ ca, cert, key, requestCert: true, rejectUnauthorized: false }, (request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const peer = presented((request.socket as TLSSocket).getPeerCertificate());
      const input = JoinRequest.fromJSON(JSON.parse(Buffer.concat(chunks).toString()));
      gate(input, callerOf(peer, 'test'), new AbortController().signal).then(
        (answer) => response.end(JSON.stringify(JoinResponse.toJSON(answer as JoinResponse))),
        (error: unknown) => {
          response.statusCode = 400;
          response.end(JSON.stringify({ code: Status[statusOf(error).code], ...toErrorInfo(error) }));
        },
      );
    });
  });
}
