// SPDX-License-Identifier: Apache-2.0
import { BusbarError } from '@busbar/core/errors';
import type { SessionRequest, SessionResponse, Welcome } from '@busbar/proto/gen/busbar/agent/v1/agent';
import { type Boot, describeBoot, type Verdict } from '../lease/granter.ts';
import { checkHello } from '../session/bounds.ts';

/**
 * What is said on one connection that heartbeats come through: the first two words of a session (hello, welcome), then
 * heartbeats and their acknowledgements, and nothing else. Synchronous: the answer is there before the next byte is read.
 * Throws when the connection has to end.
 */
export class Conversation {
  readonly #host: string;
  readonly #address: string;
  readonly #welcome: Welcome;
  readonly #hear: (host: string, boot: Boot) => Verdict;
  #boot: Boot | null = null;

  constructor(deps: {
    /** Of the certificate. */
    readonly host: string;
    readonly address: string;
    readonly welcome: Welcome;
    readonly hear: (host: string, boot: Boot) => Verdict;
  }) {
    this.#host = deps.host;
    this.#address = deps.address;
    this.#welcome = deps.welcome;
    this.#hear = deps.hear;
  }

  /** The answer; null for none. */
  take({ message }: SessionRequest): SessionResponse | null {
    const boot = this.#boot;
    if (boot === null) {
      if (message?.$case !== 'hello' || message.value.host !== this.#host)
        throw refused('SESSION_HOST_MISMATCH', `a connection of host "${this.#host}" does not begin with its hello`);
      checkHello(message.value);
      this.#boot = { bootId: message.value.bootId, address: this.#address };
      this.#ask(this.#boot);
      return { message: { $case: 'welcome', value: this.#welcome } };
    }
    if (message?.$case !== 'heartbeat')
      throw refused('SESSION_MESSAGE_UNEXPECTED', `host "${this.#host}" says something else than a heartbeat`);
    if (this.#ask(boot) === 'waits') return null;
    return { message: { $case: 'heartbeatAck', value: { number: message.value.number } } };
  }

  #ask(boot: Boot): 'granted' | 'waits' {
    const verdict = this.#hear(this.#host, boot);
    if (verdict.kind !== 'refused') return verdict.kind;
    throw refused(
      'HOST_BOOT_NOT_ADMITTED',
      `${describeBoot(boot)} is not let in as host "${this.#host}": ${describeBoot(verdict.admitted)} was heard, and its lease may live`,
    );
  }
}

function refused(reason: string, message: string): BusbarError {
  return new BusbarError({ kind: 'forbidden', reason, message });
}
