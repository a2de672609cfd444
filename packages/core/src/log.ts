// SPDX-License-Identifier: Apache-2.0
/** What the daemons log through; pino satisfies it. Field names are stable: operators filter by them. */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {} };
