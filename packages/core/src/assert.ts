// SPDX-License-Identifier: Apache-2.0
/** Thrown when the program contradicts itself. Never caught on purpose: the service manager restarts the daemon. */
export class AssertionError extends Error {
  override readonly name = 'AssertionError';
}

export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionError(message);
}

/** Ends an exhaustive switch: the compiler refuses to build when a case is missing. */
export function unreachable(value: never): never {
  throw new AssertionError(`unreachable: ${JSON.stringify(value)}`);
}
