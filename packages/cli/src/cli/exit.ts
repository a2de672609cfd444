// SPDX-License-Identifier: Apache-2.0
/**
 * Exit codes are part of the CLI's interface: scripts branch on them, so a number never changes its meaning.
 * They are documented in `busbar --help`.
 */
export const EXIT = {
  ok: 0,
  /** The cluster refused, or the work failed. */
  failed: 1,
  /** The command line, or a file that it reads, is wrong; nothing was sent. */
  usage: 2,
  notFound: 3,
  /** It exists already, changed meanwhile, or its state forbids this now. */
  conflict: 4,
  /** No controller answers, the cluster has no quorum, or the time is over. */
  unavailable: 5,
  /** 128 + SIGINT, as shells do. */
  interrupted: 130,
} as const;
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

export interface FieldProblem {
  readonly field: string;
  readonly problem: string;
  readonly expected: string;
}

export interface CliErrorDetails {
  readonly exit: ExitCode;
  /** What did not work, in the user's words. */
  readonly what: string;
  /** Why, one entry per line. */
  readonly why: readonly string[];
  /** What to do about it; empty when there is nothing. */
  readonly hint: string;
  /** Stable word for programs. */
  readonly reason: string;
  readonly fields?: readonly FieldProblem[];
  readonly cause?: unknown;
}

/** The one error that reaches the user: what, why, what to do, and the exit code. */
export class CliError extends Error {
  override readonly name = 'CliError';
  readonly exit: ExitCode;
  readonly what: string;
  readonly why: readonly string[];
  readonly hint: string;
  readonly reason: string;
  readonly fields: readonly FieldProblem[];

  constructor(details: CliErrorDetails) {
    super(
      `${details.what}: ${details.why.join('; ')}`,
      details.cause === undefined ? undefined : { cause: details.cause },
    );
    this.exit = details.exit;
    this.what = details.what;
    this.why = details.why;
    this.hint = details.hint;
    this.reason = details.reason;
    this.fields = details.fields ?? [];
  }
}

export function usageError(what: string, why: string, hint: string): CliError {
  return new CliError({ exit: EXIT.usage, reason: 'USAGE', what, why: [why], hint });
}
