// SPDX-License-Identifier: Apache-2.0
// A controller's main thread with the thread that answers heartbeats beside it, as a process of its own: the test makes the
// main thread stand still, revokes certificates, or takes the heartbeat thread away.
import { threadGranting } from '@busbar/controller/heartbeats/thread-granting';
import { welcomeOf } from '@busbar/controller/session/registry';
import { systemClock } from '@busbar/core/clock/clock';
import { silentLogger } from '@busbar/core/log';
import { fixedTls } from '@busbar/pki/tls/source';

export interface Begin {
  readonly kind: 'begin';
  readonly cluster: string;
  readonly controller: string;
  readonly address: string;
  /** PEM, as text. */
  readonly tls: { readonly ca: string; readonly certificate: string; readonly key: string };
}

export type Order =
  | Begin
  /** No message is read, no timer runs, until it is over. */
  | { readonly kind: 'stand-still'; readonly forMs: number }
  | { readonly kind: 'revoke'; readonly serial: string }
  | { readonly kind: 'seen'; readonly host: string };

export type Word =
  | { readonly kind: 'listening'; readonly port: number }
  | { readonly kind: 'moves-again' }
  | { readonly kind: 'died'; readonly why: string }
  | { readonly kind: 'seen'; readonly silentMs: number; readonly bootId: string; readonly address: string };

let granting: ReturnType<typeof threadGranting> | undefined;
const say = (word: Word) => process.send?.(word);

process.on('message', (order: Order) => {
  switch (order.kind) {
    case 'begin':
      granting = threadGranting({
        cluster: order.cluster,
        welcome: welcomeOf({ controller: order.controller, controllers: [order.controller] }),
        address: order.address,
        tls: fixedTls({
          ca: Buffer.from(order.tls.ca),
          certificate: Buffer.from(order.tls.certificate),
          key: Buffer.from(order.tls.key),
        }),
        clock: systemClock,
        logger: silentLogger,
        onDeath: (why) => say({ kind: 'died', why: why.message }),
      });
      granting.listening.then(
        (port) => say({ kind: 'listening', port }),
        () => {},
      );
      break;
    case 'stand-still': {
      const untilMs = systemClock.nowMs() + order.forMs;
      while (systemClock.nowMs() < untilMs);
      say({ kind: 'moves-again' });
      break;
    }
    case 'revoke':
      granting?.tell({ revoked: [order.serial], replaced: [] });
      break;
    case 'seen': {
      const seen = granting?.seen(order.host);
      const heardMs = seen?.heardMs ?? Number.NEGATIVE_INFINITY;
      const { bootId = '', address = '' } = seen?.admitted ?? {};
      say({ kind: 'seen', silentMs: Math.min(1e9, systemClock.nowMs() - heardMs), bootId, address });
      break;
    }
  }
});
process.once('disconnect', () => process.exit(0));
