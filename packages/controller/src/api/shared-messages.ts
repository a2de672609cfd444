// SPDX-License-Identifier: Apache-2.0
import type { ServiceDefinition } from './service.ts';

/**
 * A change goes to every watcher, and hundreds of them stand at the same place: its message is built once and encoded
 * once. The key says all that the message depends on.
 */
export interface SharedMessages<Message> {
  of(key: string, make: () => Message): Message;
}

/** What one round of changes makes; whoever is further behind builds its own again. */
const KEPT_MAX = 256;

export function sharedMessages<Message>(): SharedMessages<Message> {
  const made = new Map<string, Message>();
  return {
    of(key, make) {
      const known = made.get(key);
      if (known !== undefined) return known;
      if (made.size >= KEPT_MAX) made.clear();
      const message = make();
      made.set(key, message);
      return message;
    },
  };
}

/**
 * The same service for nice-grpc, whose streams encode a message that is sent to many once. nice-grpc would copy every
 * answer, to fill in what is missing (`fromPartial`): of ours nothing is, by their type (service.ts), and a copy is another message.
 */
export function encodingOnce<D extends ServiceDefinition>(definition: D): D {
  const methods = Object.entries(definition.methods).map(([key, rpc]) => {
    const encode = rpc.responseType.encode as Encode;
    const responseType = {
      ...rpc.responseType,
      encode: rpc.responseStream ? once(encode) : encode,
      fromPartial: undefined,
    };
    return [key, { ...rpc, responseType }];
  });
  return { ...definition, methods: Object.fromEntries(methods) as D['methods'] };
}

type Encode = (message: object) => { finish(): Uint8Array };

function once(encode: Encode): Encode {
  // As long as the message lives, which is as long as somebody still has to get it.
  const encoded = new WeakMap<object, Uint8Array>();
  return (message) => ({
    finish() {
      let bytes = encoded.get(message);
      if (bytes === undefined) {
        bytes = encode(message).finish();
        encoded.set(message, bytes);
      }
      return bytes;
    },
  });
}
