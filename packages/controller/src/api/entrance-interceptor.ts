// SPDX-License-Identifier: Apache-2.0
import { Metadata, ServerInterceptingCall, type ServerInterceptor } from '@grpc/grpc-js';
import { limitMessages, showPeer } from './base-call.ts';
import type { Intake } from './intake.ts';
import { type RequestBounds, Unreadable } from './request-bounds.ts';
import type { Screen } from './screen.ts';
import { ERROR_TRAILER, statusOf } from './status.ts';

/**
 * A call with one answer. grpc-js ends such a call only when the answer has been written to the socket, a turn of the event
 * loop later, and the client waits for the end. Here the end is right behind the answer.
 */
class AnsweringCall extends ServerInterceptingCall {
  override sendMessage(message: unknown, written: () => void): void {
    super.sendMessage(message, () => {});
    written();
  }
}

/** What is known of a method before a request of it is read. */
export interface Entrance {
  /** Throws the refusal of a caller, known by the text of its certificate and where it calls from, who may not make this call. */
  readonly admit: (peer: string, address: string) => void;
  readonly bounds: RequestBounds;
}

/**
 * What every call passes before anything of it is read, in one interceptor: each costs all messages of all streams.
 *
 * Shows who is calling (base-call.ts), asks whether that may be (screen.ts) and whether this method is for it, sets how large its
 * messages may be, and lets the first message in through the intake. grpc-js reads nothing before it has passed the metadata
 * on, so a call that waits or is refused costs its headers alone. What reads a message (request-bounds.ts) cannot refuse it: it
 * hands the refusal on, and here it is told.
 */
export function entranceInterceptor(
  intake: Intake,
  screen: Screen,
  entrances: ReadonlyMap<string, Entrance>,
): ServerInterceptor {
  return (method, call) => {
    const entrance = entrances.get(method.path);
    const refuse = (error: unknown) => {
      const status = statusOf(error);
      const trailer = new Metadata();
      trailer.set(ERROR_TRAILER, Buffer.from(status.info));
      call.sendStatus({ code: status.code as number, details: status.message, metadata: trailer });
    };
    let leave = () => {};
    let left = false;
    const done = () => {
      left = true;
      leave();
    };
    return new (method.responseStream ? ServerInterceptingCall : AnsweringCall)(call, {
      start(next) {
        next({
          onReceiveMetadata(metadata, pass) {
            const peer = showPeer(metadata, call);
            const refused = screen(peer, method.path, call.getHost());
            if (refused !== null) {
              refuse(refused);
              return;
            }
            if (entrance !== undefined) {
              limitMessages(call, entrance.bounds.limits.wireBytesMax);
              try {
                entrance.admit(peer, call.getPeer());
              } catch (error) {
                refuse(error);
                return;
              }
            }
            leave = intake.enter(call.getConnectionInfo().remoteAddress ?? '', () => pass(metadata), refuse);
            // The message may have been there already.
            if (left) leave();
          },
          onReceiveMessage(message, pass) {
            done();
            if (message instanceof Unreadable) refuse(message.error);
            else pass(message);
          },
          onReceiveHalfClose(pass) {
            done();
            pass();
          },
          onCancel() {
            done();
          },
        });
      },
      sendStatus(status, next) {
        done();
        next(status);
      },
    });
  };
}
