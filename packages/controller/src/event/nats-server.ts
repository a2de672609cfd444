// SPDX-License-Identifier: Apache-2.0
// How a NATS server of the cluster is configured: here, because who may say and hear what is a matter of Busbar's own
// identities, and because the conformance suite then tries what is deployed. Pure.
import { identityUri } from '@busbar/pki/identity';
import { ROLES, roleUri } from '@busbar/pki/role';
import { allSubjects } from './bus.ts';

export interface NatsServer {
  readonly cluster: string;
  readonly host: string;
  /** address:port for clients. */
  readonly listen: string;
  /** Paths. The certificate carries the host's name and no identity. */
  readonly tls: { readonly ca: string; readonly certificate: string; readonly key: string };
  /** Hosts of the controllers: only they may publish. */
  readonly controllers: readonly string[];
  readonly routes?: {
    /** address:port for the other servers. */
    readonly listen: string;
    /** name:port of the others. By name: a route is taken from whoever has a certificate for one of these names. */
    readonly peers: readonly string[];
  };
}

/**
 * nats-server reads JSON. A client is who a URI of its certificate says (verify_and_map): controllers publish and hear
 * nothing, every role hears and publishes nothing, anybody else is refused. Subscribers get no inboxes, so that none can pose as a
 * service.
 */
export function natsServerConfig(server: NatsServer): string {
  const { cluster } = server;
  const tls = {
    ca_file: server.tls.ca,
    cert_file: server.tls.certificate,
    key_file: server.tls.key,
    // The default of 2 s (0.5 s in old versions) is short for hosts under load.
    timeout: 5,
  };
  const all = allSubjects(cluster);
  const publisher = { publish: { allow: [all] }, subscribe: { deny: ['>'] } };
  const subscriber = { publish: { deny: ['>'] }, subscribe: { allow: [all] } };
  const config = {
    server_name: server.host,
    listen: server.listen,
    tls: { ...tls, verify_and_map: true },
    authorization: {
      users: [
        ...server.controllers.map((host) => ({
          user: identityUri({ kind: 'controller', cluster, host }),
          permissions: publisher,
        })),
        ...ROLES.map((role) => ({ user: roleUri(cluster, role), permissions: subscriber })),
      ],
    },
    // An event is 1 KB; a subscriber that reads too slowly is cut off before it costs memory.
    max_payload: 65_536,
    max_pending: 4_194_304,
    max_connections: 500,
    max_subscriptions: 100,
    ...(server.routes === undefined
      ? {}
      : {
          cluster: {
            name: cluster,
            listen: server.routes.listen,
            tls: { ...tls, verify_cert_and_check_known_urls: true },
            routes: server.routes.peers.map((peer) => `nats-route://${peer}`),
          },
        }),
  };
  return `${JSON.stringify(config, null, 2)}\n`;
}
