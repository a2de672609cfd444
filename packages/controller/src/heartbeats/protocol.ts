// SPDX-License-Identifier: Apache-2.0
// What the controller's main thread and the thread that answers heartbeats say to each other.
import type { Welcome } from '@busbar/proto/gen/busbar/agent/v1/agent';
import type { Boot, Verdict } from '../lease/granter.ts';

/** Structured clones: buffers arrive as plain bytes. */
export interface PlainTls {
  readonly ca: Uint8Array;
  readonly certificate: Uint8Array;
  readonly key: Uint8Array;
}

export interface ThreadData {
  readonly cluster: string;
  readonly welcome: Welcome;
  readonly address: string;
  readonly tls: PlainTls;
  /** Nanoseconds of the system's monotonic clock at which each host was last heard; the place of a host is told. */
  readonly heard: SharedArrayBuffer;
}

/** Hosts with a place of their own; there are never as many. */
export const PLACES = 4_096;

/** What has become of certificates. */
export interface CertificateNews {
  readonly revoked: readonly string[];
  readonly replaced: readonly { readonly serial: string; readonly at: Date }[];
}

export type ToThread =
  | { readonly kind: 'hear'; readonly id: number; readonly host: string; readonly boot: Boot }
  | { readonly kind: 'tls'; readonly tls: PlainTls }
  | ({ readonly kind: 'certificates' } & CertificateNews)
  | { readonly kind: 'close' };

export type FromThread =
  | { readonly kind: 'listening'; readonly port: number; readonly startedAtMs: number }
  | { readonly kind: 'verdict'; readonly id: number; readonly verdict: Verdict }
  | {
      readonly kind: 'host';
      readonly host: string;
      readonly place: number;
      readonly admitted: Boot | null;
      readonly beside: readonly Boot[];
    }
  | {
      readonly kind: 'log';
      readonly level: 'debug' | 'info' | 'warn' | 'error';
      readonly fields: object;
      readonly message: string;
    };

/** The only clock that threads share: `performance.now` begins anew in each. */
export function threadClockMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
