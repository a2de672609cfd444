// SPDX-License-Identifier: Apache-2.0
import { randomUUID } from 'node:crypto';
import { checkServerIdentity, type PeerCertificate } from 'node:tls';
import { assert } from '@busbar/core/assert';
import { BusbarError } from '@busbar/core/errors';
import type { TlsText } from '@busbar/pki/tls/material';
import {
  type AgentServiceClient,
  AgentServiceDefinition,
  type AttachRequest,
  type AttachResponse,
  type SessionRequest,
  type SessionResponse,
} from '@busbar/proto/gen/busbar/agent/v1/agent';
import { type CertificatePurpose, CertificateServiceDefinition } from '@busbar/proto/gen/busbar/v1/certificate';
import {
  type Channel,
  ChannelCredentials,
  type ChannelOptions,
  ClientError,
  createChannel,
  createClient,
  Status,
} from 'nice-grpc';
import type { ControllerDialer } from './link.ts';

export interface GrpcDialerOptions {
  readonly cluster: string;
  readonly controllers: readonly { readonly host: string; readonly address: string }[];
  /** Asked for every connection, so that a renewed certificate is used from the next one on. */
  loadTls(): TlsText;
}

const CHANNEL_OPTIONS: ChannelOptions = {
  // A peer that is gone without a word is noticed after 15 s at most, also while nothing is sent (a silent console).
  'grpc.keepalive_time_ms': 10_000,
  'grpc.keepalive_timeout_ms': 5000,
  'grpc.keepalive_permit_without_calls': 1,
  // One TCP connection per stream. Shared ones (grpc-js shares globally by default) would put a fresh session on the
  // very connection that is suspect, and a chatty console before the heartbeats.
  'grpc.use_local_subchannel_pool': 1,
  // We dial again ourselves; waiting inside the library would only hide how long ago the last attempt was.
  'grpc.enable_retries': 0,
  'grpc.service_config_disable_resolution': 1,
  // Controllers are on the management network: a proxy from the environment is never right.
  'grpc.enable_http_proxy': 0,
  // Desired states and reports are whole documents; 16 MiB is some thousand VMs.
  'grpc.max_receive_message_length': 16 * 1024 * 1024,
  'grpc.max_send_message_length': 16 * 1024 * 1024,
};

/** Signing takes milliseconds; a controller that hangs shall leave time for the others. */
const RENEWAL_DEADLINE_MS = 8_000;

/** Dials controllers over mutual TLS. The certificate has to be a controller's and of its host, whatever address it is dialled at. */
export class GrpcDialer implements ControllerDialer {
  readonly #options: GrpcDialerOptions;
  readonly #channels = new Set<Channel>();

  constructor(options: GrpcDialerOptions) {
    this.#options = options;
  }

  session(
    address: string,
    outgoing: AsyncIterable<SessionRequest>,
    signal: AbortSignal,
  ): AsyncIterable<SessionResponse> {
    return this.#call(address, (client) => client.session(outgoing, { signal }));
  }

  attach(address: string, outgoing: AsyncIterable<AttachRequest>, signal: AbortSignal): AsyncIterable<AttachResponse> {
    return this.#call(address, (client) => client.attach(outgoing, { signal }));
  }

  /** A certificate for this host, by the one that the connection is made with; from the first controller that answers. */
  async renewCertificate(
    purpose: CertificatePurpose,
    csrPem: string,
    signal: AbortSignal,
    { validateOnly = false } = {},
  ): Promise<{ readonly certificatePem: string }> {
    // One id for all tries: a controller that answered too late has recorded what the next one then hands out.
    const requestId = randomUUID();
    let failure: unknown;
    for (const { address } of this.#options.controllers) {
      const channel = this.#open(address);
      const limit = AbortSignal.any([signal, AbortSignal.timeout(RENEWAL_DEADLINE_MS)]);
      try {
        const client = createClient(CertificateServiceDefinition, channel);
        const { certificate } = await client.renewCertificate(
          { purpose, csrPem, requestId, validateOnly },
          { signal: limit },
        );
        return { certificatePem: certificate?.certificatePem ?? '' };
      } catch (error) {
        signal.throwIfAborted();
        failure = error instanceof ClientError ? plain(error) : error;
      } finally {
        channel.close();
      }
    }
    throw failure;
  }

  close(): Promise<void> {
    for (const channel of this.#channels) channel.close();
    this.#channels.clear();
    return Promise.resolve();
  }

  async *#call<T>(address: string, call: (client: AgentServiceClient) => AsyncIterable<T>): AsyncGenerator<T, void> {
    const channel = this.#open(address);
    this.#channels.add(channel);
    try {
      yield* call(createClient(AgentServiceDefinition, channel));
    } catch (error) {
      throw error instanceof ClientError ? plain(error) : error;
    } finally {
      this.#channels.delete(channel);
      channel.close();
    }
  }

  #open(address: string): Channel {
    const controller = this.#options.controllers.find((candidate) => candidate.address === address);
    assert(controller !== undefined, `${address} is not the address of a configured controller`);
    const { ca, certificate, key } = this.#options.loadTls();
    const verify = { checkServerIdentity: controllerCheck(this.#options.cluster, controller.host) };
    return createChannel(address, ChannelCredentials.createSsl(ca, key, certificate, verify), {
      ...CHANNEL_OPTIONS,
      'grpc.ssl_target_name_override': controller.host,
      'grpc.default_authority': controller.host,
    });
  }
}

/**
 * Name and role: the agent of the same host has a certificate of the same CA for the same name, and must not be able to
 * pose as the controller, whose word starts and destroys VMs.
 */
export function controllerCheck(cluster: string, host: string) {
  const wanted = `URI:spiffe://${cluster}/controller/${host}`;
  return (name: string, certificate: PeerCertificate): Error | undefined => {
    const wrong = checkServerIdentity(name, certificate);
    if (wrong !== undefined) return wrong;
    const names = certificate.subjectaltname ?? '';
    // Node quotes an entry with a comma in it: one that tries to look like two is cut where its quotes are not closed.
    const entries = names.replace(/"(?:[^"\\]|\\.)*"/g, '""').split(', ');
    if (entries.includes(wanted)) return undefined;
    return new Error(`what answers there is certified, but not as controller ${host} of cluster ${cluster} (${names})`);
  };
}

/** The library's words around the one that matters: they go to the user with each report. */
const NOISE = /^No connection established\. Last error: (Error: )?|\. Resolution note: *$/g;

function plain(error: ClientError): BusbarError {
  const message = error.details.replace(NOISE, '') || Status[error.code];
  return new BusbarError({ kind: 'unavailable', reason: 'CONTROLLER_UNREACHABLE', message });
}
