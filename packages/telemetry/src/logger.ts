// SPDX-License-Identifier: Apache-2.0
import { type DestinationStream, type Logger, pino, stdTimeFunctions } from 'pino';
import { errorRecord } from './error.ts';
import { redacted } from './redact.ts';

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export interface LoggerOptions {
  /** Whose lines these are: `service`, and `host` or `controller`. */
  readonly base: Readonly<Record<string, string>>;
  readonly level: LogLevel;
  /** Default: standard output, which journald keeps. */
  readonly destination?: DestinationStream;
}

/** The log of a daemon: one JSON object per line. */
export function createLogger(options: LoggerOptions): Logger {
  return pino(
    {
      base: options.base,
      level: options.level,
      timestamp: stdTimeFunctions.isoTime,
      formatters: { log: (fields) => redacted(fields, errorRecord) },
      // pino's own would make a string of the chain; by the time it comes, ours has made a record of it.
      serializers: { err: (value: unknown) => value },
    },
    options.destination ?? pino.destination({ dest: 1, sync: true }),
  );
}

/** An exception that nobody caught, or a promise that nobody awaited, is a bug: the service manager starts a fresh process. */
export function endOnBug(logger: Logger, exitCode: number): void {
  for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
    process.on(event, (error: unknown) => {
      const err = error instanceof Error ? error : new Error('thrown, but no error', { cause: error });
      logger.fatal({ event, err }, 'a bug: this process ends, to be started again');
      process.exit(exitCode);
    });
  }
}
