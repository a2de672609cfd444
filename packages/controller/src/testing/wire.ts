// SPDX-License-Identifier: Apache-2.0
import type { ClientRequest, IncomingMessage, OutgoingHttpHeaders } from 'node:http';
import { request as httpsRequest, type RequestOptions } from 'node:https';
import { systemClock } from '@busbar/core/clock/clock';
import { silentLogger } from '@busbar/core/log';
import { type Channel, ChannelCredentials, createChannel } from 'nice-grpc';
import type { ConnectionLimits } from '../api/connections.ts';
import { type GrpcServer, grpcServer, type TlsFiles } from '../api/grpc-server.ts';
import { type EdgeServer, edgeServer } from '../edge/server.ts';
import { type Authority, createAuthority, issue, type KeyPairPem, openAuthority } from '../pki/authority.ts';
import { type Identity, identityUri } from '../pki/identity.ts';
import { type Role, roleUri } from '../pki/role.ts';
import { Rig } from './rig.ts';

/** Both transports of the API on real sockets of this machine; behind them the rig, whose virtual time a timer moves on. */
export interface Wire {
  readonly rig: Rig;
  readonly grpc: GrpcServer;
  readonly edge: EdgeServer;
  readonly grpcPort: number;
  readonly edgePort: number;
  readonly ca: string;
  /** A certificate of the cluster's authority for a client of this role. */
  client(role: Role, name?: string): Promise<KeyPairPem>;
  channel(own: KeyPairPem | null): Channel;
  /** One request to the edge. */
  post(path: string, body: unknown, own: KeyPairPem | null, options?: RequestOptions): Promise<Answer>;
  stop(): Promise<void>;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly text: string;
  readonly json: Record<string, unknown>;
}

export const DAY_MS = 86_400_000;

export async function newAuthority(commonName: string, now = new Date(), validDays = 5): Promise<Authority> {
  return openAuthority(await createAuthority({ commonName, now, validDays }));
}

export function clientCertificate(
  by: Authority,
  role: Role,
  options: { readonly name?: string; readonly cluster?: string; readonly now?: Date; readonly validDays?: number } = {},
): Promise<KeyPairPem> {
  const { name = role, cluster = 'test', now = new Date(), validDays = 1 } = options;
  const identity: Identity = { kind: 'client', cluster, client: name };
  const uris = [identityUri(identity), roleUri(cluster, role)];
  return issue(by, { commonName: name, now, validDays, uris, usages: ['clientAuth'] });
}

export async function serverFiles(by: Authority): Promise<TlsFiles> {
  const own = await issue(by, {
    commonName: 'server',
    now: new Date(),
    validDays: 1,
    dns: ['localhost'],
    ips: ['127.0.0.1'],
    usages: ['serverAuth'],
  });
  return {
    ca: Buffer.from(by.certificatePem),
    certificate: Buffer.from(own.certificatePem),
    key: Buffer.from(own.keyPem),
  };
}

export async function startWire(authority: Authority, limits?: ConnectionLimits): Promise<Wire> {
  const rig = new Rig();
  await rig.start();
  const transport = {
    cluster: 'test',
    services: rig.services,
    tls: await serverFiles(authority),
    clock: systemClock,
    logger: silentLogger,
    ...(limits === undefined ? {} : { limits }),
  };
  const grpc = grpcServer({ ...transport, sessions: rig.api.sessions });
  const edge = edgeServer(transport);
  const grpcPort = await grpc.listen('127.0.0.1:0');
  const edgePort = await edge.listen('127.0.0.1:0');
  const ticking = setInterval(() => void rig.clock.advance(5), 1);
  const channels: Channel[] = [];
  const ca = authority.certificatePem;
  return {
    rig,
    grpc,
    edge,
    grpcPort,
    edgePort,
    ca,
    client: (role, name = role) => clientCertificate(authority, role, { name }),
    channel(own) {
      const pem = (text: string | undefined) => (text === undefined ? null : Buffer.from(text));
      const credentials = ChannelCredentials.createSsl(Buffer.from(ca), pem(own?.keyPem), pem(own?.certificatePem));
      const channel = createChannel(`localhost:${grpcPort}`, credentials, {
        'grpc.use_local_subchannel_pool': 1,
        'grpc.max_send_message_length': -1,
        'grpc.initial_reconnect_backoff_ms': 60_000,
        'grpc.enable_retries': 0,
      });
      channels.push(channel);
      return channel;
    },
    post: (path, body, own, options = {}) => answerOf(openPost(edgePort, ca, path, body, own, options)),
    async stop() {
      clearInterval(ticking);
      for (const channel of channels.splice(0)) channel.close();
      grpc.close();
      edge.close();
      rig.stop();
    },
  };
}

/** A request that is sent at once; a text body goes as it is, anything else as JSON. */
export function openPost(
  port: number,
  ca: string,
  path: string,
  body: unknown,
  own: KeyPairPem | null,
  options: RequestOptions = {},
): ClientRequest {
  const made = httpsRequest({
    host: '127.0.0.1',
    port,
    path,
    method: 'POST',
    agent: false,
    ca,
    ...(own === null ? {} : { cert: own.certificatePem, key: own.keyPem }),
    ...options,
    headers: { 'content-type': 'application/json', ...(options.headers as OutgoingHttpHeaders | undefined) },
  });
  made.end(body === undefined || typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body));
  return made;
}

export function answerOf(made: ClientRequest): Promise<Answer> {
  return new Promise((resolve, reject) => {
    made.once('error', reject);
    made.once('response', (response) => {
      // The rest of a large request that was refused: it is answered already.
      made.on('error', () => {});
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.once('error', reject);
      response.once('end', () => {
        const text = Buffer.concat(chunks).toString();
        const json = text.startsWith('{') ? (JSON.parse(text) as Record<string, unknown>) : {};
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text, json });
      });
    });
  });
}
