// SPDX-License-Identifier: Apache-2.0
import { Metadata, ServerInterceptingCall, type ServerInterceptor } from '@grpc/grpc-js';
import type { Intake } from './intake.ts';
import { ERROR_TRAILER, statusOf } from './status.ts';

/**
 * Lets the first message of a call in through the intake. grpc-js reads nothing before it has passed the metadata on, so
 * a call that waits costs its headers alone.
 */
export function intakeInterceptor(intake: Intake): ServerInterceptor {
  return (_method, call) => {
    let leave = () => {};
    let left = false;
    const done = () => {
      left = true;
      leave();
    };
    return new ServerInterceptingCall(call, {
      start(next) {
        next({
          onReceiveMetadata(metadata, pass) {
            leave = intake.enter(
              call.getConnectionInfo().remoteAddress ?? '',
              () => pass(metadata),
              (error) => {
                const status = statusOf(error);
                const trailer = new Metadata();
                trailer.set(ERROR_TRAILER, Buffer.from(status.info));
                call.sendStatus({ code: status.code as number, details: status.message, metadata: trailer });
              },
            );
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
