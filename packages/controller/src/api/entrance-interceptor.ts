// SPDX-License-Identifier: Apache-2.0
import { Metadata, ServerInterceptingCall, type ServerInterceptor } from '@grpc/grpc-js';
import type { Intake } from './intake.ts';
import { showPeer } from './peer-key.ts';
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

/**
 * What every call passes before anything of it is read, in one interceptor: each costs all messages of all streams.
 *
 * Shows who is calling (peer-key.ts), asks whether that may be (screen.ts), and lets the first message of a call in through the
 * intake. grpc-js reads nothing before it has passed the metadata on, so a call that waits or is refused costs its headers
 * alone.
 */
export function entranceInterceptor(intake: Intake, screen: Screen): ServerInterceptor {
  return (method, call) => {
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
            const refused = screen(showPeer(metadata, call), method.path, call.getHost());
            if (refused !== null) {
              refuse(refused);
              return;
            }
            leave = intake.enter(call.getConnectionInfo().remoteAddress ?? '', () => pass(metadata), refuse);
            // The message may have been there already.
            if (left) leave();
          },
          onReceiveMessage(message, pass) {
            done();
            pass(message);
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
