// SPDX-License-Identifier: Apache-2.0
/** One run of the command: its settings, its clean-up, and the API connection made when first needed. */
import { randomUUID } from 'node:crypto';
import type { Api } from '../api/api.ts';
import { parseMs } from '../manifest/units.ts';
import { CliError, EXIT, type ExitCode, usageError } from './exit.ts';
import type { Io } from './io.ts';
import { isOutputFormat, OUTPUT_FORMATS, type OutputFormat } from './output.ts';

/** Options of the program, valid for every command. */
export interface GlobalOptions {
  readonly output?: string;
  readonly context?: string;
  readonly endpoint?: readonly string[];
  readonly timeout?: string;
}

/** Options of the commands that change something. */
export interface ChangeOptions {
  readonly dryRun?: boolean;
  readonly wait?: boolean;
  readonly requestId?: string;
  readonly ifRevision?: string;
}

export class Session {
  readonly io: Io;
  output: OutputFormat = 'table';
  /** What the user asked for, e.g. `start VM "web"`: the first line of an error says "cannot" and this. */
  doing = '';
  /** Set while the cluster works for this command: whoever stops waiting is told what goes on, and how to return to it. */
  goesOn: { readonly what: string; readonly hint: string } | undefined;
  /** Of what is waited for, as it was last seen: told when the time is over. */
  lastSeen = '';
  /** Nothing but the result: the shell that completes a word is no place for hints. */
  silent = false;
  /** Of a command that worked; `diff` tells by it whether there are differences. */
  exitCode: ExitCode = EXIT.ok;
  /** This command goes on until it is interrupted: then that is no error to be told. */
  endless = false;
  #global: GlobalOptions = {};
  #api: Promise<Api> | undefined;
  #lastRequestId: string | undefined;
  readonly #abort = new AbortController();
  readonly #cleanups: (() => void)[] = [];

  constructor(io: Io) {
    this.io = io;
    this.#cleanups.push(io.onInterrupt((signal) => this.#abort.abort(this.#interrupted(signal))));
  }

  /** Aborted by Ctrl-C and at the end of `--timeout`; its reason is the error to show. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  configure(options: GlobalOptions): void {
    this.#global = options;
    const output = options.output ?? 'table';
    if (!isOutputFormat(output)) {
      throw usageError(
        `unknown output ${JSON.stringify(output)}`,
        `outputs are ${OUTPUT_FORMATS.join(', ')}`,
        'use -o json',
      );
    }
    this.output = output;
    if (options.timeout !== undefined) this.#limit(options.timeout);
  }

  /** The longest time that a command takes whose user gave none. */
  defaultTimeout(text: string): void {
    if (this.#global.timeout === undefined) this.#limit(text);
  }

  #limit(given: string): void {
    const timeout = parseMs(/^\d+$/.test(given) ? `${given}s` : given);
    if (!timeout.ok || timeout.value === 0) {
      throw usageError(
        `--timeout ${given} is no duration`,
        'durations are written 30s, 2min or 1h',
        'use --timeout 30s',
      );
    }
    const timer = setTimeout(() => this.#abort.abort(this.#timedOut(given)), timeout.value);
    this.onEnd(() => clearTimeout(timer));
  }

  get global(): GlobalOptions {
    return this.#global;
  }

  api(): Promise<Api> {
    this.#api ??= import('../api/open.ts').then(({ openApi }) => openApi(this));
    return this.#api;
  }

  /** The request id of a change: the user's, or one made once so that every retry of this command repeats it. */
  requestId(options: ChangeOptions): string {
    this.#lastRequestId = options.requestId ?? randomUUID();
    return this.#lastRequestId;
  }

  /** Told to a user who cannot be told whether the change was made. */
  get lastRequestId(): string | undefined {
    return this.#lastRequestId;
  }

  ifRevision(options: ChangeOptions): bigint {
    if (options.ifRevision === undefined) return 0n;
    if (!/^[0-9]{1,18}$/.test(options.ifRevision)) {
      throw usageError(
        `--if-revision ${options.ifRevision} is no revision`,
        'revisions are whole numbers',
        'take meta.revision from -o json',
      );
    }
    return BigInt(options.ifRevision);
  }

  onEnd(cleanup: () => void): void {
    this.#cleanups.push(cleanup);
  }

  end(): void {
    for (const cleanup of this.#cleanups.splice(0).reverse()) cleanup();
  }

  #interrupted(signal: NodeJS.Signals): CliError {
    const pressed = signal === 'SIGINT' ? 'Ctrl-C was pressed' : `${signal} was received`;
    return new CliError({
      exit: EXIT.interrupted,
      reason: 'INTERRUPTED',
      what: this.goesOn === undefined ? 'interrupted' : `no longer waiting: ${this.goesOn.what}`,
      why: [pressed],
      hint: this.goesOn?.hint ?? '',
    });
  }

  #timedOut(timeout: string): CliError {
    const { doing, lastSeen, goesOn } = this;
    return new CliError({
      exit: EXIT.unavailable,
      reason: 'TIMEOUT',
      what: doing === '' ? 'not done in time' : `cannot ${doing} in time`,
      why: [[`the time (${timeout}) is over`, lastSeen, goesOn?.what ?? ''].filter((part) => part !== '').join('; ')],
      hint: goesOn?.hint ?? 'try again with a longer --timeout',
    });
  }
}
